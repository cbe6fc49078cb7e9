"""A run that is made shorter than its configuration says keeps the shape of its schedule.

Warm-up and milestones that would lie beyond the new end are scaled by the same factor as the
length. What is scaled is stored in config.json, so that a run stays a function of that file, and a
run that is resumed from it is not scaled again.
"""

from ml_collections import ConfigDict

SCALED = ('warmup', 'milestones')


def fitted(config: ConfigDict, before: ConfigDict, given: set[str]) -> ConfigDict:
    """Returns a configuration that the command line has made shorter, with a schedule that fits.

    This is for a length in the unit of the schedule; for one in steps and a schedule in epochs the
    data set has to be known (training.experiment.Experiment.fitted).

    Args:
      config: with the command line applied; it is not modified.
      before: what the file says.
      given: names of the fields on the command line; a schedule that is given there stays.
    """
    schedule, unit = config.schedule, config.schedule.unit
    decides = 'epochs' if config.steps is None else 'steps'
    decided = 'epochs' if before.steps is None else 'steps'
    shorter = decides == decided == unit and unit in given
    if not shorter or any(name.startswith('schedule.') for name in given):
        return config
    if max((schedule.warmup, *schedule.milestones)) < config[unit]:
        return config
    return scaled(config, config[unit] / before[unit])


def scaled(config: ConfigDict, factor: float) -> ConfigDict:
    """Returns a copy with warm-up and milestones multiplied by a factor."""
    config = config.copy_and_resolve_references()
    schedule = config.schedule
    schedule.warmup *= factor
    schedule.milestones = tuple(factor * milestone for milestone in schedule.milestones)
    return config


def described(config: ConfigDict, before: ConfigDict) -> str:
    """Returns the sentence that says what was scaled, or '' if nothing was."""
    new, old, unit = config.schedule, before.schedule, config.schedule.unit
    changes = [
        f'config.schedule.{name} is {_written(new[name])} {unit}, not {_written(old[name])}'
        for name in SCALED
        if new[name] != old[name]
    ]
    if not changes:
        return ''
    return f'the run is shorter than its configuration says, so {", and ".join(changes)}'


def _written(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return f'({", ".join(f"{item:.3g}" for item in value)})'
    return f'{value:.3g}'
