"""Random augmentation on the host of one decoded crop: flip, policy, colour jitter.

    image = pipeline(image, Draws(seed, 'augment', visit, example))

What a pipeline does follows from the configuration (augmentation/registry.py). The order is that
of both published pipelines: torchvision's reference training flips, then applies the policy; timm
does the same, and then jitters colours where both are asked for. Everything is drawn from `draws`,
so that the bytes follow from (seed, visit, example) and the configuration alone.

The policies draw operations of data_sources/host_ops.py:

TrivialAugment (Mueller and Hutter 2021, arXiv:2103.10158): one of 14 operations, all equally
likely, at one of 31 strengths, with a random sign where it has one. The ranges are those of the
paper's "wide" table (TA Wide), cut into steps as in torchvision's TrivialAugmentWide. What moves
uncovers black, as there.

RandAugment (Cubuk et al. 2020, arXiv:1909.13719): `layers` of 15 operations, drawn with
replacement, at one strength out of 10. Operations and ranges are those of timm's 'increasing'
variant (`inc1`), with which "ResNet strikes back" (Wightman et al. 2021) trained: 0 is gentle and
10 is strong for each. What moves uncovers the mean colour of ImageNet. Three differences from timm:
interpolation is always bilinear (timm draws bilinear or bicubic); translation is by whole pixels;
posterize keeps at least one bit, where timm's strength 10 asks for none. A probability that is not
given is 0.5 there: 'rand-m7-mstd0.5-inc1' is magnitude 7, magnitude_std 0.5, op_probability 0.5,
layers 2.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from data_sources import geometry
from data_sources.draws import Draws

Colour = tuple[int, int, int]
# An image, and matrices of where its pixels were, one for each time that they moved.
Moved = tuple[np.ndarray, tuple[np.ndarray, ...]]

IMAGENET_MEAN = (124, 116, 104)
BLACK = (0, 0, 0)
BINS = 31  # TrivialAugment's strengths
LEVELS = 10.0  # RandAugment's strongest


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Augmentations one after the other; picklable, for worker processes.

    Attributes:
      steps: (function, its keyword arguments); see augmentation.row.Augmentation.host.
    """

    steps: tuple[tuple[Callable[..., Moved], Mapping[str, Any]], ...] = ()

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """Returns the image, augmented as drawn.

        Args:
          image: uint8 [height, width, 3], C-contiguous, RGB, of any size from 1x1; never changed.
          draws: this example's random numbers.

        Returns:
          uint8, same shape, C-contiguous; it may be `image` itself, and may be read-only.
        """
        return self.with_matrices(image, draws)[0]

    def with_matrices(self, image: np.ndarray, draws: Draws) -> Moved:
        """Returns the same image, and the matrices by which its targets move, in order."""
        matrices: list[np.ndarray] = []
        for function, values in self.steps:
            image, own = function(image, draws, **values)
            matrices += own
        return image, tuple(matrices)


def _operations() -> ModuleType:
    from data_sources import host_ops  # imports Pillow, which a set in memory does without

    return host_ops


@dataclasses.dataclass(frozen=True)
class PolicyOperation:
    """A row of a policy's table.

    Attributes:
      operation: its name in host_ops.
      value: strength as a fraction of the strongest, 0 .. 1, to the operation's value.
      signed: whether half of the draws negate the value.
    """

    operation: str
    value: Callable[[float], float] = lambda fraction: 0.0
    signed: bool = False

    def apply(self, image: np.ndarray, fraction: float, negate: bool, fill: Colour) -> np.ndarray:
        """Applies the operation at a fraction of its greatest strength."""
        operation = getattr(_operations(), self.operation)
        return operation(image, self._signed(fraction, negate), fill)

    def moved(self, image: np.ndarray, fraction: float, negate: bool, fill: Colour) -> Moved:
        """Applies it, and returns the matrix, too."""
        matrix = _operations().MATRICES.get(self.operation)
        changed = self.apply(image, fraction, negate, fill)
        if matrix is None:
            return changed, ()
        return changed, (matrix(self._signed(fraction, negate), image.shape[:2]),)

    def _signed(self, fraction: float, negate: bool) -> float:
        value = self.value(fraction)
        return -value if negate and self.signed else value


# 'Wide' in table 1 of the paper; the steps of posterize and solarize as in torchvision.
TRIVIALAUGMENT = (
    PolicyOperation('identity'),
    PolicyOperation('auto_contrast'),
    PolicyOperation('equalize'),
    PolicyOperation('rotate', lambda fraction: 135 * fraction, signed=True),
    PolicyOperation('solarize', lambda fraction: 255 - 255 * fraction),
    PolicyOperation('color', lambda fraction: 0.99 * fraction, signed=True),
    PolicyOperation('posterize', lambda fraction: 8 - round(6 * fraction)),
    PolicyOperation('contrast', lambda fraction: 0.99 * fraction, signed=True),
    PolicyOperation('brightness', lambda fraction: 0.99 * fraction, signed=True),
    PolicyOperation('sharpness', lambda fraction: 0.99 * fraction, signed=True),
    PolicyOperation('shear_x', lambda fraction: 0.99 * fraction, signed=True),
    PolicyOperation('shear_y', lambda fraction: 0.99 * fraction, signed=True),
    PolicyOperation('translate_x', lambda fraction: 32 * fraction, signed=True),
    PolicyOperation('translate_y', lambda fraction: 32 * fraction, signed=True),
)

RANDAUGMENT = (
    PolicyOperation('auto_contrast'),
    PolicyOperation('equalize'),
    PolicyOperation('invert'),
    PolicyOperation('rotate', lambda fraction: 30 * fraction, signed=True),
    PolicyOperation('posterize', lambda fraction: max(1, 4 - int(4 * fraction))),
    PolicyOperation('solarize', lambda fraction: 256 - int(256 * fraction)),
    PolicyOperation('solarize_add', lambda fraction: int(110 * fraction)),
    PolicyOperation('color', lambda fraction: 0.9 * fraction, signed=True),
    PolicyOperation('contrast', lambda fraction: 0.9 * fraction, signed=True),
    PolicyOperation('brightness', lambda fraction: 0.9 * fraction, signed=True),
    PolicyOperation('sharpness', lambda fraction: 0.9 * fraction, signed=True),
    PolicyOperation('shear_x', lambda fraction: 0.3 * fraction, signed=True),
    PolicyOperation('shear_y', lambda fraction: 0.3 * fraction, signed=True),
    PolicyOperation('translate_x_share', lambda fraction: 0.45 * fraction, signed=True),
    PolicyOperation('translate_y_share', lambda fraction: 0.45 * fraction, signed=True),
)

# Policy -> its table, and the colour of what its movements uncover.
POLICIES = {
    'randaugment': (RANDAUGMENT, IMAGENET_MEAN),
    'trivialaugment': (TRIVIALAUGMENT, BLACK),
}


def flip(image: np.ndarray, draws: Draws, flip: float) -> Moved:
    """Mirrors left to right with probability `flip`; images as in `Pipeline`."""
    if not draws.happens(flip):
        return image, ()
    return _operations().flip(image), (geometry.mirror(image.shape[1]),)


def policy(image: np.ndarray, draws: Draws, policy: str, **options: Any) -> Moved:
    """Applies operations of a policy, if one is chosen.

    Args:
      image, draws: as in `Pipeline`.
      policy: 'none', 'randaugment' or 'trivialaugment'.
      **options: those of `rand_augment`.
    """
    if policy == 'randaugment':
        return rand_augment(image, draws, **options)
    return trivial_augment(image, draws) if policy == 'trivialaugment' else (image, ())


def trivial_augment(image: np.ndarray, draws: Draws) -> Moved:
    """Applies one operation of TRIVIALAUGMENT; images as in `Pipeline`."""
    table, fill = POLICIES['trivialaugment']
    operation = table[draws.integer(len(table))]
    fraction = draws.integer(BINS) / (BINS - 1)
    return operation.moved(image, fraction, draws.happens(0.5), fill)


def rand_augment(
    image: np.ndarray,
    draws: Draws,
    layers: int,
    magnitude: float,
    magnitude_std: float,
    op_probability: float,
) -> Moved:
    """Applies operations of RANDAUGMENT.

    Args:
      image, draws: as in `Pipeline`.
      layers: operations that are drawn.
      magnitude: their strength, 0 .. 10.
      magnitude_std: standard deviation of the strength, which is drawn for each operation.
      op_probability: that an operation that was drawn is applied.
    """
    table, fill = POLICIES['randaugment']
    matrices: list[np.ndarray] = []
    for _ in range(layers):
        operation = table[draws.integer(len(table))]
        if not draws.happens(op_probability):
            continue
        level = magnitude
        if magnitude_std:
            level = min(max(level + magnitude_std * draws.normal(), 0.0), LEVELS)
        image, own = operation.moved(image, level / LEVELS, draws.happens(0.5), fill)
        matrices += own
    return image, tuple(matrices)


def color_jitter(image: np.ndarray, draws: Draws, color_jitter: tuple[float, ...]) -> Moved:
    """Changes brightness, contrast, saturation and hue, in random order, by uniform amounts.

    The first three multiply by a factor in [max(0, 1 - v), 1 + v], hue turns by one in [-v, v], as
    torchvision's ColorJitter. Images as in `Pipeline`; `color_jitter` holds the four v.
    """
    operations = ('brightness', 'contrast', 'color', 'hue')
    chosen = [(name, v) for name, v in zip(operations, color_jitter, strict=True) if v]
    while chosen:
        name, v = chosen.pop(draws.integer(len(chosen)))
        lowest = -v if name == 'hue' else max(-1.0, -v)
        image = getattr(_operations(), name)(image, draws.uniform(lowest, v))
    return image, ()
