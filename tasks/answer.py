"""What a task says of an answer, and of all answers for a split."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.section import Section

# How something is drawn: a color, (red, green, blue), or a small picture of it, uint8 [h, w, 3].
Sample = tuple[int, int, int] | np.ndarray


class Report(Protocol):
    """The detailed results of a network on a split."""

    def text(self) -> str:
        """Returns tables for a terminal."""

    def to_json(self) -> dict[str, Any]:
        """Returns all numbers as values for JSON."""

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws pictures into a folder, with the split in their names; returns their paths."""

    def sections(self) -> Sequence[Section]:
        """Returns the same as tables and pictures of a page (evaluate.py --report)."""


@dataclasses.dataclass(frozen=True)
class Description:
    """A prediction as text and as values.

    Attributes:
      text: a line.
      values: {name: value} for JSON.
    """

    text: str
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Choice:
    """A part of an answer that can be explained: a class, a class's mask, a box.

    Attributes:
      name: what it is called, such as the name of a class; no two choices of an answer share one.
      sureness: how sure the network is of it; choices are ordered by it.
      caption: the name with the sureness, such as '7 98.3 %'.
      values: named numbers or arrays, the arguments of `Task.score`. All choices of a task have the
        same names and shapes.
      stage: of a part that is found at one place of the network's maps, such as a box, the stage
        that it is found on; None for a part of which all places speak.
    """

    name: str
    sureness: float
    caption: str
    values: Mapping[str, np.ndarray]
    stage: str | None = None


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of an answer.

    Attributes:
      name: of the `Choice` that it is.
      label: its class.
      sureness: how sure the network is of it.
      color: in which the task draws it.
      edges: (y0, x0, y1, x1), in edges of pixels.
    """

    name: str
    label: str
    sureness: float
    color: tuple[int, int, int]
    edges: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The boxes of an answer, for whoever draws them.

    Attributes:
      least: the sureness from which a box counts as found.
      boxes: all of them, the surest first.
    """

    least: float
    boxes: tuple[Box, ...]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that measures the quality of a network.

    Attributes:
      name: for instance 'accuracy', which is 'validation/accuracy' in records and 'test_accuracy'
        in result.json.
      higher_is_better: decides the best checkpoint and the direction of a sweep.
      percent: whether it is a fraction in [0, 1] that is shown in percent.
      unit: its unit, for the axis of a plot.
    """

    name: str
    higher_is_better: bool
    percent: bool = False
    unit: str = ''

    @property
    def direction(self) -> str:
        """The direction of a search, in Optuna's words."""
        return 'maximize' if self.higher_is_better else 'minimize'

    def best(self, values: Sequence[Any]) -> Any:
        """Returns the best of some values, or of tuples that begin with one."""
        return max(values) if self.higher_is_better else min(values)

    def shown(self, value: float, digits: int | None = None) -> str:
        """Returns a value as text: '98.61 %', or '0.0432'."""
        if self.percent:
            return f'{100 * value:.{2 if digits is None else digits}f} %'
        return f'{value:.{4 if digits is None else digits}f}'
