"""One field of the configuration; configs, tasks and models declare their fields with it."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from errors import UserError, did_you_mean, shown

LARGEST = 10**9  # the size of a number that has no bound of its own
SMALLEST = 1e-12  # the size of a number with a fraction, other than 0
LONGEST_TEXT = 4000  # characters; longer than any path
MOST_ITEMS = 1000
# No control character, which no name has, and no half of a surrogate pair, which no file can hold.
_PRINTABLE = re.compile(r'[^\x00-\x1f\x7f\ud800-\udfff]*')


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the configuration.

    Attributes:
      name: dotted path, such as 'optimizer.momentum'.
      default: its default value; None makes the field optional.
      doc: its meaning, with unit and range, for --help.
      value_type: its Python type; that of the default unless the default is None.
      low, high, above, below: its range, or that of a tuple's items. `low` and `high` are allowed,
        `above` and `below` are not. Where there is none, a number is at most LARGEST, either way.
      smallest: how close to 0 a number with a fraction may be, other than 0 itself.
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
    smallest: float = SMALLEST
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
        items = value if isinstance(value, tuple) else (value,)
        problem = next(filter(None, map(self._problem, items)), None)
        if len(items) > MOST_ITEMS:
            problem = f'have at most {MOST_ITEMS:,} items'
        if problem:
            raise UserError(f'config.{self.name} must {problem}, not {shown(value)}.')
        if self.choices and value not in self.choices:
            listed = ', '.join(map(repr, self.choices))
            hint = did_you_mean(str(value), map(str, self.choices))
            raise UserError(
                f'config.{self.name} must be one of {listed}, not {shown(value)}.{hint}'
            )
        # Only now: a whole number may be too large for a float.
        if self.kind is float:
            return float(value)
        return tuple(map(self.items, value)) if self.kind is tuple else value

    @property
    def bounds(self) -> tuple[tuple[float, str, Callable[[float], bool]], ...]:
        """(bound, what it is in words, whether a number fits) of a number or a tuple's items."""
        low, high = self.low, self.high
        if low is None and self.above is None:
            low = -LARGEST
        if high is None and self.below is None:
            high = LARGEST
        bounds = (
            (low, 'at least', lambda number: number >= low),
            (high, 'at most', lambda number: number <= high),
            (self.above, 'greater than', lambda number: number > self.above),
            (self.below, 'less than', lambda number: number < self.below),
        )
        return tuple(bound for bound in bounds if bound[0] is not None)

    def _problem(self, item: Any) -> str | None:
        """Returns what a value, or an item of a tuple, must and does not; None if it is sound."""
        if isinstance(item, str):
            if len(item) > LONGEST_TEXT or not _PRINTABLE.fullmatch(item):
                return f'be a printable text of at most {LONGEST_TEXT:,} characters'
        elif isinstance(item, int | float) and not isinstance(item, bool):
            if isinstance(item, float) and not math.isfinite(item):
                return 'be finite'
            for bound, words, fits in self.bounds:
                if not fits(item):
                    return f'be {words} {bound}'
            if 0 < abs(item) < self.smallest:
                return f'be 0 or at least {self.smallest:g} in size'
        return None

    def _converted(self, value: Any) -> Any:
        """Returns a value that is of the field's type; a list becomes a tuple.

        A whole number serves as one with a fraction, and stays what it is.
        """

        def is_a(item: Any, kind: type) -> bool:
            if isinstance(item, bool):
                return kind is bool
            return isinstance(item, (int, float) if kind is float else kind)

        if self.kind is tuple and isinstance(value, (list, tuple)):
            if all(is_a(item, self.items) for item in value):
                return tuple(value)
        elif is_a(value, self.kind):
            return value
        examples = {
            float: 'numbers, such as (0.5,)',
            int: 'whole numbers, such as (20, 25)',
            str: "texts, such as ('stem*',)",
        }
        wanted = {'tuple': f'a tuple of {examples[self.items]}', 'str': 'a text'}
        name = self.kind.__name__
        raise UserError(
            f'config.{self.name} must be {wanted.get(name, f"of type {name}")}, not {shown(value)}.'
        )
