"""A section's arguments, the table that it returns, and the machine that figures depend on."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich import markup
from rich import table as rich_table

import processes
from distributed import devices
from errors import UserError
from tools.docs_tables import table_line

_TORCH = 'import importlib.metadata; print(importlib.metadata.version("torch"))'


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
        return '\n'.join([self.caption, '', *map(table_line, (self.head, rule, *self.rows))])

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


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where figures were measured."""

    cpu: str  # number and model of the cores that this process may use
    memory: int  # bytes of RAM
    versions: dict[str, str]  # by package; 'torch' only if it takes part
    date: str  # ISO 8601
    load: float  # runnable processes in the last minute, before the benchmark started any

    def sentence(self, beside_torch: bool) -> str:
        """Returns it in words, with PyTorch's version if PyTorch took part."""
        names = {'python': 'Python', 'jax': 'JAX', **({'torch': 'PyTorch'} if beside_torch else {})}
        shown = (f'{names[key]} {self.versions[key]}' for key in names if key in self.versions)
        return f'{self.cpu}, {self.memory / 2**30:.0f} GiB; {", ".join(shown)}; {self.date}.'


def describe_machine(torch_python: Path | None = None) -> Machine:
    """Returns a description of this machine; a UserError says that a Python has no PyTorch."""
    versions = {'python': platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    if torch_python:
        option = f'--torch_python={torch_python}'
        try:  # its version, without importing it, which takes seconds
            versions['torch'] = processes.watch([torch_python, '-c', _TORCH]).lines[-1][1]
        except OSError as error:
            reason = f'cannot be started: {error.strerror}. `make bench` makes one.'
            raise UserError(f'{option} {reason}') from error
        except UserError as error:
            raise UserError(f'{option} has no PyTorch: `make bench` makes one that has.') from error
    memory, date = psutil.virtual_memory().total, datetime.date.today().isoformat()
    return Machine(devices.describe_cpu(), memory, versions, date, os.getloadavg()[0])
