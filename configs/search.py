"""The contents of a sweep file: which fields vary, which metric is optimized, how many trials."""

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from configs import base, reading, schema
from errors import UserError, did_you_mean
from field import Field

if TYPE_CHECKING:  # only sweeps need Optuna
    import optuna


@dataclasses.dataclass(frozen=True)
class Float:
    """A number between `low` and `high`, both included.

    Attributes:
      low, high: the range.
      log: whether the logarithm is drawn uniformly, not the number.
      points: how many values a grid has, spread evenly (in the logarithm, with `log`).
    """

    low: float
    high: float
    log: bool = False
    points: int = 5

    def suggest(self, trial: 'optuna.Trial', name: str) -> float:
        """Asks an Optuna trial for the value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    @property
    def size(self) -> int:
        """Number of values of its grid."""
        return self.points

    def grid(self) -> list[float]:
        """Returns the values of a grid."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        fractions = [i / (self.points - 1) if self.points > 1 else 0.5 for i in range(self.points)]
        values = [low + fraction * (high - low) for fraction in fractions]
        values = [math.exp(v) for v in values] if self.log else values
        # The exponential of a logarithm may be rounded to a number outside of the range.
        return [min(max(value, self.low), self.high) for value in values]

    def ends(self) -> tuple[Any, ...]:
        """Returns values that the field has to accept."""
        return self.low, self.high


@dataclasses.dataclass(frozen=True)
class Int:
    """A whole number between `low` and `high`, both included.

    Attributes:
      low, high: the range.
      step: distance between two values.
      log: whether the logarithm is drawn uniformly, not the number.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: 'optuna.Trial', name: str) -> int:
        """Asks an Optuna trial for the value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    @property
    def size(self) -> int:
        """Number of values of its grid."""
        return (self.high - self.low) // self.step + 1

    def grid(self) -> list[int]:
        """Returns the values of a grid: all of them."""
        return list(range(self.low, self.high + 1, self.step))

    def ends(self) -> tuple[Any, ...]:
        """Returns values that the field has to accept."""
        return self.low, self.high


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of several values: numbers, texts, booleans or None."""

    choices: tuple[Any, ...]

    def suggest(self, trial: 'optuna.Trial', name: str) -> Any:
        """Asks an Optuna trial for the value."""
        return trial.suggest_categorical(name, list(self.choices))

    @property
    def size(self) -> int:
        """Number of values of its grid."""
        return len(self.choices)

    def grid(self) -> list[Any]:
        """Returns the values of a grid: all of them."""
        return list(self.choices)

    def ends(self) -> tuple[Any, ...]:
        """Returns values that the field has to accept."""
        return tuple(self.choices)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The value that a sweep optimizes: a validation metric at the last or best evaluation.

    Attributes:
      metric: name of its record, such as 'validation/loss'. None: the task's first metric.
      direction: 'maximize' or 'minimize'. None: the direction of the metric.
      of: 'last' or 'best' of a trial's evaluations.
    """

    metric: str | None = None
    direction: str | None = None
    of: str = 'last'

    def resolved(self, config: ConfigDict) -> 'Objective':
        """Returns the objective with the metric and direction of the configuration's task.

        Raises:
          UserError: the task has no such metric.
        """
        from tasks import registry  # imports JAX, which takes a second

        metric = registry.metric_of(config, self.metric, 'objective.metric')
        return Objective(f'validation/{metric.name}', self.direction or metric.direction, self.of)

    def better(self, a: float, b: float) -> bool:
        """Returns whether a is better than b."""
        return a > b if self.direction == 'maximize' else a < b

    def best(self, values: Iterable[Any]) -> Any:
        """Returns the best of some values, or of tuples that begin with one."""
        return max(values) if self.direction == 'maximize' else min(values)

    def value(self, values: list[float]) -> float:
        """Returns the value of a trial from those of its evaluations, in their order."""
        return values[-1] if self.of == 'last' else self.best(values)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The result of get_sweep() in a sweep file.

    Attributes:
      space: {dotted name of a field: Float, Int or Categorical}.
      objective: the value to optimize.
      trials: number of trials, unless the command line has --trials.
      seed: seed of the sampler (training has config.seed, which may be varied).
      reduction: for the pruner asha: one in this many trials continues at each rung. The rungs are
        at `first_rung` times its powers.
      first_rung: for asha and median: number of evaluations before a trial may be stopped.
    """

    space: dict[str, Any]
    objective: Objective = Objective()
    trials: int = 32
    seed: int = 0
    reduction: int = 3
    first_rung: int = 1

    def resolved(self, config: ConfigDict) -> 'Sweep':
        """Returns the sweep with a resolved objective; see Objective."""
        return dataclasses.replace(self, objective=self.objective.resolved(config))


def load(path: str) -> Sweep:
    """Reads and checks a sweep file.

    Raises:
      UserError: the file does not run, or the sweep is invalid.
    """
    sweep = reading.call(path, 'get_sweep')
    try:
        check(sweep)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    return sweep


def check(sweep: Sweep) -> None:
    """Checks a sweep against the configuration's fields.

    Raises:
      UserError: a field does not exist or does not accept a value, or a setting is invalid.
    """
    if not isinstance(sweep, Sweep):
        raise UserError(f'get_sweep() must return a configs.search.Sweep, not {sweep!r}.')
    if not isinstance(sweep.space, dict) or not isinstance(sweep.objective, Objective):
        raise UserError('space must be a dict of fields, and objective an Objective.')
    if not sweep.space:
        raise UserError('the space is empty: name at least one field that varies.')
    fields = {field.name: field for field in base.fields()}
    for name, values in sweep.space.items():
        _check_values(fields, name, values)
    objective = sweep.objective
    for label, value, choices in (
        ('objective.direction', objective.direction or 'maximize', ('maximize', 'minimize')),
        ('objective.of', objective.of, ('last', 'best')),
    ):
        if value not in choices:
            hint = did_you_mean(str(value), choices)
            raise UserError(f'{label} must be one of {", ".join(choices)}, not {value!r}.{hint}')
    for name, least in (('trials', 1), ('seed', 0), ('reduction', 2), ('first_rung', 1)):
        value = getattr(sweep, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f'{name} must be a whole number of at least {least}, not {value!r}.')


def _check_values(fields: dict[str, Field], name: str, values: Any) -> None:
    """Checks the values of one field of the space."""
    if name not in fields:
        raise UserError(schema.unknown(name, fields))
    if fields[name].scope != 'experiment':
        raise UserError(f'config.{name} does not change what is learned: remove it from the space.')
    if not isinstance(values, Float | Int | Categorical):
        raise UserError(
            f'config.{name} must vary by a Float, Int or Categorical of configs.search, not '
            f'{values!r}.'
        )
    ends = values.ends()
    if not ends:
        raise UserError(f'config.{name} has no choices.')
    for value in ends:
        fields[name].check(value)
        if value is not None and not isinstance(value, bool | int | float | str):
            raise UserError(
                f'config.{name}: a choice is a number, a text, a boolean or None, not {value!r}.'
            )
    if isinstance(values, Categorical):
        return
    whole = (values.low, values.high, values.step) if isinstance(values, Int) else (values.points,)
    if not all(isinstance(number, int) for number in whole) or whole[-1] < 1:
        raise UserError(f'config.{name}: {values} needs whole numbers, and a step of at least 1.')
    if not values.low < values.high:
        raise UserError(f'config.{name}: low={values.low} must be below high={values.high}.')
    if values.log and values.low <= 0:
        raise UserError(f'config.{name}: log needs a low above 0, not {values.low}.')
    if isinstance(values, Int) and values.log and values.step != 1:
        raise UserError(f'config.{name}: log and step cannot both be given.')
