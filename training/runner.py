"""Runs the step on several devices: by jax.pmap, or by jax.jit of jax.shard_map.

The state is stored unstacked and replicated; batches are split along their axis of examples. Both
runners call the same step and give the same numbers (tests/training/test_runners.py). `train` does
one update per call, `train_many` several.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from errors import UserError
from tasks.task import Batch, Hyper, Sums
from training.collectives import Tree
from training.spec import StepSpec
from training.state import TrainState
from training.step import eval_step, train_step

AXIS = 'batch'
# How many calls may be under way. The bound limits memory. Without one, XLA's CPU collectives on
# many virtual devices starve each other and hang.
RUN_AHEAD = 2


class Program:
    """A function over the devices that is compiled once, by `compile` or by its first call.

    Calls go to the function and not to the compiled object, which in a pmap over several processes
    cannot join their arrays. JAX finds the compiled program in its cache.
    """

    def __init__(self, mapped: Callable[..., Any]):
        self._mapped, self._compiled = mapped, None

    @property
    def compiled(self) -> jax.stages.Compiled | None:
        """The compiled program; None before it is compiled."""
        return self._compiled

    def compile(self, *arguments: Any) -> None:
        """Compiles for arguments like these, without a call; only the first time."""
        if self._compiled is None:
            self._compiled = self._mapped.lower(*arguments).compile()

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function, and compiles it first if that has not been done."""
        self.compile(*arguments)
        return self._mapped(*arguments)

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """Lowers the function for arguments like these, as under jax.jit."""
        return self._mapped.lower(*arguments)


class Runner:
    """Runs one StepSpec on some devices.

    `train(state, hyper, batch, dataset)` returns (next state, metrics) and takes the state's
    memory. `train_many` does the same for batches that `split_many` placed; its metrics are [k].
    `evaluate(variables, batch, dataset)` returns (sums, rows). See training/step.py.

    Args:
      spec: the static part of the step.
      kind: 'pmap' or 'shard_map'.
      devices: all devices of all processes; every process must have the same number.
      detailed: whether evaluation also sums up what only a report needs.
    """

    def __init__(
        self, spec: StepSpec, kind: str, devices: Sequence[jax.Device], detailed: bool = False
    ):
        self.spec, self.devices = spec, list(devices)
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        train = functools.partial(train_step, spec, axis=AXIS)
        many = functools.partial(_train_many, spec)
        evaluate = functools.partial(eval_step, spec, axis=AXIS, detailed=detailed)
        if kind == 'pmap':
            # pmap's arrays hold the parts of this process's devices only.
            self._mesh = Mesh(np.array(self.local), (AXIS,))
            pmap = functools.partial(jax.pmap, axis_name=AXIS, devices=self.devices)
            update = functools.partial(pmap, out_axes=(None, None), donate_argnums=0)
            self.train = Program(update(train, in_axes=(None, None, 0, None)))
            self.train_many = Program(update(many, in_axes=(None, None, 1, None)))
            self.evaluate = pmap(evaluate, in_axes=(None, 0, None), out_axes=(None, 0))
            self._stack = True
        elif kind == 'shard_map':
            self._mesh = Mesh(np.array(self.devices), (AXIS,))
            one, split, second = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)
            shard = functools.partial(jax.shard_map, mesh=self._mesh)
            update = functools.partial(jax.jit, donate_argnums=0)
            both = functools.partial(shard, out_specs=(one, one))
            self.train = Program(update(both(train, in_specs=(one, one, split, one))))
            self.train_many = Program(update(both(many, in_specs=(one, one, second, one))))
            evaluate = shard(evaluate, in_specs=(one, split, one), out_specs=(one, split))
            self.evaluate = jax.jit(evaluate)
            self._stack = False
        else:
            raise UserError(f'config.runner must be pmap or shard_map, not {kind!r}.')
        self._programs = (self.train, self.train_many)

    def cost(self) -> dict[str, float | None]:
        """Returns {'flops', 'bytes'} of one update by XLA's count, all devices together.

        Both are None if nothing is compiled or XLA does not tell. XLA counts the body of a loop
        once, so the program of several updates has the cost of one.
        """
        compiled = next((p.compiled for p in self._programs if p.compiled), None)
        analysis = (compiled.cost_analysis() if compiled else None) or {}
        each = {'flops': analysis.get('flops'), 'bytes': analysis.get('bytes accessed')}
        return {k: None if v is None else v * len(self.devices) for k, v in each.items()}

    def replicate(self, tree: Tree) -> Tree:
        """Puts a tree of host arrays on every device, as the runner's calls take it."""
        sharding = NamedSharding(self._mesh, PartitionSpec())
        return jax.tree.map(lambda x: _put(sharding, np.asarray(x)), tree)

    def split(self, batch: Tree) -> Tree:
        """Puts this process's part of a batch on its devices, the same number of rows on each."""
        return self._split(batch, axis=0)

    def split_many(self, batches: Sequence[Tree]) -> Tree:
        """Stacks the batches of one call of `train_many`, leaves [k, ...], and splits them."""
        return self._split(jax.tree.map(lambda *x: np.stack(x), *batches), axis=1)

    def _split(self, batch: Tree, axis: int) -> Tree:
        """Splits a tree of arrays along one axis over the devices of this process."""
        sharding = NamedSharding(self._mesh, PartitionSpec(*[None] * axis, AXIS))
        count = len(self.local)

        def put(x: np.ndarray) -> jax.Array:
            if not self._stack:
                return jax.make_array_from_process_local_data(sharding, x)
            return jax.device_put(
                x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :]), sharding
            )

        return jax.tree.map(put, batch)

    @staticmethod
    def fetch(tree: Tree, into: Tree | None = None) -> Tree:
        """Returns a replicated tree as host arrays, when it has been computed.

        The arrays are copies. On a CPU they would otherwise be the device's own memory, which a
        later step reuses.

        Args:
          tree: arrays on the devices.
          into: the result of an earlier call for a tree of the same shapes, which is overwritten
            and returned. Copying into memory that the system has already provided is much faster.
        """
        if into is None:
            return jax.tree.map(lambda x: np.array(x.addressable_data(0)), tree)
        jax.tree.map(lambda old, x: np.copyto(old, np.asarray(x.addressable_data(0))), into, tree)
        return into

    def fetch_rows(self, rows: Tree) -> Tree:
        """Returns this process's rows of an evaluation as host arrays [b, ...]; None for None."""

        def own_rows(array: jax.Array) -> np.ndarray:
            shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            blocks = [np.asarray(shard.data) for shard in shards]
            if self._stack:  # pmap's shards are [1, b, ...]
                blocks = [block.reshape(-1, *block.shape[2:]) for block in blocks]
            return np.concatenate(blocks)

        return jax.tree.map(own_rows, rows)


def _train_many(
    spec: StepSpec, state: TrainState, hyper: Hyper, batches: Batch, dataset: Batch
) -> tuple[TrainState, Sums]:
    """Does several updates: leaves of `batches` are [k, b, ...], and the metrics are [k]."""

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        return train_step(spec, state, hyper, batch, dataset, AXIS)

    return jax.lax.scan(update, state, batches)


def _put(sharding: NamedSharding, array: np.ndarray) -> jax.Array:
    """Returns a replicated array, made from each process's own copy."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_process_local_data(sharding, array, array.shape)
