"""What the subcommands of prepare_data share."""

import argparse
import re
from pathlib import Path

from errors import UserError

TAKEN = ('digits', 'mnist', 'cifar10', 'cifar100', 'imagenet2012', 'downloads')


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
    if name in TAKEN:
        raise UserError(f'--name={name} is taken: choose another name.')
