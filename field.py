"""One field of the configuration; configs, tasks and models declare their fields with it."""

import dataclasses
import math
from typing import Any

from errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the configuration.

    Attributes:
      name: dotted path, such as 'optimizer.momentum'.
      default: its default value; None makes the field optional.
      doc: its meaning, with unit and range, for --help.
      value_type: its Python type; that of the default unless the default is None.
      low, high, above, below: its range. `low` and `high` are allowed, `above` and `below` are not.
      choices: all allowed values, if there are few.
      items: type of a tuple's items: float, int or str.
      scope: 'experiment' (must be the same on resume) or 'run' (may change).
      traced: whether the value enters the compiled step as an argument, under the last part of its
        name, so that the lanes of a vmapped sweep may differ in it.
      regularizer: whether the value keeps the training loss high; tools.preflight sets it to zero
        while it overfits one batch.
    """

    name: str
    default: Any
    doc: str
    value_type: type | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple = ()
    items: type = float
    scope: str = 'experiment'
    traced: bool = False
    regularizer: bool = False

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.name.rpartition('.')[2]

    @property
    def kind(self) -> type:
        """The Python type of a value."""
        return self.value_type or type(self.default)

    def value(self, config: Any) -> Any:
        """Returns the field's value in a configuration."""
        for part in self.name.split('.'):
            config = config[part]
        return config

    def is_default(self, config: Any) -> bool:
        """Returns whether the field has its default in a configuration."""
        return self.value(config) == self.default

    def check(self, value: Any) -> Any:
        """Returns the value as the field's type.

        Raises:
          UserError: it has another type or is out of range.
        """
        if value is None and self.default is None:
            return None
        value = self._converted(value)
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f'config.{self.name} must be finite, not {value!r}.')
        if self.choices and value not in self.choices:
            listed = ', '.join(map(repr, self.choices))
            hint = did_you_mean(str(value), map(str, self.choices))
            raise UserError(f'config.{self.name} must be one of {listed}, not {value!r}.{hint}')
        bounds = (
            (self.low, 'at least', lambda v, b: v >= b),
            (self.high, 'at most', lambda v, b: v <= b),
            (self.above, 'greater than', lambda v, b: v > b),
            (self.below, 'less than', lambda v, b: v < b),
        )
        for bound, words, fits in bounds:
            if bound is not None and not fits(value, bound):
                raise UserError(f'config.{self.name} must be {words} {bound}, not {value!r}.')
        return value

    def _converted(self, value: Any) -> Any:
        """Returns the value as the field's type; only int to float and list to tuple convert."""
        is_int = isinstance(value, int) and not isinstance(value, bool)
        if self.kind is float and is_int:
            return float(value)
        if self.kind is tuple and isinstance(value, (list, tuple)):
            accepted = (int, float) if self.items is float else self.items
            if all(isinstance(v, accepted) and not isinstance(v, bool) for v in value):
                return tuple(self.items(v) for v in value)
        elif isinstance(value, self.kind) and not (self.kind is int and not is_int):
            return value
        examples = {
            float: 'numbers, such as (0.5,)',
            int: 'whole numbers, such as (20, 25)',
            str: "texts, such as ('stem*',)",
        }
        wanted = {'tuple': f'a tuple of {examples[self.items]}', 'str': 'a text'}
        name = self.kind.__name__
        raise UserError(
            f'config.{self.name} must be {wanted.get(name, f"of type {name}")}, not {value!r}.'
        )
