"""A run made ready for its first step, as train.py does it: opened, placed, compiled."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import input_pipeline
from augmentation import registry as augmentations
from data_sources.arrays import SPLITS
from distributed import hosts
from errors import UserError
from training import experiment, placement, transfer
from training.calendar import Calendar
from training.placement import Placement
from training.runner import Runner
from training.spec import StepSpec
from training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Used:
    """A split as a run uses it."""

    split: Any
    place: Placement
    batch_size: int  # over all devices
    image_shape: tuple[int, int, int]

    @property
    def batch_bytes(self) -> int:
        """The size of the images of a batch."""
        return self.batch_size * math.prod(self.image_shape)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run whose first step could begin.

    Attributes:
      experiment: what is trained.
      runner: the step over the devices.
      used: the train, validation and test splits.
      state: before the first update, as host arrays.
      hyper: scalars of the step, as host arrays.
      updates: how many a call does where nothing is due in between.
      programs: the compiled ones: of one update, of several if a call does that, of the
        evaluation of validation and test.
      compile_seconds: what compiling them took.
    """

    experiment: experiment.Experiment
    runner: Runner
    used: tuple[Used, Used, Used]
    state: TrainState
    hyper: dict[str, np.ndarray]
    updates: int
    programs: tuple[jax.stages.Compiled, ...]
    compile_seconds: float

    @property
    def config(self):
        """The configuration."""
        return self.experiment.config


def part_of(config, devices: int, planned: int):
    """Returns the configuration of the part of a run that falls to some of its devices.

    Each device has as many examples of a batch as in the run, or nearly, where the batch does not
    divide; the number of updates and what is due at which of them stay the same.

    Args:
      config: of the run.
      devices: how many there are.
      planned: how many the run is to have.
    """
    unit = (
        math.lcm(config.accumulate, 2)
        if augmentations.mixing_switches(config)
        else config.accumulate
    )
    batch_size = devices * max(config.batch_size // planned // unit, 1) * unit
    if batch_size == config.batch_size:
        return config
    part, ratio = config.copy_and_resolve_references(), batch_size / config.batch_size
    part.batch_size = batch_size
    part.epochs *= ratio
    part.eval_every *= ratio
    part.checkpoint.every *= ratio
    if part.schedule.unit == 'epochs':
        part.schedule.warmup *= ratio
        part.schedule.milestones = tuple(ratio * value for value in part.schedule.milestones)
    return part


def open_splits(config) -> tuple[experiment.Experiment, dict[str, Any]]:
    """Opens all splits; returns (experiment, {name: split}).

    Raises:
      UserError: what train.py would say of them.
    """
    found, train = experiment.open_train(config)
    return found, {
        'train': train,
        **{name: input_pipeline.open_split(config, name) for name in SPLITS[1:]},
    }


def weights(found: experiment.Experiment, spec: StepSpec) -> transfer.Source | None:
    """Returns what config.init_from names, on process 0, which alone reads it in a run.

    Raises:
      UserError: it cannot be read, or does not fit.
    """
    if not found.config.init_from or not hosts.is_first():
        return None
    source = transfer.read(found.config.init_from)
    transfer.check_fits(source, found.abstract_state(spec), found.config.model.name)
    return source


def prepare(
    found: experiment.Experiment,
    spec: StepSpec,
    splits: dict[str, Any],
    devices: list,
    source: transfer.Source | None = None,
) -> Prepared:
    """Returns the run, compiled, with nothing of it on the devices but the data sets.

    Args:
      found: what is trained.
      spec: the static part of its step.
      splits: {name: open split}.
      devices: of all processes.
      source: the weights to start from, on process 0.
    """
    config = found.config
    runner = Runner(spec, config.runner, devices)
    state = found.initial_state(spec)
    if config.init_from:
        state = hosts.broadcast(transfer.applied(source, state) if source else state)
    used = tuple(_used(found, runner, splits[name]) for name in SPLITS)
    resident, platform = used[0].place.resident, runner.local[0].platform
    most = placement.updates_per_call(config, resident, platform)
    updates = Calendar.of(found).call(0, most)
    hyper = experiment.hyperparameters(config)
    start = time.monotonic()
    programs = _compiled(runner, used, state, hyper, updates, config.data.on_bad_record == 'skip')
    seconds = time.monotonic() - start
    return Prepared(found, runner, used, state, hyper, updates, tuple(programs), seconds)


def _used(found: experiment.Experiment, runner: Runner, split) -> Used:
    config, shape = found.config, found.image_shape
    batch_size = config.batch_size
    if split.split != 'train':
        side = config.data.eval_image_size
        shape = (side, side, 3) if side else shape
        devices = len(runner.devices)
        batch_size = input_pipeline.EvalPlan(split.size, config.eval_batch_size, devices).step
    return Used(split, Placement(runner, split, config), batch_size, shape)


def _compiled(
    runner: Runner, used: tuple, state: TrainState, hyper: dict, updates: int, skip: bool
) -> list:
    """The programs, from arguments like those of the run, so that its calls find them."""
    state, hyper = runner.replicate(state), runner.replicate(hyper)
    train, *others = ((_batch(one, skip), one.place.dataset) for one in used)
    batch, dataset = train
    runner.train.compile(state, hyper, runner.split(batch), dataset)
    programs = [runner.train.compiled]
    if updates > 1:
        runner.train_many.compile(state, hyper, runner.split_many([batch] * updates), dataset)
        programs.append(runner.train_many.compiled)
    for batch, dataset in others:
        call = runner.evaluate.lower(state.variables(), runner.split(batch), dataset)
        programs.append(call.compile())
    return programs


def _batch(used: Used, skip: bool) -> dict[str, np.ndarray]:
    """Returns a batch of zeros, this process's part, as its placement sends it."""
    size = used.batch_size // jax.process_count()
    batch = {'index': np.zeros(size, np.int32), 'mask': np.zeros(size, np.float32)}
    if used.split.split == 'train':
        batch['epoch'] = np.zeros(size, np.int32)
    if not used.place.resident:
        batch['image'] = np.zeros((size, *used.image_shape), np.uint8)
        for name, kind in used.split.kinds.items():
            batch[name] = kind.empty(size, used.image_shape)
    if used.place.streamed and skip:
        batch['bad'] = np.zeros(size, np.int32)
    return batch


@contextlib.contextmanager
def memory_named(what: str, together: bool = False) -> Iterator[None]:
    """A context that turns a device's want of memory into a sentence.

    Args:
      what: is done there, for the sentence.
      together: all processes do it together; where one has not enough, all of them end.

    Raises:
      UserError: the device has not enough.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        problem = UserError(
            f'A device has too little memory {what}: lower config.batch_size or '
            'config.eval_batch_size, or raise config.accumulate.'
        )
        if together:
            hosts.abort_others(problem)
        raise problem from error
