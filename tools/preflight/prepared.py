"""Prepares a run for its first step as train.py does: opens and places its data, compiles it."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

import input_pipeline
from augmentation import registry as augmentations
from data_sources import plans
from data_sources.arrays import SPLITS
from distributed import hosts
from errors import UserError
from training import placement, transfer
from training.calendar import Calendar
from training.experiment import Experiment, Split, hyperparameters, open_train
from training.placement import Placement
from training.runner import Runner
from training.spec import StepSpec
from training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Used:
    """A split as a run uses it.

    Attributes:
      split: the open split.
      place: the split where the step can use it.
      batch_size: over all devices.
      image_shape: (height, width, channels).
    """

    split: Split
    place: Placement
    batch_size: int
    image_shape: tuple[int, int, int]

    @property
    def batch_bytes(self) -> int:
        """Bytes of the images of a batch."""
        return self.batch_size * math.prod(self.image_shape)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that is ready for its first step.

    Attributes:
      experiment: what is trained.
      runner: the step over the devices.
      used: the train, validation and test splits.
      state: the state before the first update, as host arrays.
      hyper: scalars of the step, as host arrays.
      updates: number of updates that a call does if nothing is due in between.
      programs: the compiled programs: one update, several updates if calls do several, and the
        evaluations of validation and test.
      compile_seconds: duration of their compilation.
    """

    experiment: Experiment
    runner: Runner
    used: tuple[Used, Used, Used]
    state: TrainState
    hyper: dict[str, np.ndarray]
    updates: int
    programs: tuple[jax.stages.Compiled, ...]
    compile_seconds: float

    @property
    def config(self) -> ConfigDict:
        """The configuration."""
        return self.experiment.config


def part_of(config: ConfigDict, devices: int, planned: int) -> ConfigDict:
    """Returns the configuration of the part of a run that some of its devices do.

    Each device has as many examples of a batch as in the run (about as many if the batch is not
    divisible). The number of updates stays the same, and so do the steps at which something is due.

    Args:
      config: the configuration of the run.
      devices: number of available devices.
      planned: number of devices in the run.
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


def open_splits(config: ConfigDict) -> tuple[Experiment, dict[str, Split]]:
    """Opens all splits; returns (experiment, {name: split}).

    Raises:
      UserError: a split is missing or damaged, or does not fit the configuration.
    """
    exp, train = open_train(config)
    return exp, {
        'train': train,
        **{name: input_pipeline.open_split(config, name) for name in SPLITS[1:]},
    }


def weights(exp: Experiment, spec: StepSpec) -> transfer.WeightSource | None:
    """Returns the weights of config.init_from, on process 0, which alone reads them in a run.

    Raises:
      UserError: they cannot be read, or do not fit.
    """
    if not exp.config.init_from or not hosts.is_first():
        return None
    source = transfer.read(exp.config.init_from)
    convolutional = spec.model.headless().convolutional
    transfer.check_fits(source, exp.abstract_state(spec), exp.config.model.name, convolutional)
    return source


def prepare(
    exp: Experiment,
    spec: StepSpec,
    splits: dict[str, Split],
    devices: list[jax.Device],
    source: transfer.WeightSource | None = None,
) -> Prepared:
    """Returns the compiled run, of which only the data sets are on the devices.

    Args:
      exp: what is trained.
      spec: the static part of its step.
      splits: {name: open split}.
      devices: all devices of all processes.
      source: the weights to start from, on process 0.
    """
    config = exp.config
    runner = Runner(spec, config.runner, devices)
    state = exp.initial_state(spec)
    if config.init_from:
        state = hosts.broadcast(transfer.applied(source, state) if source else state)
    used = tuple(_used(exp, runner, splits[name]) for name in SPLITS)
    resident, platform = used[0].place.resident, runner.local[0].platform
    most = placement.updates_per_call(config, resident, platform)
    updates = Calendar.of(exp).call(0, most)
    hyper = hyperparameters(config)
    start = time.monotonic()
    programs = _compiled(runner, used, state, hyper, updates, config.data.on_bad_record == 'skip')
    seconds = time.monotonic() - start
    return Prepared(exp, runner, used, state, hyper, updates, tuple(programs), seconds)


def _used(exp: Experiment, runner: Runner, split: Split) -> Used:
    """Returns a split with its placement and the batches that the run makes of it."""
    config, shape = exp.config, exp.image_shape
    batch_size = config.batch_size
    if split.split != 'train':
        side = config.data.eval_image_size
        shape = (side, side, 3) if side else shape
        devices = len(runner.devices)
        batch_size = plans.EvalPlan(split.size, config.eval_batch_size, devices).step
    return Used(split, Placement(runner, split, config), batch_size, shape)


def _compiled(
    runner: Runner,
    used: tuple[Used, ...],
    state: TrainState,
    hyper: dict[str, np.ndarray],
    updates: int,
    skip: bool,
) -> list[jax.stages.Compiled]:
    """Returns the programs, compiled for arguments like those of the run, whose calls use them."""
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
    """A context that turns a device's lack of memory into a sentence.

    Args:
      what: what is done in it, for the sentence.
      together: whether all processes do it together; if one lacks memory, all of them end.

    Raises:
      UserError: a device has too little memory.
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
