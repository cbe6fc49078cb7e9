"""Checks of the fields data.* and augment.* against each other."""

from ml_collections import ConfigDict

from augmentation import registry as augmentations
from configs import base
from errors import UserError

# Fields that have a meaning only for a streamed set (data.image_size).
STREAMED = (
    'data.eval_image_size', 'data.eval_resize', 'data.crop_scale', 'data.crop_ratio',
    'data.repeats', 'data.on_bad_record',
)  # fmt: skip


def check(config: ConfigDict) -> None:
    """Checks the fields of data and augmentation against each other.

    Raises:
      UserError: a field has no meaning without another one, or an invalid value.
    """
    data = config.data
    if data.image_size is not None:
        _check_sizes(config)
    fields = {field.name: field for field in base.fields()}
    for name in STREAMED:
        if data.image_size is None and not fields[name].is_default(config):
            raise UserError(f'config.{name} is for streamed sets: it needs config.data.image_size.')
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
    if config.linear_probe and data.repeats != 1:
        raise UserError(
            'config.linear_probe computes the features once, so config.data.repeats must be 1.'
        )
    augmentations.check(config)


def _check_sizes(config: ConfigDict) -> None:
    """Checks that an evaluation crop is not larger than the resized picture."""
    side = config.data.eval_image_size or config.data.image_size
    if config.data.eval_resize and config.data.eval_resize < side:
        raise UserError(
            f'config.data.eval_resize={config.data.eval_resize} is smaller than the center crop of '
            f'{side} that evaluation takes: raise it, or lower config.data.eval_image_size.'
        )
