"""The static part of a step, which is compiled in."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax

from augmentation.row import Applied
from tasks.task import Task


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """The static part of a step: a change of any attribute compiles another program.

    Attributes:
      model: the network, as `Task.network` makes it.
      task: loss and metrics; see tasks/task.py.
      optimizer: name of the optimizer, a key of optimizers.OPTIONS.
      nesterov: whether momentum is Nesterov's; for sgd and lars.
      clip: whether the gradient's global norm is clipped.
      epsilon_in_root: whether rmsprop adds epsilon inside of the square root.
      schedule: step -> fraction of the peak learning rate.
      mean, std: mean and standard deviation of pixels in [0, 1], per channel.
      augmentations: augmentations of training images, in their order.
      accumulate: micro-batches per update.
      ema: whether averaged weights are kept.
      sync_batch_norm: whether batch norm counts the examples of all devices.
      unroll: whether micro-batches are compiled as straight code, not as a loop.
      frozen: paths of frozen parameters, and of the statistics of frozen batch norms.
      factors: {path: factor on the learning rate} of trained parameters; factors of 1 are left out.
    """

    model: nn.Module
    task: Task
    optimizer: str
    schedule: Callable[[jax.Array], jax.Array]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nesterov: bool = False
    clip: bool = False
    epsilon_in_root: bool = False
    augmentations: tuple[Applied, ...] = ()
    accumulate: int = 1
    ema: bool = False
    sync_batch_norm: bool = True
    unroll: bool = True
    frozen: frozenset[str] = frozenset()
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
