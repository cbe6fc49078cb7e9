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
      folder: must not hold weights yet.
      variables: {'params', 'batch_stats'}, nested dicts of arrays.
      about: at least 'model', 'options' and 'num_classes'; anything that JSON holds.

    Raises:
      UserError: there are weights already, or the folder cannot be written to.
    """
    if is_weights(folder):
        raise UserError(f'{folder} already holds weights: choose another folder.')
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
    except OSError as error:
        raise UserError(f'{folder} cannot be written to: {error.strerror}.') from error


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
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f'The weights in {folder} cannot be read: {error}.') from error
    nested = traverse_util.unflatten_dict(arrays, sep='/')
    return {name: nested.get(name, {}) for name in ('params', 'batch_stats')}, about


def is_weights(folder: Path) -> bool:
    """Whether the folder holds weights."""
    return (folder / WEIGHTS).is_file()
