"""What a sweep file says: which fields to vary and how, what to look for, how much to spend."""

import dataclasses
import math
from typing import Any

from configs import base, reading, schema
from errors import UserError, did_you_mean
from field import Field


@dataclasses.dataclass(frozen=True)
class Float:
    """A number between `low` and `high`, both included; `log` draws its logarithm evenly.

    `points` is how many of them a grid has, spread evenly (in the logarithm, with `log`).
    """

    low: float
    high: float
    log: bool = False
    points: int = 5

    def suggest(self, trial, name: str) -> float:
        """Asks an Optuna trial for the value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    @property
    def size(self) -> int:
        """How many points its grid has."""
        return self.points

    def grid(self) -> list[float]:
        """Returns the values of a grid."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        shares = [i / (self.points - 1) if self.points > 1 else 0.5 for i in range(self.points)]
        values = [low + share * (high - low) for share in shares]
        values = [math.exp(v) for v in values] if self.log else values
        return [min(max(value, self.low), self.high) for value in values]  # rounding in exp

    def ends(self) -> tuple:
        """Returns values that the field has to accept."""
        return self.low, self.high


@dataclasses.dataclass(frozen=True)
class Int:
    """A whole number between `low` and `high`, both included, in steps; `log` as in Float."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial, name: str) -> int:
        """Asks an Optuna trial for the value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    @property
    def size(self) -> int:
        """How many points its grid has."""
        return (self.high - self.low) // self.step + 1

    def grid(self) -> list[int]:
        """Returns the values of a grid: all of them."""
        return list(range(self.low, self.high + 1, self.step))

    def ends(self) -> tuple:
        """Returns values that the field has to accept."""
        return self.low, self.high


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of several values: numbers, texts, truth values or None."""

    choices: tuple

    def suggest(self, trial, name: str) -> Any:
        """Asks an Optuna trial for the value."""
        return trial.suggest_categorical(name, list(self.choices))

    @property
    def size(self) -> int:
        """How many points its grid has."""
        return len(self.choices)

    def grid(self) -> list:
        """Returns the values of a grid: all of them."""
        return list(self.choices)

    def ends(self) -> tuple:
        """Returns values that the field has to accept."""
        return tuple(self.choices)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a trial is judged by: a metric of the records, at its last or best evaluation.

    Attributes:
      metric: a record of the validation split, such as 'validation/loss'; None: that of the
        task's first metric.
      direction: 'maximize' or 'minimize'; None: the metric's own.
      of: 'last' or 'best' of a trial's evaluations.
    """

    metric: str | None = None
    direction: str | None = None
    of: str = 'last'

    def resolved(self, config: Any) -> 'Objective':
        """Returns the objective with metric and direction of the configuration's task.

        Raises:
          UserError: the task has no such metric.
        """
        from tasks import registry  # imports JAX, which takes a second

        metric = registry.metric_of(config, self.metric, 'objective.metric')
        return Objective(f'validation/{metric.name}', self.direction or metric.direction, self.of)

    def better(self, a: float, b: float) -> bool:
        """Whether a is better than b."""
        return a > b if self.direction == 'maximize' else a < b

    def value(self, values: list[float]) -> float:
        """Returns the figure of a trial by those of its evaluations, in order."""
        if self.of == 'last':
            return values[-1]
        return max(values) if self.direction == 'maximize' else min(values)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What get_sweep() of a sweep file returns.

    Attributes:
      space: {dotted name of a field: Float, Int or Categorical}.
      objective: what to look for.
      trials: how many, unless the command line says otherwise.
      seed: of the sampler's draws (that of the trainings is config.seed, or varied).
      reduction: asha: one in so many trials goes on at each rung; rungs are `first_rung` times its
        powers.
      first_rung: asha, median: evaluations before a trial may be stopped.
    """

    space: dict[str, Any]
    objective: Objective = Objective()
    trials: int = 32
    seed: int = 0
    reduction: int = 3
    first_rung: int = 1

    def resolved(self, config: Any) -> 'Sweep':
        """Returns the sweep with the objective of a configuration's task; see Objective."""
        return dataclasses.replace(self, objective=self.objective.resolved(config))


def load(path: str) -> Sweep:
    """Reads and checks a sweep file.

    Raises:
      UserError: what is wrong with it.
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
      UserError: no such field, a value it does not take, or a setting that cannot be.
    """
    if not isinstance(sweep, Sweep):
        raise UserError(f'get_sweep() must return a configs.search.Sweep, not {sweep!r}.')
    if not isinstance(sweep.space, dict) or not isinstance(sweep.objective, Objective):
        raise UserError('space must be a dict of fields, and objective an Objective.')
    if not sweep.space:
        raise UserError('the space is empty: name at least one field to vary.')
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
    if name not in fields:
        raise UserError(schema.unknown(name, fields))
    if fields[name].scope != 'experiment':
        raise UserError(f'config.{name} does not change what is learned; it cannot be varied.')
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
                f'config.{name}: a choice is a number, a text, a truth value or None, not '
                f'{value!r}.'
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
