"""Trains several networks by one compiled program: lanes of jax.vmap over (state, values, batch).

Each lane does the run of train.py for its configuration, with the same first state, batches, keys
and evaluations, because all of these are functions of the configuration and the step. Lanes may
differ in values, such as learning rates and seeds; `alike` decides whether two configurations may
share a population. A lane that is done or dropped takes another run without a new compilation.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

import input_pipeline
from augmentation import registry as augmentations
from configs import base, schema
from data_sources import plans
from data_sources.arrays import ArraySource
from distributed.devices import memory_limit
from errors import UserError
from tasks.task import Batch, Hyper
from training.calendar import Calendar
from training.collectives import Tree
from training.evaluation import add, in_order
from training.experiment import Experiment, from_split, hyperparameters
from training.runner import RUN_AHEAD
from training.spec import StepSpec
from training.state import TrainState
from training.step import eval_step, train_step

LANES = 'lanes'  # name of the mesh axis
# Lanes per device that go through vmap at once; those of a larger population take turns. The caches
# of a CPU hold the activations of one, and XLA's CPU backend has no fast convolution for several.
WIDTH = {'cpu': 1}
WIDTH_ELSEWHERE = 64
MEMORY_FRACTION = 0.8  # of a device's memory, at most, for a step


def values() -> frozenset[str]:
    """Returns the names of the fields in which the lanes of one population may differ.

    They enter the step as arguments. All others are compiled in, or change the data or the length.
    """
    return frozenset(field.name for field in base.fields() if field.traced)


def alike(config: ConfigDict) -> str:
    """Returns a text that is equal for configurations that may be lanes of one population."""
    varying = values()
    rest = {k: schema.plain(v) for k, v in schema.flatten(config).items() if k not in varying}
    if config.data.train_per_class:
        rest['seed'] = config.seed  # the seed draws the examples, and lanes share the data set
    names = [augmentation.name for augmentation in augmentations.applied(config)]
    return json.dumps([rest, names, sorted(hyperparameters(config))], sort_keys=True)


def check(config: ConfigDict) -> None:
    """Checks that a configuration can be a lane.

    Raises:
      UserError: it needs something that populations do not support.
    """
    for what, needed in (
        ('a streamed data set (config.data.image_size)', config.data.image_size),
        ('config.data.placement=host', config.data.placement == 'host'),
        ('config.init_from', config.init_from),
        ('config.linear_probe', config.linear_probe),
    ):
        if needed:
            raise UserError(f'--engine=vmap does not support {what}: choose --engine=local.')


@dataclasses.dataclass
class Lane:
    """A run in a lane.

    Attributes:
      config: its configuration.
      tag: any object by which the caller recognizes it.
      step: number of updates done.
      target: the step of its next evaluation.
    """

    config: ConfigDict
    tag: Any
    step: int
    target: int


class Population:
    """Lanes that are trained together.

    Args:
      config: the configuration of any lane.
      train_split, validation_split: open splits, whole in memory.
      size: number of lanes; rounded up to a multiple of those that are trained at once.
      devices: the devices over which the lanes are distributed, each lane on one.

    Attributes:
      lanes: the Lane at each position, or None if it is idle.
      experiment: the experiment of the configuration.
    """

    def __init__(
        self,
        config: ConfigDict,
        train_split: ArraySource,
        validation_split: ArraySource,
        size: int,
        devices: list[jax.Device],
    ):
        self.experiment: Experiment = from_split(config, train_split)
        self._spec = self.experiment.spec()
        self._due = Calendar.of(self.experiment)
        self._mesh = Mesh(np.array(devices), (LANES,))
        self._validation_size = validation_split.size
        self._dataset = self._everywhere(train_split.arrays)
        self._validation = self._everywhere(validation_split.arrays)
        step, score = (functools.partial(f, self._spec) for f in (_train, eval_step))
        # Lanes share the data set (None): each batch is only indices into it. The state is donated,
        # or every update would need the memory of two states for each lane.
        self._train = jax.jit(jax.vmap(step, (0, 0, 0, None, 0, 0)), donate_argnums=0)
        self._evaluate = jax.jit(jax.vmap(score, (0, None, None)))
        self._create = jax.jit(lambda seed: self.experiment.create_state(self._spec, seed))
        self._insert = jax.jit(_inserted, donate_argnums=0)
        # The width has to be known before the lanes are made: it is the shape of their states.
        width = WIDTH.get(devices[0].platform, WIDTH_ELSEWHERE)
        self._width = self._fitting(min(width, -(-size // len(devices))) * len(devices))
        self._make_lanes(-(-size // self._width))

    def _fitting(self, width: int) -> int:
        """Returns the width, halved until its programs fit into the memory, if that is known."""
        limit, devices = memory_limit(self._mesh.devices[0]), len(self._mesh.devices)
        if limit is None:
            return width
        while width > devices and self._step_bytes(width) > MEMORY_FRACTION * limit:
            width = max(width // 2 // devices, 1) * devices
        return width

    def _step_bytes(self, width: int) -> int:
        """Returns the bytes per device of a step or an evaluation of `width` lanes; compiles both.

        Everything is abstract except for the data sets, so that no lane is made that does not fit.
        """
        config = self.experiment.config
        split = NamedSharding(self._mesh, PartitionSpec(LANES))

        def stacked(tree: Tree) -> Tree:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((width, *np.shape(x)), x.dtype, sharding=split), tree
            )

        row = np.zeros(config.batch_size, np.int32)
        batch = {'index': row, 'epoch': row, 'mask': row.astype(np.float32)}
        state = self.experiment.abstract_state(self._spec)
        arguments = (state, hyperparameters(config), batch, np.zeros((), bool))
        state, hyper, batch, flag = map(stacked, arguments)
        plan = plans.EvalPlan(self._validation_size, config.eval_batch_size, 1)
        row = self._everywhere(next(iter(plan)))
        return max(
            _bytes(self._train.lower(state, hyper, batch, self._dataset, flag, flag)),
            _bytes(self._evaluate.lower(state.variables(), row, self._validation)),
        )

    def _make_lanes(self, blocks: int) -> None:
        """Makes all lanes, which are idle, in blocks of `width`; each block is a stack of states.

        An idle lane has a state as well: the compiled step always computes all lanes of a block.
        """
        count = blocks * self._width
        first = jax.tree.map(np.asarray, self._create(np.uint32(0)))
        stacked = jax.tree.map(lambda x: np.broadcast_to(x, (self._width, *x.shape)), first)
        self._states = [self._split(stacked) for _ in range(blocks)]
        values = hyperparameters(self.experiment.config)
        self._hyper = {name: np.full(count, value) for name, value in values.items()}
        self.lanes: list[Lane | None] = [None] * count
        # Each lane has a cache of its own permutations. That of input_pipeline holds two, and lanes
        # of different seeds would replace each other's; `__wrapped__` is the function without it.
        cached = functools.lru_cache(2)
        self._orders = [cached(input_pipeline.permutation.__wrapped__) for _ in range(count)]

    @property
    def evaluations(self) -> int:
        """Number of evaluations in a whole run."""
        return sum(self._due.evaluates(n) for n in range(1, self.experiment.steps + 1))

    def start(self, position: int, config: ConfigDict, tag: Any) -> None:
        """Starts a run in an idle lane.

        Args:
          position: of the lane.
          config: a configuration that is alike those of the other lanes (see `alike`).
          tag: see Lane.
        """
        state = jax.tree.map(np.asarray, self._create(np.uint32(config.seed)))
        block, row = divmod(position, self._width)
        self._states[block] = self._insert(self._states[block], state, np.int32(row))
        for name, value in hyperparameters(config).items():
            self._hyper[name][position] = value
        self.lanes[position] = Lane(config, tag, 0, self._next(0))

    def drop(self, position: int) -> None:
        """Makes a lane idle."""
        self.lanes[position] = None

    def advance(
        self, asked_to_stop: Callable[[], Any] = lambda: None
    ) -> dict[int, dict[str, float] | None]:
        """Trains every lane up to its next evaluation, and evaluates it.

        Args:
          asked_to_stop: called before each update. If it does not return None, training ends at
            once without evaluations, and the result is {}.

        Returns:
          {position: the task's validation metrics}; None for a lane that is not finite.
        """
        under_way, evaluations = collections.deque(), {}
        finite = [self._split(np.ones(self._width, bool)) for _ in self._states]
        # Sent once: values change only between two calls of `advance`, in `start`.
        hyper = [
            self._split({k: v[rows] for k, v in self._hyper.items()}) for rows in self._blocks()
        ]
        # Lanes may be at different steps, because a run starts as soon as a lane is idle. One that
        # has reached its target keeps its state until all have reached theirs; all lanes of a block
        # are evaluated by one call.
        while any(lane and lane.step < lane.target for lane in self.lanes):
            if asked_to_stop() is not None:
                return {}
            for block, rows in enumerate(self._blocks()):
                batch, active = self._batch(rows)
                if not active.any():
                    continue
                self._states[block], finite[block] = self._train(
                    self._states[block], hyper[block], self._split(batch), self._dataset,
                    self._split(active), finite[block],
                )  # fmt: skip
                # Of each call only the flags are kept. They are waited for, not fetched, which
                # bounds the calls under way as in training/loop.py.
                under_way.append(finite[block])
                if len(under_way) > RUN_AHEAD:
                    jax.block_until_ready(under_way.popleft())
                for lane, trained in zip(self.lanes[rows], active, strict=True):
                    if trained:
                        lane.step += 1
        for block, rows in enumerate(self._blocks()):
            if any(self.lanes[rows]):
                evaluations |= self._evaluated(block, rows, np.asarray(finite[block]))
        return evaluations

    def _blocks(self) -> list[slice]:
        """Returns the positions of the lanes of each block."""
        return [slice(i, i + self._width) for i in range(0, len(self.lanes), self._width)]

    def finished(self, position: int) -> bool:
        """Returns whether a lane has done all its updates; sets its next target if not."""
        lane = self.lanes[position]
        if lane.step >= self.experiment.steps:
            return True
        lane.target = self._next(lane.step)
        return False

    def state(self, position: int) -> TrainState:
        """Returns a lane's state, as host arrays."""
        block, row = divmod(position, self._width)
        return jax.tree.map(lambda x: np.array(x[row]), self._states[block])

    def _next(self, step: int) -> int:
        """Returns the step of the next evaluation."""
        return next(n for n in range(step + 1, self.experiment.steps + 1) if self._due.evaluates(n))

    def _batch(self, rows: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns the next training batch of a block, and which of its lanes are trained.

        The leaves of the batch are [width, b], the flags bool [width]. A lane that is not trained
        has a batch of zeros, whose result is discarded.
        """
        size, lanes = self.experiment.config.batch_size, self.lanes[rows]
        index = np.zeros((len(lanes), size), np.int32)
        epoch, active = np.zeros_like(index), np.zeros(len(lanes), bool)
        for row, (lane, order) in enumerate(zip(lanes, self._orders[rows], strict=True)):
            if lane and lane.step < lane.target:
                active[row] = True
                index[row], epoch[row] = input_pipeline.indices(
                    lane.config.seed, self.experiment.train_examples, size, lane.step, order
                )
        return {'index': index, 'epoch': epoch, 'mask': np.ones(index.shape, np.float32)}, active

    def _evaluated(
        self, block: int, rows: slice, finite: np.ndarray
    ) -> dict[int, dict[str, float] | None]:
        """Evaluates the lanes of a block; returns {position: metrics, or None if not finite}."""
        task, variables = self._spec.task, self._states[block].variables()
        total, batches = {}, []
        size = self.experiment.config.eval_batch_size
        for batch in plans.EvalPlan(self._validation_size, size, 1):
            evaluated = self._evaluate(variables, self._everywhere(batch), self._validation)
            sums, task_rows = jax.tree.map(np.asarray, evaluated)
            add(total, sums)
            if task_rows is not None:
                batches.append(
                    [task.collected(_lane(task_rows, row)) for row in range(self._width)]
                )
        evaluations = {}
        for row, lane in enumerate(self.lanes[rows]):
            if lane:
                blocks = [collected[row] for collected in batches]
                task_rows = in_order(blocks) if blocks else None
                means = task.summarize(task.totals(_lane(total, row), task_rows), task_rows)
                sound = finite[row] and np.isfinite(means['loss'])
                evaluations[rows.start + row] = means if sound else None
        return evaluations

    def _split(self, tree: Tree) -> Tree:
        """Puts stacked arrays on the devices, each device its lanes."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec(LANES)))

    def _everywhere(self, tree: Tree) -> Tree:
        """Puts arrays on every device."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))


def _lane(arrays: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """Returns the values of one lane."""
    return {name: values[row] for name, values in arrays.items()}


def most_lanes(config: ConfigDict, train_split: ArraySource, device: jax.Device) -> int:
    """Returns how many lanes' states fit into half of the memory of the device.

    If the device does not tell its memory, it is that of the host. Each lane counts three times: a
    new state exists before the old one is freed, and one more is being inserted.
    """
    experiment = from_split(config, train_split)
    leaves = jax.tree.leaves(experiment.abstract_state(experiment.spec()))
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    memory = memory_limit(device) or psutil.virtual_memory().available
    return max(1, int(memory / 2 / (3 * each)))


def _train(
    spec: StepSpec,
    state: TrainState,
    hyper: Hyper,
    batch: Batch,
    dataset: Batch,
    active: jax.Array,
    finite: jax.Array,
) -> tuple[TrainState, jax.Array]:
    """Returns one lane's next state, and whether all its updates were finite so far.

    A lane that is not active keeps its state and its flag.
    """
    new, metrics = train_step(spec, state, hyper, batch, dataset)
    sound = jnp.isfinite(metrics['loss']) & jnp.isfinite(metrics['grad_norm'])
    next_state = jax.tree.map(lambda n, o: jnp.where(active, n, o), new, state)
    return next_state, finite & (sound | ~active)


def _bytes(program: jax.stages.Lowered) -> int:
    """Compiles a program; returns the bytes that it takes of a device."""
    memory = program.compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes


def _inserted(stacked: Tree, state: Tree, row: jax.typing.ArrayLike) -> Tree:
    """Returns the stacked states with that of one row replaced."""
    return jax.tree.map(lambda many, x: many.at[row].set(x), stacked, state)
