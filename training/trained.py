"""Loads a trained network from a workdir, for evaluation and prediction; writes nothing there."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from distributed import devices
from errors import UserError, shortened
from tasks import registry
from tasks.answer import Metric
from training import checkpoints, experiment, facts, records, workdir
from training.spec import StepSpec
from training.state import TrainState

# What a run does with its machine. A workdir may come from another machine or another person, whose
# folder of compiled programs would be executed and whose coordinator would be connected to; so the
# command line and the defaults decide.
MACHINE = (
    'compilation_cache', 'distributed', 'distributed_timeout', 'devices', 'data.threads',
    'data.workers',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Trained:
    """The network of a checkpoint, with all that is needed to apply it.

    Attributes:
      experiment: the configuration and the facts about its data set.
      spec: the static part of the step, with the network.
      state: host arrays.
      step: number of updates done.
      devices: all devices.
    """

    experiment: experiment.Experiment
    spec: StepSpec
    state: TrainState
    step: int
    devices: list[jax.Device]

    @property
    def variables(self) -> dict[str, Any]:
        """The variables for evaluation: averaged weights if the run keeps them."""
        return self.state.variables()


def load_config(folder: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Returns the stored configuration, with run fields overridden by the command line.

    What it says of the machine (MACHINE) is left out.

    Args:
      folder: the workdir.
      overrides: '--config.a.b=v' arguments.

    Raises:
      UserError: there is no run, or an override changes a field of the experiment.
    """
    from configs import base, schema

    config = workdir.load_config(folder)
    for field in base.fields():
        if field.name in MACHINE:
            schema.assign(config, field.name, field.default)
    stored = config.copy_and_resolve_references()
    schema.override(config, list(overrides), base.fields())
    changed = schema.differences(stored, config, base.fields(), base.EXPERIMENT)
    if changed:
        raise UserError(
            f'config.{next(iter(changed))} is part of the experiment and is taken from '
            f'{folder}/{workdir.CONFIG}; only fields of the run, such as --config.data.dir, can be '
            'given here.'
        )
    return schema.validate(config, base.fields())


def load(folder: str | Path, which: str = 'last', overrides: Sequence[str] = ()) -> Trained:
    """Reads a checkpoint of the run in `folder`.

    Args:
      folder: the workdir.
      which: 'last', 'best' (by validation), or a step.
      overrides: '--config.a.b=v' arguments for run fields, such as data.dir.

    Raises:
      UserError: there is no run, no such checkpoint, or it is damaged.
    """
    config = load_config(folder, overrides)
    all_devices = devices.start(config)
    path = find(Path(folder), which, registry.best_metric(config))
    exp = facts.load(Path(folder), config) or _with_data_set(Path(folder), config)
    spec = _with_choices(exp.spec(), Path(folder), int(path.name))
    problem = checkpoints.damage(path)
    if problem:
        others = [s for s in checkpoints.steps_in(path.parent) if s != int(path.name)]
        others = ', '.join(map(str, others)) or 'none'
        raise UserError(
            f'The checkpoint {path} is damaged: {problem}. Other steps for --checkpoint=STEP: '
            f'{others}.'
        )
    state = checkpoints.read(path, exp.abstract_state(spec))
    return Trained(exp, spec, jax.tree.map(np.asarray, state), int(path.name), all_devices)


def _with_choices(spec: StepSpec, folder: Path, step: int) -> StepSpec:
    """Returns the step's static part with what was chosen by validation, at the step or before."""
    names = spec.task.chooses
    for record in reversed(records.read_metrics(folder) if names else ()):
        values = {name: record.get(f'validation/{name}') for name in names}
        if record['step'] <= step and None not in values.values():
            return dataclasses.replace(spec, task=spec.task.with_choices(values))
    return spec


def _with_data_set(folder: Path, config: ConfigDict) -> experiment.Experiment:
    """Opens the training split of a run that was written before there was data.json.

    Raises:
      UserError: the data set is not there, or does not fit the configuration.
    """
    try:
        return experiment.open_train(config)[0]
    except UserError as error:
        raise UserError(
            f'{folder} has no {facts.FILE}, which says what its network has to know of the data '
            f'set, so the set is needed: {error}'
        ) from error


def find(folder: Path, which: str, metric: Metric) -> Path:
    """Returns the folder of the checkpoint that is named by 'last', 'best' or a step.

    Args:
      folder: the workdir.
      which: 'last', 'best' or a step.
      metric: the metric that the best one is chosen by.

    Raises:
      UserError: there is no such checkpoint.
    """
    known = checkpoints.steps_in(folder / checkpoints.FOLDER)
    if not known:
        raise UserError(f'{folder} has no checkpoint yet; train first: python train.py --help.')
    if which == 'last':
        step = known[-1]
    elif which == 'best':
        step = checkpoints.best_of(folder / checkpoints.FOLDER, known, metric)
    elif which in map(str, known):
        step = int(which)
    else:
        raise UserError(
            f'--checkpoint={shortened(which)}: choose last, best, or one of the steps '
            f'{", ".join(map(str, known))}.'
        )
    return folder / checkpoints.FOLDER / str(step)
