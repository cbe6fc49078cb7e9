"""Random augmentation on the host of one decoded crop: flip, policy, colour jitter.

    augment(image, Draws(seed, 'augment', visit, example), Settings(policy='randaugment', flip=0.5))

The order is that of both published pipelines: torchvision's reference training flips, then applies
the policy; timm does the same, and jitters colours after it where both are asked for. Everything is
drawn from `draws`, so that the bytes follow from (seed, visit, example) and the settings alone.

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
posterize keeps at least one bit, where timm's strength 10 asks for none. An unsaid probability is
0.5 there: 'rand-m7-mstd0.5-inc1' is magnitude 7, magnitude_std 0.5, op_probability 0.5, layers 2.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from data_sources import host_ops
from data_sources.draws import Draws

IMAGENET_MEAN = (124, 116, 104)
BLACK = (0, 0, 0)
BINS = 31  # TrivialAugment's strengths
LEVELS = 10.0  # RandAugment's strongest


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is drawn, and how strong; the fields of `config.augment` that the host reads.

    Attributes:
      policy: 'none', 'randaugment' or 'trivialaugment'.
      layers: randaugment: operations per image.
      magnitude: randaugment: strength, 0 .. 10.
      magnitude_std: randaugment: standard deviation of the strength, anew for each operation.
      op_probability: randaugment: that an operation drawn is applied.
      color_jitter: largest change of brightness, contrast, saturation (relative), hue (turns).
      flip: probability of mirroring left to right.
    """

    policy: str = 'none'
    layers: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.0
    op_probability: float = 1.0
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    flip: float = 0.0

    @classmethod
    def of(cls, config) -> 'Settings':
        """Returns the settings of `config.augment`."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a policy's table.

    Attributes:
      operation: its name in host_ops.
      value: strength as a share of the strongest, 0 .. 1, to the operation's value.
      signed: whether half of the draws negate the value.
    """

    operation: str
    value: Callable[[float], float] = lambda share: 0.0
    signed: bool = False

    def apply(self, image: np.ndarray, share: float, negate: bool, fill) -> np.ndarray:
        """Applies the operation at a share of its greatest strength."""
        value = self.value(share)
        operation = getattr(host_ops, self.operation)
        return operation(image, -value if negate and self.signed else value, fill)


# 'Wide' in table 1 of the paper; the steps of posterize and solarize as in torchvision.
TRIVIALAUGMENT = (
    Entry('identity'),
    Entry('auto_contrast'),
    Entry('equalize'),
    Entry('rotate', lambda share: 135 * share, signed=True),
    Entry('solarize', lambda share: 255 - 255 * share),
    Entry('color', lambda share: 0.99 * share, signed=True),
    Entry('posterize', lambda share: 8 - round(6 * share)),
    Entry('contrast', lambda share: 0.99 * share, signed=True),
    Entry('brightness', lambda share: 0.99 * share, signed=True),
    Entry('sharpness', lambda share: 0.99 * share, signed=True),
    Entry('shear_x', lambda share: 0.99 * share, signed=True),
    Entry('shear_y', lambda share: 0.99 * share, signed=True),
    Entry('translate_x', lambda share: 32 * share, signed=True),
    Entry('translate_y', lambda share: 32 * share, signed=True),
)

RANDAUGMENT = (
    Entry('auto_contrast'),
    Entry('equalize'),
    Entry('invert'),
    Entry('rotate', lambda share: 30 * share, signed=True),
    Entry('posterize', lambda share: max(1, 4 - int(4 * share))),
    Entry('solarize', lambda share: 256 - int(256 * share)),
    Entry('solarize_add', lambda share: int(110 * share)),
    Entry('color', lambda share: 0.9 * share, signed=True),
    Entry('contrast', lambda share: 0.9 * share, signed=True),
    Entry('brightness', lambda share: 0.9 * share, signed=True),
    Entry('sharpness', lambda share: 0.9 * share, signed=True),
    Entry('shear_x', lambda share: 0.3 * share, signed=True),
    Entry('shear_y', lambda share: 0.3 * share, signed=True),
    Entry('translate_x_share', lambda share: 0.45 * share, signed=True),
    Entry('translate_y_share', lambda share: 0.45 * share, signed=True),
)

# Policy -> its table, and the colour of what its movements uncover.
POLICIES = {
    'randaugment': (RANDAUGMENT, IMAGENET_MEAN),
    'trivialaugment': (TRIVIALAUGMENT, BLACK),
}


def augment(image: np.ndarray, draws: Draws, settings: Settings) -> np.ndarray:
    """Returns the image, augmented as drawn.

    Args:
      image: uint8 [height, width, 3], C-contiguous, RGB, of any size from 1x1; never changed.
      draws: this example's random numbers.
      settings: what to draw.

    Returns:
      uint8, same shape, C-contiguous; it may be `image` itself, and may be read-only.
    """
    if draws.happens(settings.flip):
        image = host_ops.flip(image)
    if settings.policy == 'randaugment':
        image = rand_augment(image, draws, settings)
    elif settings.policy == 'trivialaugment':
        image = trivial_augment(image, draws)
    return color_jitter(image, draws, settings.color_jitter)


def trivial_augment(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Applies one operation of TRIVIALAUGMENT; images as in `augment`."""
    table, fill = POLICIES['trivialaugment']
    entry = table[draws.integer(len(table))]
    share = draws.integer(BINS) / (BINS - 1)
    return entry.apply(image, share, draws.happens(0.5), fill)


def rand_augment(image: np.ndarray, draws: Draws, settings: Settings) -> np.ndarray:
    """Applies settings.layers operations of RANDAUGMENT; images as in `augment`."""
    table, fill = POLICIES['randaugment']
    for _ in range(settings.layers):
        entry = table[draws.integer(len(table))]
        if not draws.happens(settings.op_probability):
            continue
        level = settings.magnitude
        if settings.magnitude_std:
            level = min(max(level + settings.magnitude_std * draws.normal(), 0.0), LEVELS)
        image = entry.apply(image, level / LEVELS, draws.happens(0.5), fill)
    return image


def color_jitter(image: np.ndarray, draws: Draws, largest: tuple[float, ...]) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue, in random order, by uniform amounts.

    The first three multiply by a factor in [max(0, 1 - v), 1 + v], hue turns by one in [-v, v], as
    torchvision's ColorJitter. Images as in `augment`; `largest` holds the four v.
    """
    operations = (host_ops.brightness, host_ops.contrast, host_ops.color, host_ops.hue)
    chosen = [(op, v) for op, v in zip(operations, largest, strict=True) if v]
    while chosen:
        operation, v = chosen.pop(draws.integer(len(chosen)))
        lowest = -v if operation is host_ops.hue else max(-1.0, -v)
        image = operation(image, draws.uniform(lowest, v))
    return image
