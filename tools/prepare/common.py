"""Options, checks and messages shared by the subcommands of prepare_data."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import files
from data_sources import arrays
from errors import UserError, shown

if TYPE_CHECKING:  # slow to import; not for --help
    import tensorflow_datasets as tfds

_MOST_NAMES = 1 << 20  # bytes of a file of class names
RESERVED = (*arrays.EMBEDDED, 'mnist', 'cifar10', 'cifar100', 'imagenet2012', 'downloads')


def path(text: str) -> Path:
    """Parses the path of a file or folder and expands ~; an argparse type."""
    try:
        expanded = Path(text).expanduser()
        expanded.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, ~ of nobody, ...
        reason = getattr(error, 'strerror', None) or error
        raise argparse.ArgumentTypeError(
            f'{text:.80} cannot be used as a path ({reason})'
        ) from error
    return expanded


def add_data_dir(command: argparse.ArgumentParser) -> None:
    """Adds the option --data_dir to a subcommand."""
    command.add_argument(
        '--data_dir',
        type=path,
        default='data',
        help='folder of prepared data sets (default: %(default)s)',
    )


def check_name(name: str) -> None:
    """Checks that --name is a valid name for tfds and not that of another data set.

    Raises:
      UserError: the name is invalid or reserved.
    """
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise UserError(
            f'--name={name} is invalid: use lower-case letters, digits and underscores, starting '
            'with a letter.'
        )
    if name in RESERVED or re.fullmatch(r'imagenet2012_\d+', name):
        raise UserError(f'--name={name} is reserved: choose another name.')


def check_class_names(names: Sequence[str]) -> None:
    """Checks that --class_names gives each class a name of its own.

    Raises:
      UserError: a name is empty, or there twice.
    """
    if len(set(names)) < len(names) or not all(names):
        raise UserError(
            f'--class_names={",".join(names)} has an empty or repeated name: give each class a '
            'name of its own.'
        )


def class_names(text: str) -> tuple[str, ...]:
    """Returns names separated by commas, or those in a file, one on each line.

    Raises:
      UserError: a name is empty, there twice, or no line of text.
    """
    path = Path(text).expanduser()
    if files.is_file(path):
        try:
            lines = files.read_bytes(path, _MOST_NAMES).decode('utf-8-sig').splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f'--class_names={path} is not a text in UTF-8.') from error
        names = tuple(line.strip() for line in lines if line.strip())
    else:
        names = tuple(name.strip() for name in text.split(','))
    check_class_names(names)
    for name in names:
        if not name.isprintable():  # tfds keeps the names in a file, one on each line
            raise UserError(f'--class_names has {shown(name)}, which is no line of text.')
    return names


@contextlib.contextmanager
def progress(what: str, size: int, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar while a set is written or read; shows nothing without a terminal.

    Args:
      what: stands before the bar.
      size: bytes, the length of the bar.
      unit: what the records are, such as 'pictures'.

    Yields:
      the function to call with (records, bytes) after each step.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn(f'{{task.fields[records]:,}} {unit}'),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        records = 0
        task = bar.add_task(what, total=size, records=0)

        def advance(count: int, size: int) -> None:
            nonlocal records
            records += count
            bar.update(task, advance=size, records=records)

        yield advance


def read_info(folder: Path) -> 'tuple[tfds.core.DatasetInfo, dict[str, int]]':
    """Returns tfds's information on the set in a version folder, and {split: examples}."""
    from data_sources import tfds_sets  # imports tfds, which is slow; not for --help

    info = tfds_sets.opened(folder).info
    return info, {split: stored.num_examples for split, stored in info.splits.items()}


def report(name: str, folder: Path, written: bool, facts: Iterable[str]) -> None:
    """Prints the state of a set."""
    state = 'prepared' if written else 'already prepared'
    print(f'{name}: {state} in {folder} ({", ".join(facts)}).')
