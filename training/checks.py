"""Checks of a configuration's fields against each other: contradictions, options of others."""

import math
from typing import Any

from ml_collections import ConfigDict

import models
from augmentation import registry as augmentations
from errors import UserError, did_you_mean
from tasks import registry
from training import input_checks, optimizers, partition, placement, profiling


def check(config: ConfigDict) -> None:
    """Checks the fields against each other, before anything is compiled.

    Raises:
      UserError: two fields contradict each other, or an option belongs to something not chosen.
    """
    model_options(config)
    partition.check(config)
    input_checks.check(config)
    profiling.check(config.profile.steps)
    placement.check(config)
    registry.get(config.task).check(config)
    registry.check_fields(config)
    registry.best_metric(config)
    optimizer, schedule = config.optimizer, config.schedule
    known = optimizers.OPTIONS[optimizer.name]
    for name, value in optimizer.items():
        if name not in (*optimizers.COMMON, *known) and value is not None:
            raise UserError(
                f'config.optimizer.{name} means nothing to {optimizer.name}, which takes '
                f'{", ".join(known)}.'
            )
    chosen = optimizers.options(optimizer)
    if chosen.get('nesterov') and not chosen['momentum']:
        raise UserError('config.optimizer.nesterov needs a config.optimizer.momentum above 0.')
    if schedule.name != 'step' and schedule.milestones:
        raise UserError(
            f'config.schedule.milestones belongs to schedule.name=step, not {schedule.name}.'
        )
    if schedule.name == 'step' and not schedule.milestones:
        raise UserError('config.schedule.name=step needs config.schedule.milestones.')
    if list(schedule.milestones) != sorted(set(schedule.milestones)):
        raise UserError('config.schedule.milestones must increase.')
    if schedule.name != 'cosine' and schedule.final:
        raise UserError('config.schedule.final belongs to schedule.name=cosine.')
    if min(config.data.std) <= 0:
        raise UserError('config.data.std must be greater than 0.')
    if config.batch_size % config.accumulate:
        raise UserError(
            f'config.batch_size={config.batch_size} is not divisible by '
            f'config.accumulate={config.accumulate}.'
        )


def check_devices(config: ConfigDict, devices: int) -> None:
    """Checks that the devices can share a batch equally.

    Every device needs the same number of examples of every micro-batch, and whole pairs where
    images are mixed.

    Raises:
      UserError: they cannot; names batch sizes that work.
    """
    unit = devices * config.accumulate
    if config.batch_size % unit:
        lower = max(config.batch_size // unit * unit, unit)
        per = f' times {config.accumulate} micro-batches' if config.accumulate > 1 else ''
        raise UserError(
            f'config.batch_size={config.batch_size} is not divisible by {devices} devices{per}: '
            f'choose {lower} or {lower + unit}, or set config.devices.'
        )
    switches = augmentations.mixing_switches(config)
    if switches and config.batch_size % (2 * devices):
        smoke = ' (config.smoke made the batch small.)' if config.smoke else ''
        unit = math.lcm(2, config.accumulate) * devices
        lower = max(config.batch_size // unit * unit, unit)
        raise UserError(
            f'{" and ".join(switches)} mix pairs of examples within a device, and {devices} '
            f'devices do not get an even part each of config.batch_size={config.batch_size}: '
            f'choose {lower} or {lower + unit}, or set config.devices.{smoke}'
        )


def model_options(config: ConfigDict) -> dict[str, Any]:
    """Returns the options given for the configured model.

    Raises:
      UserError: there is no such model, it does not have an option, or a value is invalid.
    """
    name = config.model.name
    given = {k: v for k, v in config.model.items() if k != 'name' and v is not None}
    if name not in models.names():
        hint = did_you_mean(name, models.names()) or (
            ' A model of your own has to be registered first: see docs/models.md.'
        )
        raise UserError(
            f'config.model.name={name} is not a model; there are {", ".join(models.names())}.{hint}'
        )
    known = models.options(name)
    for option in given:
        if option not in known:
            raise UserError(
                f'config.model.{option} means nothing to {name}, which takes '
                f'{", ".join(sorted(known))}.'
            )
    try:
        models.create(name, num_classes=1, **given)
    except UserError as error:
        raise UserError(f'config.model: {error}') from error
    return given
