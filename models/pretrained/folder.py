"""Saves and loads the weights of a network as a folder with two files.

    weights.safetensors   'params/...' and 'batch_stats/...', by the path in the network
    weights.json          the network: {"model", "options", "num_classes", ...}

`tools/convert_weights.py` writes such folders, and `config.init_from` reads them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util
from safetensors import SafetensorError

import files
from errors import UserError

WEIGHTS, ABOUT = 'weights.safetensors', 'weights.json'
_MOST_HEADER = 8 << 20  # bytes, which describe 80,000 tensors; as Python objects they take 200 MB
_DEEPEST = 50  # of the path of a parameter


def save(folder: Path, variables: dict[str, Any], about: dict[str, Any]) -> None:
    """Writes the two files and creates the folder.

    Args:
      folder: must not exist or must be empty.
      variables: {'params', 'batch_stats'}, nested dicts of arrays.
      about: at least 'model', 'options' and 'num_classes', and any other values that JSON can
        represent.

    Raises:
      UserError: the folder is not empty or cannot be written to.
    """
    check_new(folder)
    arrays = {
        name: np.ascontiguousarray(leaf)
        for name, leaf in traverse_util.flatten_dict(variables, sep='/').items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file by which `is_weights` recognises the folder comes last, by an atomic rename.
        temporary = folder / f'{WEIGHTS}.tmp'
        # Not by `save_file`, whose files nobody but their owner can read.
        temporary.write_bytes(safetensors.numpy.save(arrays))
        (folder / ABOUT).write_text(json.dumps(about, indent=1) + '\n')
        temporary.rename(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(
            f'{folder} cannot be written to ({reason}): free some space or choose another folder.'
        ) from error


def check_new(folder: Path) -> None:
    """Checks that writing to `folder` would overwrite nothing.

    Raises:
      UserError: the folder is not empty, or is a file.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(f'{folder} already exists and is not empty: choose a new folder.')


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns ({'params', 'batch_stats'}, about); batch_stats is {} if the network has none.

    Raises:
      UserError: there are no weights, or they are damaged.
    """
    if not is_weights(folder):
        raise UserError(
            f'{folder} does not contain {WEIGHTS}: use a folder that tools.convert_weights has '
            'written.'
        )
    try:
        arrays = read_safetensors(folder / WEIGHTS)
        about = files.read_json(
            folder / ABOUT, {'model': str}, 'Copy or convert the weights again.'
        )
        unknown = [name for name in arrays if not name.startswith(('params/', 'batch_stats/'))]
        if unknown:
            raise ValueError(f'"{unknown[0]}" is neither a parameter nor a statistic')
        if any(name.count('/') > _DEEPEST for name in arrays):
            raise ValueError(f'a parameter is nested more than {_DEEPEST} deep')
        nested = traverse_util.unflatten_dict(arrays, sep='/')
    # A name that is both an array and a prefix of others causes an IndexError or TypeError.
    except (OSError, ValueError, IndexError, TypeError, SafetensorError) as error:
        raise UserError(
            f'The weights in {folder} cannot be read ({error}): copy or convert them again.'
        ) from error
    return {name: nested.get(name, {}) for name in ('params', 'batch_stats')}, about


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of a .safetensors file.

    Raises:
      ValueError, SafetensorError: it is damaged, or its header is too large.
      OSError: it cannot be read.
    """
    with files.open_regular(path) as file:
        length = int.from_bytes(file.read(8), 'little')
    if length > _MOST_HEADER:
        raise ValueError(f'a header of {length:,} bytes')
    return safetensors.numpy.load_file(path)


def is_weights(folder: Path) -> bool:
    """Whether the folder contains weights."""
    return (folder / WEIGHTS).is_file()
