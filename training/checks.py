"""Checks of a configuration's fields against each other: contradictions, options of others."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

import models
from augmentation import registry as augmentations
from configs import base
from distributed import devices
from errors import UserError, did_you_mean
from tasks import registry
from training import optimizers, partition, placement, profiling

# Fields that have a meaning only for a streamed set (data.image_size).
STREAMED = (
    'data.eval_image_size', 'data.eval_resize', 'data.crop_scale', 'data.crop_ratio',
    'data.crop', 'data.repeats', 'data.on_bad_record', 'data.image_height',
)  # fmt: skip
WORKER = 100e6  # bytes of memory, at the least, of a process that decodes


@dataclasses.dataclass(frozen=True)
class Idle:
    """A field that was given and means nothing beside the values of others.

    A configuration is refused for it. In a sweep, where the values of a trial decide what means
    something, it is left out (sweeps/conditions.py).

    Attributes:
      name: of the field.
      by: the names of the fields by whose values it means nothing.
      why: a sentence.
      instead: the value that leaves it out.
    """

    name: str
    by: tuple[str, ...]
    why: str
    instead: Any = None


def check(config: ConfigDict) -> None:
    """Checks the fields against each other, before anything is compiled.

    Raises:
      UserError: two fields contradict each other, or an option belongs to something not chosen.
    """
    for found in idle(config):
        raise UserError(found.why)
    model_options(config)
    partition.check(config)
    _check_inputs(config)
    profiling.check(config.profile.steps)
    placement.check(config)
    registry.get(config.task).check(config)
    registry.best_metric(config)
    schedule = config.schedule
    if schedule.name == 'step' and not schedule.milestones:
        raise UserError('config.schedule.name=step needs config.schedule.milestones.')
    if list(schedule.milestones) != sorted(set(schedule.milestones)):
        raise UserError('config.schedule.milestones must increase.')
    if config.batch_size % config.accumulate:
        raise UserError(
            f'config.batch_size={config.batch_size} is not divisible by '
            f'config.accumulate={config.accumulate}.'
        )


def _check_inputs(config: ConfigDict) -> None:
    """Checks the fields of data and augmentation against each other.

    Raises:
      UserError: a field has no meaning without another one, or an invalid value.
    """
    data = config.data
    for name in ('mean', 'std'):
        if not data[name]:
            raise UserError(
                f'config.data.{name} must have a number for each channel, or one for all, not ().'
            )
    if data.image_size is not None:
        _check_sizes(config)
    if data.tile is not None and data.tile % 64:
        raise UserError(f'config.data.tile={data.tile} must be a multiple of 64.')
    if data.tile is not None and not registry.get(config.task).dense:
        raise UserError(
            f'config.data.tile is for tasks with an answer for each pixel, not for '
            f'task={config.task}: leave it out.'
        )
    for name in ('crop_scale', 'crop_ratio', 'crop_zoom'):
        value = data[name]
        if len(value) != 2 or value[0] > value[1]:
            raise UserError(f'config.data.{name} must be two increasing numbers, not {value!r}.')
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


def check_devices(config: ConfigDict, devices: int) -> None:
    """Checks that the devices can share a batch equally.

    Every device needs the same number of examples of every micro-batch, and whole pairs where
    images are mixed.

    Raises:
      UserError: they cannot; names batch sizes that work.
    """
    # config.smoke makes the batch as small as config.devices allows, and 0 says little.
    smoke = f' In a smoke run, set config.devices={devices} instead.' if config.smoke else ''
    unit = devices * config.accumulate
    if config.batch_size % unit:
        lower = max(config.batch_size // unit * unit, unit)
        per = f' times {config.accumulate} micro-batches' if config.accumulate > 1 else ''
        raise UserError(
            f'config.batch_size={config.batch_size} is not divisible by {devices} devices{per}: '
            f'choose {lower} or {lower + unit}, or set config.devices.{smoke}'
        )
    switches = augmentations.mixing_switches(config)
    if switches and config.batch_size % (2 * devices):
        unit = math.lcm(2, config.accumulate) * devices
        lower = max(config.batch_size // unit * unit, unit)
        raise UserError(
            f'{" and ".join(switches)} mix pairs of examples within a device, and {devices} '
            f'devices do not get an even part each of config.batch_size={config.batch_size}: '
            f'choose {lower} or {lower + unit}, or set config.devices.{smoke}'
        )


def check_memory(
    config: ConfigDict, image_shape: Sequence[int], state: Any, all_devices: Sequence[jax.Device]
) -> None:
    """Checks that no single thing that a run needs is larger than the memory of this machine.

    It refuses what cannot work anywhere near; tools.preflight says what will.

    Args:
      config: the configuration.
      image_shape: [height, width, channels] of a training image.
      state: the state of the training, or its shapes and types.
      all_devices: those of all processes.

    Raises:
      UserError: the state, a batch or the worker processes are.
    """
    host = devices.host_memory()
    # A process cannot ask for the memory of another one's device.
    own = next(d for d in all_devices if d.process_index == jax.process_index())
    limit = devices.memory_limit(own) or host
    # The virtual devices of a CPU share its memory.
    sharing = jax.local_device_count() if all_devices[0].platform == 'cpu' else 1
    state_bytes = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    of_device = config.batch_size // config.accumulate // len(all_devices)
    side, data = config.data.eval_image_size or config.data.image_size, config.data
    evaluated = side * side * 3 * config.eval_batch_size if side else 0
    model, size = f'config.model.name={config.model.name}', 'x'.join(map(str, image_shape))
    for needed, memory, what, remedy in (
        (sharing * state_bytes, limit, f'The state of {model} with its options', 'a smaller one'),
        (sharing * of_device * math.prod(image_shape) * 4, limit, f'A batch of {size} pixels',
         'a smaller config.batch_size, smaller images, or more config.accumulate'),
        (evaluated, host, 'A batch in evaluation',
         'a smaller config.eval_batch_size or config.data.eval_image_size'),
        (data.workers * WORKER, host, f'config.data.workers={data.workers}', 'fewer'),
    ):  # fmt: skip
        if needed > memory:
            raise UserError(
                f'{what} takes {needed / 1e9:,.1f} GB of memory, and there are {memory / 1e9:,.1f} '
                f'GB: choose {remedy}.'
            )


def model_options(config: ConfigDict) -> dict[str, Any]:
    """Returns the options given for the configured model.

    Raises:
      UserError: there is no such model, it does not have an option, or a value is invalid.
    """
    name = config.model.name
    given = {k: v for k, v in config.model.items() if k != 'name' and v is not None}
    for found in idle(config):
        if found.name.startswith('model.'):
            raise UserError(found.why)
    try:
        models.create(name, num_classes=1, **given)
    except UserError as error:
        raise UserError(f'config.model: {error}') from error
    return given


def idle(config: ConfigDict) -> list[Idle]:
    """Returns the fields that were given and mean nothing.

    Raises:
      UserError: there is no such model or task.
    """
    fields = {field.name: field for field in base.fields()}
    found = [*_models(config), *_optimizers(config), *_schedules(config), *_crops(config)]
    for name, (by, why) in augmentations.idle(config).items():
        found.append(Idle(name, by, why, fields[name].default))
    for name, why in registry.idle(config).items():
        found.append(Idle(name, ('task',), why, fields[name].default))
    for name in STREAMED:
        if config.data.image_size is None and not fields[name].is_default(config):
            why = f'config.{name} is for streamed sets: it needs config.data.image_size.'
            found.append(Idle(name, ('data.image_size',), why, fields[name].default))
    return found


def _models(config: ConfigDict) -> list[Idle]:
    name = config.model.name
    if name not in models.names():
        hint = did_you_mean(name, models.names()) or (
            ' A model of your own has to be registered first: see docs/models.md.'
        )
        raise UserError(
            f'config.model.name={name} is not a model; there are {", ".join(models.names())}.{hint}'
        )
    known = models.options(name)
    takes = f'means nothing to {name}, which takes {", ".join(sorted(known))}.'
    return [
        Idle(f'model.{option}', ('model.name',), f'config.model.{option} {takes}')
        for option, value in config.model.items()
        if option != 'name' and value is not None and option not in known
    ]


def _optimizers(config: ConfigDict) -> list[Idle]:
    optimizer = config.optimizer
    known = optimizers.OPTIONS[optimizer.name]
    takes = f'means nothing to {optimizer.name}, which takes {", ".join(known)}.'
    found = [
        Idle(f'optimizer.{option}', ('optimizer.name',), f'config.optimizer.{option} {takes}')
        for option, value in optimizer.items()
        if option not in (*optimizers.COMMON, *known) and value is not None
    ]
    chosen = optimizers.options(optimizer)
    if chosen.get('nesterov') and not chosen['momentum']:
        why = 'config.optimizer.nesterov needs a config.optimizer.momentum above 0.'
        found.append(Idle('optimizer.nesterov', ('optimizer.momentum',), why, False))
    return found


def _crops(config: ConfigDict) -> list[Idle]:
    """Returns the fields that belong to another kind of crop than `data.crop`."""
    crop, fields = config.data.crop, {field.name: field for field in base.fields()}
    owners = {
        'crop_scale': ('area',), 'crop_ratio': ('area',), 'eval_resize': ('area',),
        'eval_image_size': ('area', 'pixels'), 'crop_zoom': ('pixels', 'fit'),
        'image_height': ('fit',),
    }  # fmt: skip
    return [
        Idle(
            f'data.{name}',
            ('data.crop',),
            f'config.data.{name} belongs to data.crop={" or ".join(own)}, not {crop}.',
            fields[f'data.{name}'].default,
        )
        for name, own in owners.items()
        if crop not in own and not fields[f'data.{name}'].is_default(config)
    ]


def _schedules(config: ConfigDict) -> list[Idle]:
    schedule, found, by = config.schedule, [], ('schedule.name',)
    if schedule.name != 'step' and schedule.milestones:
        why = f'config.schedule.milestones belongs to schedule.name=step, not {schedule.name}.'
        found.append(Idle('schedule.milestones', by, why, ()))
    if schedule.name != 'cosine' and schedule.final:
        why = 'config.schedule.final belongs to schedule.name=cosine.'
        found.append(Idle('schedule.final', by, why, 0.0))
    return found
