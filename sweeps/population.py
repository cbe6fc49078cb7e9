"""Several trainings by one compiled program: lanes of jax.vmap over (state, values, batch).

Each lane is the run that train.py makes of its configuration: the same first state, batches, keys
and evaluations, because all of these are functions of the configuration and the step. What lanes
may differ in are values, such as rates and the seed; `alike` says whether two configurations may
share a population. A lane that is done, or dropped, takes another run without a new compilation.
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

import input_pipeline
from configs import schema
from distributed.devices import memory_limit
from errors import UserError
from training import augment_config
from training.calendar import Calendar
from training.evaluation import add, in_order
from training.experiment import Experiment, from_split, hyperparameters
from training.runner import RUN_AHEAD
from training.step import eval_step, train_step

# Fields that enter the step as numbers; all others are compiled in, or change data or lengths.
VALUES = frozenset(
    ['seed', 'label_smoothing', 'ema_decay', 'model.dropout_rate']
    + [f'augment.{name}' for name in (
        'shift', 'rotate', 'scale', 'crop', 'flip', 'mixup', 'cutmix', 'mix_probability',
        'cutmix_share', 'erase')]
    + [f'optimizer.{name}' for name in (
        'learning_rate', 'weight_decay', 'clip_norm', 'momentum', 'beta1', 'beta2', 'epsilon',
        'decay', 'trust_coefficient')]
)  # fmt: skip
LANES = 'lanes'
# Lanes of a device that go through vmap at a time; those of a larger population take turns. A CPU's
# caches hold the activations of one, and XLA's CPU backend has no fast convolution for several.
WIDTH = {'cpu': 1}
WIDTH_ELSEWHERE = 64
SHARE = 0.8  # of a device's memory that a step may take


def alike(config) -> str:
    """Returns a text that is the same for configurations that may be lanes of one population."""
    rest = {k: schema.plain(v) for k, v in schema.flatten(config).items() if k not in VALUES}
    if config.data.train_per_class:
        rest['seed'] = config.seed  # it chooses the examples
    switched = augment_config.switches(config), sorted(hyperparameters(config))
    return json.dumps([rest, *switched], sort_keys=True)


def check(config) -> None:
    """Checks that a configuration can be a lane.

    Raises:
      UserError: it needs what a population has not.
    """
    for what, needed in (
        ('a streamed data set (config.data.image_size)', config.data.image_size),
        ('config.data.placement=host', config.data.placement == 'host'),
        ('config.init_from', config.init_from),
        ('config.linear_probe', config.linear_probe),
    ):
        if needed:
            raise UserError(f'--engine=vmap cannot do {what}: choose --engine=local.')


@dataclasses.dataclass
class Lane:
    """One run under way.

    Attributes:
      config: its configuration.
      tag: whatever the owner wants to find it by.
      step: updates done.
      target: the step of its next evaluation.
    """

    config: Any
    tag: Any
    step: int
    target: int


class Population:
    """Lanes that are trained together.

    Args:
      config: of any of them.
      train_split, validation_split: open, whole in memory.
      size: how many lanes; rounded up to what the devices take at a time.
      devices: over which they are spread, each lane on one.

    Attributes:
      lanes: a Lane or None (idle) for each place.
      experiment: of the configuration.
    """

    def __init__(self, config, train_split, validation_split, size: int, devices: list):
        self.experiment: Experiment = from_split(config, train_split)
        self._spec = self.experiment.spec()
        self._due = Calendar.of(self.experiment)
        self._mesh = Mesh(np.array(devices), (LANES,))
        self._validation_size = validation_split.size
        self._dataset = self._everywhere(train_split.arrays)
        self._validation = self._everywhere(validation_split.arrays)
        step, score = (functools.partial(f, self._spec) for f in (_train, eval_step))
        self._train = jax.jit(jax.vmap(step, (0, 0, 0, None, 0, 0)), donate_argnums=0)
        self._evaluate = jax.jit(jax.vmap(score, (0, None, None)))
        self._create = jax.jit(lambda seed: self.experiment.create_state(self._spec, seed))
        self._insert = jax.jit(_inserted, donate_argnums=0)
        width = WIDTH.get(devices[0].platform, WIDTH_ELSEWHERE)
        self._width = self._fitting(min(width, -(-size // len(devices))) * len(devices))
        self._make_lanes(-(-size // self._width))

    def _fitting(self, width: int) -> int:
        """The width, halved until its programs fit, where the devices say what they have."""
        limit, devices = memory_limit(self._mesh.devices[0]), len(self._mesh.devices)
        while limit is not None and width > devices and self._step_bytes(width) > SHARE * limit:
            width = max(width // 2 // devices, 1) * devices
        return width

    def _step_bytes(self, width: int) -> int:
        """What a step or an evaluation of `width` lanes takes of each device; compiles both."""
        config = self.experiment.config
        split = NamedSharding(self._mesh, PartitionSpec(LANES))

        def stacked(tree):
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((width, *np.shape(x)), x.dtype, sharding=split), tree
            )

        row = np.zeros(config.batch_size, np.int32)
        batch = {'index': row, 'epoch': row, 'mask': row.astype(np.float32)}
        state = self.experiment.abstract_state(self._spec)
        arguments = (state, hyperparameters(config), batch, np.zeros((), bool))
        state, hyper, batch, flag = map(stacked, arguments)
        plan = input_pipeline.EvalPlan(self._validation_size, config.eval_batch_size, 1)
        row = self._everywhere(next(iter(plan)))
        return max(
            _bytes(self._train.lower(state, hyper, batch, self._dataset, flag, flag)),
            _bytes(self._evaluate.lower(state.variables(), row, self._validation)),
        )

    def _make_lanes(self, blocks: int) -> None:
        """Makes all lanes, idle: in blocks of `width`, each a stack of states."""
        count = blocks * self._width
        first = jax.tree.map(np.asarray, self._create(np.uint32(0)))
        stacked = jax.tree.map(lambda x: np.broadcast_to(x, (self._width, *x.shape)), first)
        self._states = [self._split(stacked) for _ in range(blocks)]
        values = hyperparameters(self.experiment.config)
        self._hyper = {name: np.full(count, value) for name, value in values.items()}
        self.lanes: list[Lane | None] = [None] * count
        # Each lane keeps its own order of the examples; input_pipeline's memory holds but two.
        remember = functools.lru_cache(2)
        self._orders = [remember(input_pipeline.permutation.__wrapped__) for _ in range(count)]

    @property
    def evaluations(self) -> int:
        """How many evaluations a whole run has."""
        return sum(self._due.evaluates(n) for n in range(1, self.experiment.steps + 1))

    def start(self, place: int, config, tag: Any) -> None:
        """Starts a run in an idle lane; the configuration has to be alike (see `alike`)."""
        state = jax.tree.map(np.asarray, self._create(np.uint32(config.seed)))
        block, inside = divmod(place, self._width)
        self._states[block] = self._insert(self._states[block], state, np.int32(inside))
        for name, value in hyperparameters(config).items():
            self._hyper[name][place] = value
        self.lanes[place] = Lane(config, tag, 0, self._next(0))

    def drop(self, place: int) -> None:
        """Makes a lane idle."""
        self.lanes[place] = None

    def advance(
        self, asked_to_stop: Callable[[], Any] = lambda: None
    ) -> dict[int, dict[str, float] | None]:
        """Takes every lane to its next evaluation.

        Args:
          asked_to_stop: asked before each update; with an answer that is not None nothing is
            finished, and the result is {}.

        Returns:
          {place: the task's validation metrics}; None for a lane that is not finite.
        """
        waiting, found = collections.deque(), {}
        finite = [self._split(np.ones(self._width, bool)) for _ in self._states]
        hyper = [self._split({k: v[own] for k, v in self._hyper.items()}) for own in self._blocks()]
        while any(lane and lane.step < lane.target for lane in self.lanes):
            if asked_to_stop() is not None:
                return {}
            for block, own in enumerate(self._blocks()):
                batch, active = self._batch(own)
                if not active.any():
                    continue
                self._states[block], finite[block] = self._train(
                    self._states[block], hyper[block], self._split(batch), self._dataset,
                    self._split(active), finite[block],
                )  # fmt: skip
                waiting.append(finite[block])
                if len(waiting) > RUN_AHEAD:
                    jax.block_until_ready(waiting.popleft())
                for lane, moved in zip(self.lanes[own], active, strict=True):
                    if moved:
                        lane.step += 1
        for block, own in enumerate(self._blocks()):
            if any(self.lanes[own]):
                found |= self._evaluated(block, own, np.asarray(finite[block]))
        return found

    def _blocks(self) -> list[slice]:
        """The places of each block."""
        return [slice(i, i + self._width) for i in range(0, len(self.lanes), self._width)]

    def finished(self, place: int) -> bool:
        """Whether a lane has done all its updates; sets its next target if not."""
        lane = self.lanes[place]
        if lane.step >= self.experiment.steps:
            return True
        lane.target = self._next(lane.step)
        return False

    def state(self, place: int):
        """Returns a lane's state, as host arrays."""
        block, inside = divmod(place, self._width)
        return jax.tree.map(lambda x: np.array(x[inside]), self._states[block])

    def _next(self, step: int) -> int:
        return next(n for n in range(step + 1, self.experiment.steps + 1) if self._due.evaluates(n))

    def _batch(self, own: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The next training batch of a block, leaves [width, b], and which lanes take theirs."""
        size, lanes = self.experiment.config.batch_size, self.lanes[own]
        index = np.zeros((len(lanes), size), np.int32)
        epoch, active = np.zeros_like(index), np.zeros(len(lanes), bool)
        for place, (lane, order) in enumerate(zip(lanes, self._orders[own], strict=True)):
            if lane and lane.step < lane.target:
                active[place] = True
                index[place], epoch[place] = input_pipeline.indices(
                    lane.config.seed, self.experiment.train_examples, size, lane.step, order
                )
        return {'index': index, 'epoch': epoch, 'mask': np.ones(index.shape, np.float32)}, active

    def _evaluated(self, block: int, own: slice, finite: np.ndarray) -> dict:
        variables, total, batches = self._states[block].variables(), {}, []
        size = self.experiment.config.eval_batch_size
        for batch in input_pipeline.EvalPlan(self._validation_size, size, 1):
            evaluated = self._evaluate(variables, self._everywhere(batch), self._validation)
            sums, rows = jax.tree.map(np.asarray, evaluated)
            add(total, sums)
            if rows is not None:
                batches.append(rows)
        evaluations = {}
        for inside, lane in enumerate(self.lanes[own]):
            if lane:
                sums = {name: value[inside] for name, value in total.items()}
                own_rows = [{k: v[inside] for k, v in rows.items()} for rows in batches]
                rows = in_order(own_rows) if own_rows else None
                means = self._spec.task.summarize(sums, rows)
                sound = finite[inside] and np.isfinite(means['loss'])
                evaluations[own.start + inside] = means if sound else None
        return evaluations

    def _split(self, tree):
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec(LANES)))

    def _everywhere(self, tree):
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))


def most_lanes(config, train_split, device) -> int:
    """Returns how many lanes' states half of the memory holds, of the device or else of the host.

    Three times each: a new state is there before the old one goes, and one is on its way in.
    """
    experiment = from_split(config, train_split)
    leaves = jax.tree.leaves(experiment.abstract_state(experiment.spec()))
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    memory = memory_limit(device) or psutil.virtual_memory().available
    return max(1, int(memory / 2 / (3 * each)))


def _train(spec, state, hyper, batch, dataset, active, finite):
    """One lane's update, if it is active, and whether all its updates were finite so far."""
    new, metrics = train_step(spec, state, hyper, batch, dataset)
    sound = jnp.isfinite(metrics['loss']) & jnp.isfinite(metrics['grad_norm'])
    kept = jax.tree.map(lambda n, o: jnp.where(active, n, o), new, state)
    return kept, finite & (sound | ~active)


def _bytes(program) -> int:
    """What a lowered program takes of a device: compiles it."""
    found = program.compile().memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def _inserted(stacked, one, place):
    """The stacked states with one of them replaced."""
    return jax.tree.map(lambda many, x: many.at[place].set(x), stacked, one)
