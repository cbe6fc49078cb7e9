"""The arguments of a section of `python -m benchmarks.run`, and the table that it returns."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import markup
from rich import table as rich_table

from tools.docs_tables import table_line


@dataclasses.dataclass(frozen=True)
class BenchmarkContext:
    """What a section gets."""

    scratch: Path  # an empty folder that is removed afterwards
    torch_python: Path | None  # a Python that has PyTorch
    data_dir: Path  # of prepared data sets
    rounds: int  # turns of each contestant
    quick: bool  # run the smallest sizes that show that the section works
    say: Callable[[str], None]  # prints a line for the user
    show: Callable[[str], None] = lambda text: None  # shows what is being measured


@dataclasses.dataclass(frozen=True)
class BenchmarkTable:
    """What a section returns."""

    caption: str
    head: Sequence[str]  # names of the columns; the first is flush left
    rows: Sequence[Sequence[str]]
    figures: Any  # everything behind the table, for JSON

    def markdown(self) -> str:
        """Returns caption and table as Markdown."""
        rule = ['---', *['---:'] * (len(self.head) - 1)]
        lines = [table_line(row) for row in (self.head, rule, *self.rows)]
        return '\n'.join([self.caption, '', *lines])

    def rich(self, **options) -> rich_table.Table:
        """Returns the table, without its caption, for a terminal."""
        table = rich_table.Table(**options)
        for number, name in enumerate(self.head):
            justify = 'right' if number else 'left'
            table.add_column(name, justify=justify, no_wrap=number < 2, overflow='fold')
        for row in self.rows:
            table.add_row(*map(markup.escape, row))
        return table


def median_and_range(values: Sequence[float], digits: int = 1) -> tuple[str, str]:
    """Returns the texts of the median and of 'least to greatest'."""
    least, greatest = min(values), max(values)
    return f'{statistics.median(values):.{digits}f}', f'{least:.{digits}f} to {greatest:.{digits}f}'
