"""Weights that a run starts from (config.init_from): those of another run, or converted ones."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

import files
from errors import UserError
from models import pretrained
from tasks import registry
from training import checkpoints, trained, workdir
from training.partition import HEAD
from training.state import TrainState, sha256

RECORD = 'init_from.json'


@dataclasses.dataclass(frozen=True)
class WeightSource:
    """Weights that a run starts from.

    Attributes:
      folder: the folder that they were read from.
      model: name of their network.
      step: step of their checkpoint; None for converted weights.
      variables: {'params', 'batch_stats'}, nested dicts of host arrays.
      averaged: whether they are averages of the weights that training went through.
    """

    folder: str
    model: str
    step: int | None
    variables: dict[str, Any]
    averaged: bool = False

    def __str__(self) -> str:
        kind = ', averaged weights' if self.averaged else ''
        at = '' if self.step is None else f', step {self.step:,}'
        return f'{self.folder} ({self.model}{kind}{at})'


def open_source(config: ConfigDict, folder: Path) -> WeightSource | None:
    """Returns the weights that a run in `folder` starts from.

    None if config.init_from is not set, or if the run has a checkpoint to resume from.

    Raises:
      UserError: config.init_from cannot be read.
    """
    if config.init_from is None or checkpoints.steps_in(folder / checkpoints.FOLDER):
        return None
    return read(config.init_from)


def read(folder: str) -> WeightSource:
    """Reads converted weights or a run's last checkpoint, averaged weights if the run keeps them.

    Raises:
      UserError: the folder has neither, or they are damaged.
    """
    path = Path(folder)
    if pretrained.is_weights(path):
        variables, about = pretrained.load(path)
        averaged = about.get('averaged') is True
        return WeightSource(folder, about['model'], None, variables, averaged)
    if path.is_file():
        raise UserError(
            f'config.init_from={folder} is a file: convert it by `python -m tools.convert_weights '
            f'--model=MODEL --source={folder} --out=FOLDER`, and give that folder.'
        )
    if not (path / workdir.CONFIG).is_file():
        raise UserError(
            f'config.init_from={folder} is neither the workdir of a run ({workdir.CONFIG}) nor a '
            f'folder of converted weights ({pretrained.WEIGHTS}): train or convert it '
            'first, or name another folder by --config.init_from=DIR.'
        )
    config = workdir.load_config(path)
    checkpoint = trained.find(path, 'last', registry.best_metric(config))
    problem = checkpoints.damage(checkpoint)
    if problem:
        raise UserError(f'config.init_from: the checkpoint {checkpoint} is damaged: {problem}.')
    arrays = unflatten_dict(checkpoints.read_arrays(checkpoint), sep='/')
    trees = arrays.get('ema', arrays)
    variables = {name: trees.get(name, {}) for name in ('params', 'batch_stats')}
    step, averaged = int(checkpoint.name), 'ema' in arrays
    return WeightSource(folder, config.model.name, step, variables, averaged)


def check_fits(
    source: WeightSource, template: TrainState, model: str, convolutional: bool = False
) -> None:
    """Checks that a network has the source's parameters and statistics, except for the head.

    Args:
      source: the weights.
      template: shapes and types of the run's state.
      model: name of the run's network, for the message.
      convolutional: whether the network leaves fully connected layers out, which the source may
        then have.

    Raises:
      UserError: one is missing, left over, or of another shape.
    """
    wanted, given = _without_head(_variables(template)), _without_head(source.variables)
    wrong = {
        'missing': [p for p in wanted if p not in given],
        'left over': [
            p for p in given if p not in wanted and not (convolutional and _is_dense(p, given))
        ],
        'of another shape': [
            f'{p} {given[p].shape}, not {wanted[p].shape}'
            for p in wanted
            if p in given and given[p].shape != wanted[p].shape
        ],
    }
    if any(wrong.values()):
        listed = '; '.join(f'{what}: {_some(names)}' for what, names in wrong.items() if names)
        remedy = 'Choose the model and options of those weights.'
        if sum(map(len, wrong.values())) == 1:
            remedy = _remedy_for_channels(source, given, wanted) or remedy
        raise UserError(
            f'config.init_from={source} does not fit this {model}, its options and its images; '
            f'{listed}. {remedy}'
        )


def _remedy_for_channels(
    source: WeightSource, given: Mapping[str, Any], wanted: Mapping[str, Any]
) -> str:
    """Returns what to do where only the channels of the first convolution differ; '' elsewhere."""
    for path, weights in given.items():
        there, here = weights.shape, wanted[path].shape if path in wanted else ()
        if len(there) == len(here) == 4 and there[2] != here[2]:
            if (*there[:2], *there[3:]) != (*here[:2], *here[3:]):
                return ''
            if source.step is not None:
                return f'Those weights are for pictures of {there[2]} channels, not {here[2]}.'
            way = 'sum' if here[2] == 1 else 'repeat'
            number = f' --channels={here[2]}' if here[2] not in (1, 3) else ''
            return (
                f'Those weights are for pictures of {there[2]} channels, not {here[2]}: convert '
                f'them again with --input={way}{number}.'
            )
    return ''


def applied(source: WeightSource, state: TrainState) -> TrainState:
    """Returns the initial state with the weights of a source that fits, except for the head.

    The head is always new, because the source's belongs to its classes. A dense layer starts from
    zero (Dosovitskiy et al. 2021, "An image is worth 16x16 words", section 3.2). The gradient of a
    random head would destroy features before the head has learned to use them, and a head drawn by
    the seed of the source would be the one that its features were trained with. A head of several
    layers would not learn from zero, and keeps what the run's own seed drew. The state of the
    optimizer is zero whatever the weights are.
    """
    leaves = flatten_dict(_variables(state), sep='/')
    source_leaves = _without_head(source.variables)
    one_layer = f'params/{HEAD}/kernel' in leaves
    new = {path: np.zeros_like(leaf) if one_layer else leaf for path, leaf in leaves.items()}
    for path, weights in source_leaves.items():
        if path in new:  # which fully connected layers need not be; see `check_fits`
            new[path] = np.asarray(weights, leaves[path].dtype)
    variables = {'batch_stats': {}, **unflatten_dict(new, sep='/')}
    return state.replace(**variables, ema=state.ema and variables)


def _variables(state: TrainState) -> dict[str, Any]:
    return {'params': state.params, 'batch_stats': state.batch_stats}


def _without_head(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {path: leaf} of all parameters and statistics that do not belong to the head."""
    flat = flatten_dict(variables, sep='/')
    return {path: leaf for path, leaf in flat.items() if path.split('/')[1] != HEAD}


def _is_dense(path: str, given: Mapping[str, Any]) -> bool:
    """Returns whether a parameter belongs to a fully connected layer."""
    kernel = given.get(f'{path.rpartition("/")[0]}/kernel')
    return kernel is not None and kernel.ndim == 2


def _some(names: list[str]) -> str:
    """Returns the first three names and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def record(folder: Path, source: WeightSource) -> None:
    """Records in a run's folder what it started from; the source may then be deleted."""
    about = {
        'folder': source.folder,
        'model': source.model,
        'step': source.step,
        'params_sha256': sha256(source.variables['params']),
    }
    files.write_json(Path(folder) / RECORD, about)


def recorded_sha256(folder: Path) -> str | None:
    """Returns the hash of the parameters that a run started from, including the source's head."""
    path = Path(folder) / RECORD
    if not path.exists():
        return None
    remedy = 'It says what the run started from: copy it again from a copy of the folder.'
    return files.read_json(path, {'params_sha256': str}, remedy)['params_sha256']
