"""Where a run starts from: the weights of another run, or converted ones (config.init_from)."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import files
from errors import UserError
from models import pretrained
from tasks import registry
from training import checkpoints, trained, workdir
from training.partition import HEAD
from training.state import TrainState, sha256

RECORD = 'init_from.json'


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights that a run starts from.

    Attributes:
      folder: where they were found.
      model: name of their network.
      step: of the checkpoint; None for converted weights.
      variables: {'params', 'batch_stats'}, nested dicts of host arrays.
    """

    folder: str
    model: str
    step: int | None
    variables: dict[str, Any]

    def __str__(self):
        at = '' if self.step is None else f', step {self.step:,}'
        return f'{self.folder} ({self.model}{at})'


def open_source(config, folder: Path) -> Source | None:
    """Returns what a run in `folder` starts from; None if it has a checkpoint to go on from.

    None as well where the configuration names nothing.

    Raises:
      UserError: config.init_from cannot be read.
    """
    if config.init_from is None or checkpoints.steps_in(folder / checkpoints.FOLDER):
        return None
    return read(config.init_from)


def read(folder: str) -> Source:
    """Reads converted weights, or the last checkpoint of a run: its averaged weights, if any.

    Raises:
      UserError: the folder holds neither, or they are damaged.
    """
    path = Path(folder)
    if pretrained.is_weights(path):
        variables, about = pretrained.load(path)
        return Source(folder, about['model'], None, variables)
    if not (path / workdir.CONFIG).is_file():
        raise UserError(
            f'config.init_from={folder} is neither the workdir of a run ({workdir.CONFIG}) nor a '
            f'folder of converted weights ({pretrained.WEIGHTS}).'
        )
    config = workdir.load_config(path)
    checkpoint = trained.find(path, 'last', registry.best_metric(config))
    problem = checkpoints.damage(checkpoint)
    if problem:
        raise UserError(f'config.init_from: the checkpoint {checkpoint} is damaged: {problem}.')
    arrays = unflatten_dict(checkpoints.read_arrays(checkpoint), sep='/')
    found = arrays.get('ema', arrays)
    variables = {name: found.get(name, {}) for name in ('params', 'batch_stats')}
    return Source(folder, config.model.name, int(checkpoint.name), variables)


def check_fits(source: Source, template: TrainState, model: str) -> None:
    """Checks that a network's parameters and statistics are the source's, but for the head.

    Args:
      source: the weights.
      template: shapes and types of the run's state.
      model: name of the run's network, for the message.

    Raises:
      UserError: one is missing, left over, or of another shape.
    """
    here, there = _without_head(_variables(template)), _without_head(source.variables)
    wrong = {
        'missing': [p for p in here if p not in there],
        'left over': [p for p in there if p not in here],
        'of another shape': [
            f'{p} {there[p].shape}, not {here[p].shape}'
            for p in here
            if p in there and there[p].shape != here[p].shape
        ],
    }
    if any(wrong.values()):
        listed = '; '.join(f'{what}: {_some(names)}' for what, names in wrong.items() if names)
        raise UserError(
            f'config.init_from={source} does not fit this {model}, its options and its images; '
            f'{listed}.'
        )


def applied(source: Source, state: TrainState) -> TrainState:
    """Returns the initial state with the weights of `source`, which fits, in all but the head.

    The head is always new, since it belongs to the classes of the source, and starts from zero
    (Dosovitskiy et al. 2021, "An image is worth 16x16 words", section 3.2): the gradient of a
    random head would undo the features before the head has learned to use them, and a head drawn
    by the seed of the source would be the one that its features learned to serve. The state of the
    optimiser is zeros whatever the weights.
    """
    here = flatten_dict(_variables(state), sep='/')
    there = _without_head(source.variables)
    new = {
        path: np.asarray(there[path], leaf.dtype) if path in there else np.zeros_like(leaf)
        for path, leaf in here.items()
    }
    variables = {'batch_stats': {}, **unflatten_dict(new, sep='/')}
    return state.replace(**variables, ema=state.ema and variables)


def _variables(state: TrainState) -> dict[str, Any]:
    return {'params': state.params, 'batch_stats': state.batch_stats}


def _without_head(variables: dict[str, Any]) -> dict[str, Any]:
    flat = flatten_dict(variables, sep='/')
    return {path: leaf for path, leaf in flat.items() if path.split('/')[1] != HEAD}


def _some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def record(folder: Path, source: Source) -> None:
    """Notes in a run's folder what it started from; the source itself may go afterwards."""
    about = {
        'folder': source.folder,
        'model': source.model,
        'step': source.step,
        'params_sha256': sha256(source.variables['params']),
    }
    files.write_json(Path(folder) / RECORD, about)


def recorded_sha256(folder: Path) -> str | None:
    """Returns the hash of the parameters that a run started from, the old head's included."""
    path = Path(folder) / RECORD
    return json.loads(path.read_text())['params_sha256'] if path.exists() else None
