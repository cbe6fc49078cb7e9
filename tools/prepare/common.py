"""What the subcommands of prepare_data share."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from data_sources import arrays
from errors import UserError

TAKEN = (*arrays.EMBEDDED, 'mnist', 'cifar10', 'cifar100', 'imagenet2012', 'downloads')


def path(text: str) -> Path:
    """An argument that names a file or folder; ~ is the user's home."""
    return Path(text).expanduser()


def add_data_dir(command: argparse.ArgumentParser) -> None:
    """Adds --data_dir."""
    command.add_argument(
        '--data_dir',
        type=path,
        default='data',
        help='folder for prepared data sets (default: %(default)s)',
    )


def check_name(name: str) -> None:
    """Refuses a --name that tfds could not use, or that means another set.

    Raises:
      UserError: it is not made of small letters, digits and underscores, or it is taken.
    """
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise UserError(
            f'--name={name} is not a data set name: use small letters, digits and underscores, '
            'starting with a letter.'
        )
    if name in TAKEN or re.fullmatch(r'imagenet2012_\d+', name):
        raise UserError(f'--name={name} is taken: choose another name.')


@contextlib.contextmanager
def progress(source, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar by the bytes of a `sharded_writer.Source`; nothing where there is no terminal.

    Yields:
      the function to be called with (records, bytes) that were done.
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
        task = bar.add_task(source.name, total=sum(source.splits.values()), records=0)

        def advance(count: int, size: int) -> None:
            nonlocal records
            records += count
            bar.update(task, advance=size, records=records)

        yield advance


def read_info(folder: Path):
    """Returns tfds's information on the set in a version folder, and split -> examples."""
    import tensorflow_datasets as tfds  # slow to import; not for --help

    info = tfds.builder_from_directory(folder).info
    return info, {split: stored.num_examples for split, stored in info.splits.items()}


def report(name: str, folder: Path, written: bool, facts: Iterable[str]) -> None:
    """Prints what there is now."""
    state = 'prepared' if written else 'already prepared'
    print(f'{name}: {state} in {folder} ({", ".join(facts)}).')
