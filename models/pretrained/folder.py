"""Weights of a network without a run around them: a folder with two files.

    weights.safetensors   'params/...' and 'batch_stats/...', by the path in the network
    weights.json          what they are: {"model", "options", "num_classes", ...}

`tools/convert_weights.py` writes such folders, and `config.init_from` reads them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util
from safetensors import SafetensorError

from errors import UserError

WEIGHTS, ABOUT = 'weights.safetensors', 'weights.json'


def save(folder: Path, variables: dict[str, Any], about: dict[str, Any]) -> None:
    """Writes the two files; makes the folder.

    Args:
      folder: must be new, or empty.
      variables: {'params', 'batch_stats'}, nested dicts of arrays.
      about: at least 'model', 'options' and 'num_classes'; anything that JSON holds.

    Raises:
      UserError: there is something already, or the folder cannot be written to.
    """
    check_new(folder)
    arrays = {
        name: np.ascontiguousarray(leaf)
        for name, leaf in traverse_util.flatten_dict(variables, sep='/').items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What makes the folder one of weights comes last, and at once.
        temporary = folder / f'{WEIGHTS}.tmp'
        safetensors.numpy.save_file(arrays, temporary)
        (folder / ABOUT).write_text(json.dumps(about, indent=1) + '\n')
        temporary.rename(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'{folder} cannot be written to: {reason}.') from error


def check_new(folder: Path) -> None:
    """Checks that nothing would be overwritten.

    Raises:
      UserError: the folder holds something, or is a file.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(f'{folder} already holds something: choose a new folder.')


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns ({'params', 'batch_stats'}, about); batch_stats is {} where there are none.

    Raises:
      UserError: there are no weights, or they are damaged.
    """
    if not is_weights(folder):
        raise UserError(f'{folder} holds no {WEIGHTS}; tools.convert_weights writes such folders.')
    try:
        arrays = safetensors.numpy.load_file(folder / WEIGHTS)
        about = json.loads((folder / ABOUT).read_text())
        if not isinstance(about, dict) or not isinstance(about.get('model'), str):
            raise ValueError(f'{ABOUT} names no model')
        odd = [name for name in arrays if not name.startswith(('params/', 'batch_stats/'))]
        if odd:
            raise ValueError(f'"{odd[0]}" is neither a parameter nor a statistic')
        nested = traverse_util.unflatten_dict(arrays, sep='/')
    # A name that is both an array and a folder of arrays ends in an IndexError or TypeError.
    except (OSError, ValueError, IndexError, TypeError, SafetensorError) as error:
        raise UserError(f'The weights in {folder} cannot be read: {error}.') from error
    return {name: nested.get(name, {}) for name in ('params', 'batch_stats')}, about


def is_weights(folder: Path) -> bool:
    """Whether the folder holds weights."""
    return (folder / WEIGHTS).is_file()
