"""From the fields data.* and augment.* to the step's switches and strengths; what contradicts."""

from typing import Any

from configs import base
from errors import UserError

AFFINE = ('shift', 'rotate', 'scale')
DEFAULTS = {field.name: field.default for field in base.fields()}
RANDAUGMENT = ('layers', 'magnitude', 'magnitude_std', 'op_probability')
# What means something only where data.image_size says that a set is streamed.
STREAMED = (
    'data.eval_image_size', 'data.eval_resize', 'data.crop_scale', 'data.crop_ratio',
    'data.repeats', 'data.on_bad_record', 'augment.policy', 'augment.color_jitter',
)  # fmt: skip


def switches(config) -> dict[str, Any]:
    """Returns the static fields of StepSpec that turn augmentation on.

    A streamed set is cropped and mirrored on the host, where its pictures are decoded.
    """
    augment = config.augment
    return {
        'augment': any(augment[name] for name in AFFINE),
        'crop': augment.crop > 0,
        'flip': augment.flip > 0 and not _streamed(config),
        'mixup': augment.mixup > 0,
        'cutmix': augment.cutmix > 0,
        'erase': augment.erase_mode if augment.erase else '',
    }


def strengths(config) -> dict[str, float]:
    """Returns the numbers that go with what is switched on, by their names in the step."""
    on = switches(config)
    names = [name for name in ('crop', 'flip', 'mixup', 'cutmix', 'erase') if on[name]]
    names += AFFINE if on['augment'] else ()
    names += ('mix_probability',) if mixes(config) else ()
    names += ('cutmix_share',) if on['mixup'] and on['cutmix'] else ()
    return {name: config.augment[name] for name in names}


def mixes(config) -> bool:
    """Whether pairs of training images are mixed."""
    return bool(config.augment.mixup or config.augment.cutmix)


def check(config) -> None:
    """Checks the fields of augmentation against each other.

    Raises:
      UserError: one says nothing without another that is not given, or has values that cannot be.
    """
    augment, data = config.augment, config.data
    if _streamed(config):
        _check_streamed(config)
    else:
        for name in STREAMED:
            if _given(config, name):
                raise UserError(
                    f'config.{name} is for streamed sets: it needs config.data.image_size.'
                )
    for name in RANDAUGMENT:
        if augment.policy != 'randaugment' and _given(config, f'augment.{name}'):
            raise UserError(
                f'config.augment.{name} belongs to augment.policy=randaugment, not '
                f'{augment.policy}.'
            )
    if _given(config, 'augment.mix_probability') and not mixes(config):
        raise UserError(
            'config.augment.mix_probability needs config.augment.mixup or config.augment.cutmix.'
        )
    if _given(config, 'augment.cutmix_share') and not (augment.mixup and augment.cutmix):
        raise UserError(
            'config.augment.cutmix_share chooses between config.augment.mixup and '
            'config.augment.cutmix, and needs both.'
        )
    if _given(config, 'augment.erase_mode') and not augment.erase:
        raise UserError('config.augment.erase_mode needs config.augment.erase above 0.')
    for name in ('crop_scale', 'crop_ratio'):
        value = data[name]
        if len(value) != 2 or not 0 < value[0] <= value[1]:
            raise UserError(
                f'config.data.{name} must be two increasing numbers above 0, not {value!r}.'
            )
    if data.crop_scale[1] > 1:
        raise UserError(
            f'config.data.crop_scale={data.crop_scale!r}: a crop has at most the whole area, 1.'
        )
    jitter = augment.color_jitter
    if len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5:
        raise UserError(
            'config.augment.color_jitter must be four numbers of at least 0, for brightness, '
            f'contrast, saturation and hue (at most 0.5), not {jitter!r}.'
        )
    if config.linear_probe:
        _check_probe(config)


def _check_streamed(config) -> None:
    if config.augment.crop:
        raise UserError(
            'config.augment.crop is for sets in memory; a streamed set (config.data.image_size) '
            'is cropped by config.data.crop_scale.'
        )
    side = config.data.eval_image_size or config.data.image_size
    if config.data.eval_resize and config.data.eval_resize < side:
        raise UserError(
            f'config.data.eval_resize={config.data.eval_resize} is smaller than the centre crop of '
            f'{side} that evaluation takes of it.'
        )


def _check_probe(config) -> None:
    names = (*AFFINE, 'crop', 'flip', 'mixup', 'cutmix', 'erase', 'policy', 'color_jitter')
    for name in (*(f'augment.{name}' for name in names), 'data.repeats'):
        if _given(config, name):
            raise UserError(
                f'config.linear_probe computes the features once, so config.{name} must be '
                f'{DEFAULTS[name]!r}.'
            )


def _given(config, name: str) -> bool:
    section, _, leaf = name.partition('.')
    return config[section][leaf] != DEFAULTS[name]


def _streamed(config) -> bool:
    return config.data.image_size is not None
