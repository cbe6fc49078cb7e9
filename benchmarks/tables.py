"""What sections of `python -m benchmarks.run` get and return, and options that commands share."""

import argparse
import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import markup
from rich import table as rich_table

from errors import UserError, did_you_mean
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


def make_parser(prog: str, doc: str, kind=argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Returns a parser whose help begins with the module's docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    return kind(f'python -m {prog}', description=doc, formatter_class=formatter, allow_abbrev=False)


def chosen(only: str | None, names: Sequence[str], what: str) -> list[str]:
    """Returns the names that --only=NAME,NAME gives, in the order of all `names`.

    Raises:
      UserError: there is no such name; `what` says what it should be of.
    """
    wanted = list(names) if only is None else [name.strip() for name in only.split(',')]
    for name in wanted:
        if name not in names:
            there_are = f'there is no {what} "{name}"; there are {", ".join(names)}.'
            raise UserError(f'--only: {there_are}{did_you_mean(name, names)}')
    return [name for name in names if name in wanted]


@contextlib.contextmanager
def reserved(output: Path | None) -> Iterator[Path | None]:
    """Creates --output before anything is measured; removes it if nothing is written into it.

    Raises:
      UserError: the file exists already, or cannot be written.
    """
    if output is None:
        yield None
        return
    try:
        output.open('x').close()
    except FileExistsError as error:
        raise UserError(f'--output={output} is there already: choose another name.') from error
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = error.strerror + '; it is in a folder that does not exist' * missing
        raise UserError(f'--output={output} cannot be written: {reason}.') from error
    try:
        yield output
    finally:
        if not output.stat().st_size:
            output.unlink()
