"""The static part of a step: what is compiled in."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn

from tasks.task import Task


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """The static part of a step: what is compiled in.

    Attributes:
      model: a Linen module, as the registry makes it.
      task: loss and metrics; see tasks/classification.py.
      optimizer: name of the optimizer.
      nesterov: for the optimizers that know it.
      clip: whether the gradient's norm is clipped.
      schedule: step -> fraction of the peak learning rate.
      mean, std: of pixels in [0, 1], per channel.
      augment: whether training images are warped.
      crop, flip: whether they are cropped out of a padded image, and mirrored.
      mixup, cutmix: whether and how pairs of them are mixed.
      erase: what fills the box that is erased: 'noise', 'zero' or '' (nothing is erased).
      accumulate: micro-batches per update.
      ema: whether averaged weights are kept.
      sync_batch_norm: statistics over all devices' examples.
      unroll: micro-batches as straight code; else as a loop.
      frozen: paths of the parameters that stay as they are, and of statistics that do.
      factors: {path: factor on the learning rate} of the others, where it is not 1.
    """

    model: nn.Module
    task: Task
    optimizer: str
    schedule: Callable
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nesterov: bool = False
    clip: bool = False
    augment: bool = False
    crop: bool = False
    flip: bool = False
    mixup: bool = False
    cutmix: bool = False
    erase: str = ''
    accumulate: int = 1
    ema: bool = False
    sync_batch_norm: bool = True
    unroll: bool = True
    frozen: frozenset[str] = frozenset()
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
