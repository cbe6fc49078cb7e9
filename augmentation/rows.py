"""The augmentations of this repository, one row each; see augmentation/row.py."""

from typing import Any

from augmentation import augment, mixing
from augmentation.row import Augmentation, Stage
from data_sources import host_augment
from errors import UserError
from field import Field


def _mixing_scalars(section: Any) -> tuple[str, ...]:
    """Only those of what is on: mixing.mixed tells by them what to do."""
    on = tuple(name for name in ('mixup', 'cutmix') if section[name])
    return (*on, 'mix_probability', *(('cutmix_share',) if len(on) == 2 else ()))


def _idle_in_mixing(section: Any) -> dict[str, tuple[tuple[str, ...], str]]:
    off = tuple(name for name in ('mixup', 'cutmix') if not section[name])
    why = (
        'config.augment.cutmix_share chooses between config.augment.mixup and '
        'config.augment.cutmix, and needs both.'
    )
    return {'cutmix_share': (off, why)} if off else {}


def _idle_in_policy(section: Any) -> dict[str, tuple[tuple[str, ...], str]]:
    if section.policy == 'randaugment':
        return {}
    belongs = f'belongs to augment.policy=randaugment, not {section.policy}.'
    options = ('layers', 'magnitude', 'magnitude_std', 'op_probability')
    return {leaf: (('policy',), f'config.augment.{leaf} {belongs}') for leaf in options}


def _check_jitter(config: Any, given: tuple[str, ...]) -> None:
    del given
    jitter = config.augment.color_jitter
    if len(jitter) != 4 or jitter[3] > 0.5:
        raise UserError(
            'config.augment.color_jitter must be four numbers of at least 0, for brightness, '
            f'contrast, saturation and hue (at most 0.5), not {jitter!r}.'
        )


AFFINE = Augmentation(
    'affine',
    fields=(
        Field('augment.shift', 0.0, 'Largest shift along each axis, in pixels.', low=0,
              high=10_000, traced=True),
        Field('augment.rotate', 0.0, 'Largest rotation either way, in degrees.', low=0, high=180,
              traced=True),
        Field('augment.scale', 0.0, 'Largest relative change of size either way.', low=0, below=1,
              traced=True),
    ),
    usual={'affine': {'shift': 2.0, 'rotate': 15.0, 'scale': 0.2}},
    device=augment.affine,
    stage=Stage.GEOMETRY,
)  # fmt: skip

CROP = Augmentation(
    'crop',
    fields=(
        Field('augment.crop', 0, 'Pixels of zeros around an image in memory, before it is cropped '
              'at random to its size.', low=0, high=10_000, traced=True),
    ),
    usual={'crop': {'crop': 4}},
    device=augment.crop,
    stage=Stage.GEOMETRY,
    streamed=False,
    instead='is cropped by config.data.crop_scale',
)  # fmt: skip

FLIP = Augmentation(
    'flip',
    fields=(
        Field('augment.flip', 0.0, 'Probability of mirroring an image left to right.', low=0,
              high=1, traced=True),
    ),
    usual={'flip': {'flip': 0.5}},
    device=augment.flip,
    stage=Stage.GEOMETRY,
    host=host_augment.flip,
)  # fmt: skip

TURNS = Augmentation(
    'quarter_turns',
    fields=(
        Field('augment.quarter_turns', 0.0, 'Probability of turning a square image by a random '
              'multiple of 90 degrees.', low=0, high=1, traced=True),
    ),
    usual={'quarter_turns': {'quarter_turns': 1.0}},
    device=augment.quarter_turns,
    stage=Stage.GEOMETRY,
)  # fmt: skip

ELASTIC = Augmentation(
    'elastic',
    fields=(
        Field('augment.elastic', 0.0, 'Elastic deformation: standard deviation of the displacement '
              'of a pixel, in pixels.', low=0, high=1000, traced=True),
        Field('augment.elastic_grid', 32, 'Elastic deformation: pixels between two points whose '
              'displacements are drawn.', low=2, high=10_000),
    ),
    usual={'elastic': {'elastic': 3.0}},
    device=augment.elastic,
    stage=Stage.GEOMETRY,
    bends=True,
)  # fmt: skip

LIGHT = Augmentation(
    'light',
    fields=(
        Field('augment.brightness', 0.0, 'Largest relative change of the brightness of an image in '
              'memory.', low=0, high=1, traced=True),
        Field('augment.contrast', 0.0, 'Largest relative change of the contrast of an image in '
              'memory.', low=0, high=1, traced=True),
    ),
    usual={'light': {'brightness': 0.3, 'contrast': 0.3}},
    device=augment.light,
    stage=Stage.PIXELS,
    streamed=False,
    instead='has config.augment.color_jitter',
)  # fmt: skip

MIXING = Augmentation(
    'mixing',
    fields=(
        Field('augment.mixup', 0.0, 'mixup: alpha of the Beta distribution from which fractions '
              'are drawn; 0: off.', low=0, high=1000, smallest=1e-3, traced=True),
        Field('augment.cutmix', 0.0, 'CutMix: alpha of the Beta distribution from which fractions '
              'are drawn; 0: off.', low=0, high=1000, smallest=1e-3, traced=True),
        Field('augment.mix_probability', 1.0, 'Probability that a pair of images is mixed.',
              above=0, high=1, traced=True, regularizer=True),
        Field('augment.cutmix_share', 0.5, 'Probability of CutMix for a pair that is mixed, where '
              'mixup is on, too.', low=0, high=1, traced=True),
    ),
    usual={'mixup': {'mixup': 0.2}, 'cutmix': {'cutmix': 1.0}},
    device=mixing.mixed,
    stage=Stage.MIXTURE,
    scalars=_mixing_scalars,
    idle=_idle_in_mixing,
)  # fmt: skip

ERASE = Augmentation(
    'erase',
    fields=(
        Field('augment.erase', 0.0, 'Probability of erasing a box of an image.', low=0, high=1,
              traced=True),
        Field('augment.erase_mode', 'noise', 'What an erased box is filled with; zero is the mean '
              'color.', choices=('noise', 'zero')),
    ),
    usual={'erase': {'erase': 1.0}},
    device=augment.erase,
    stage=Stage.NORMALIZED,
)  # fmt: skip

POLICY = Augmentation(
    'policy',
    fields=(
        Field('augment.policy', 'none', 'Random operations on a picture of a streamed set, drawn '
              'from a table.', choices=('none', 'randaugment', 'trivialaugment')),
        Field('augment.layers', 2, 'randaugment: operations per picture.', low=1, high=100),
        Field('augment.magnitude', 9.0, 'randaugment: strength of the operations, up to 10.', low=0,
              high=10),
        Field('augment.magnitude_std', 0.0, 'randaugment: standard deviation of the strength, '
              'which is drawn for each operation.', low=0, high=100),
        Field('augment.op_probability', 1.0, 'randaugment: probability that an operation that was '
              'drawn is applied.', low=0, high=1),
    ),
    usual={
        'randaugment': {'policy': 'randaugment'},
        'trivialaugment': {'policy': 'trivialaugment'},
    },
    host=host_augment.policy,
    idle=_idle_in_policy,
)  # fmt: skip

COLOR_JITTER = Augmentation(
    'color_jitter',
    fields=(
        Field('augment.color_jitter', (0.0, 0.0, 0.0, 0.0), 'Largest change of brightness, '
              'contrast, saturation (relative) and hue (turns, at most 0.5) of a picture of a '
              'streamed set.', low=0, high=100),
    ),
    usual={'color_jitter': {'color_jitter': (0.4, 0.4, 0.4, 0.1)}},
    host=host_augment.color_jitter,
    check=_check_jitter,
)  # fmt: skip

# In the order of their stages on the device, and in this order within one, and on the host.
ROWS = (LIGHT, AFFINE, CROP, FLIP, TURNS, ELASTIC, ERASE, MIXING, POLICY, COLOR_JITTER)
