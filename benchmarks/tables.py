"""What the sections of `python -m benchmarks.run` are given and give back."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Work:
    """What a section is given.

    Attributes:
      scratch: an empty folder, removed afterwards.
      torch_python: a Python that has PyTorch, None if there is none.
      data_dir: folder of prepared data sets.
      rounds: turns of each contestant.
      quick: the smallest sizes that show that it works; its figures say nothing.
      say: called with a line for the user.
    """

    scratch: Path
    torch_python: Path | None
    data_dir: Path
    rounds: int
    quick: bool
    say: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Table:
    """What a section gives back: its table, and all figures behind it.

    Attributes:
      caption: what was measured, in a sentence or two.
      head: names of the columns; the first is flush left.
      rows: texts.
      figures: what JSON can say.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Any

    def markdown(self) -> str:
        """Returns caption and table as Markdown."""
        rule = ['---', *['---:'] * (len(self.head) - 1)]
        lines = ['| ' + ' | '.join(row) + ' |' for row in (self.head, rule, *self.rows)]
        return '\n'.join([self.caption, '', *lines])
