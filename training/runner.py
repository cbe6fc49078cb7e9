"""Spreads the step over the devices: jax.pmap, or jax.jit of jax.shard_map.

The state is stored unstacked and replicated; batches are split along their axis of examples. Both
runners call the same step and give the same numbers (tests/training/test_runners.py). `train` does
one update a call, `train_many` several.
"""

import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from errors import UserError
from training.spec import StepSpec
from training.step import eval_step, train_step

AXIS = 'batch'
# Calls under way at a time. It bounds memory, and more would let XLA's CPU collectives starve each
# other: with many virtual devices and no bound they hang.
RUN_AHEAD = 2


class Program:
    """A function over the devices that is compiled once, when told to or when first called.

    Calls go to the function itself and not to the compiled object, which in a pmap over several
    processes does not know how to join their arrays. JAX finds the compiled program in its cache.
    """

    def __init__(self, mapped):
        self._mapped, self._compiled = mapped, None

    @property
    def compiled(self) -> jax.stages.Compiled | None:
        """What `compile` made; None before."""
        return self._compiled

    def compile(self, *arguments) -> None:
        """Compiles for arguments like these, and runs nothing; the first time only."""
        if self._compiled is None:
            self._compiled = self._mapped.lower(*arguments).compile()

    def __call__(self, *arguments):
        """Calls the function, compiled if that has not been done."""
        self.compile(*arguments)
        return self._mapped(*arguments)

    def lower(self, *arguments) -> jax.stages.Lowered:
        """As of a function under jax.jit."""
        return self._mapped.lower(*arguments)


class Runner:
    """Runs one StepSpec on some devices.

    `train(state, hyper, batch, dataset)` gives (next state, metrics) and takes the state's memory;
    `train_many` is the same for batches that `split_many` placed, metrics [k].
    `evaluate(variables, batch, dataset)` gives (sums, rows). See training/step.py.

    Args:
      spec: the static part of the step.
      kind: 'pmap' or 'shard_map'.
      devices: all devices of all processes; every process must have equally many.
      detailed: whether evaluation also sums up what only a report needs.
    """

    def __init__(self, spec: StepSpec, kind: str, devices, detailed: bool = False):
        self.spec, self.devices = spec, list(devices)
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        train = functools.partial(train_step, spec, axis=AXIS)
        many = functools.partial(_train_many, spec)
        evaluate = functools.partial(eval_step, spec, axis=AXIS, detailed=detailed)
        if kind == 'pmap':
            # pmap sees this process's devices, and its arrays are this process's own.
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
        """Returns XLA's {'flops', 'bytes'} of one update, all devices together.

        Both are None where nothing is compiled or XLA does not say. The body of a loop counts
        once, so that the program of several updates tells the cost of one.
        """
        compiled = next((p.compiled for p in self._programs if p.compiled), None)
        found = (compiled.cost_analysis() if compiled else None) or {}
        each = {'flops': found.get('flops'), 'bytes': found.get('bytes accessed')}
        return {k: None if v is None else v * len(self.devices) for k, v in each.items()}

    def replicate(self, tree):
        """Puts a tree of host arrays on every device, as the runner's calls take it."""
        sharding = NamedSharding(self._mesh, PartitionSpec())
        return jax.tree.map(lambda x: _put(sharding, np.asarray(x)), tree)

    def split(self, batch):
        """Puts this process's part of a batch on its devices, an equal share on each."""
        return self._split(batch, axis=0)

    def split_many(self, batches: list):
        """The same for the batches of one call of `train_many`, stacked: leaves [k, ...]."""
        return self._split(jax.tree.map(lambda *x: np.stack(x), *batches), axis=1)

    def _split(self, batch, axis: int):
        sharding = NamedSharding(self._mesh, PartitionSpec(*[None] * axis, AXIS))
        count = len(self.local)

        def put(x):
            if not self._stack:
                return jax.make_array_from_process_local_data(sharding, x)
            return jax.device_put(
                x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :]), sharding
            )

        return jax.tree.map(put, batch)

    @staticmethod
    def fetch(tree, into=None):
        """Returns a replicated tree as host arrays; waits for it.

        Copies: on a CPU the array would be the device's own memory, which a later step reuses.

        Args:
          into: what an earlier call gave for a tree of the same shapes, to be written over and
            returned: memory that the system has handed out already takes a copy far sooner.
        """
        if into is None:
            return jax.tree.map(lambda x: np.array(x.addressable_data(0)), tree)
        jax.tree.map(lambda old, x: np.copyto(old, np.asarray(x.addressable_data(0))), into, tree)
        return into

    def fetch_rows(self, rows):
        """Returns this process's rows of an evaluation as host arrays [b, ...]; None for None."""

        def own(array):
            shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            blocks = [np.asarray(shard.data) for shard in shards]
            if self._stack:  # pmap's shards are [1, b, ...]
                blocks = [block.reshape(-1, *block.shape[2:]) for block in blocks]
            return np.concatenate(blocks)

        return jax.tree.map(own, rows)


def _train_many(spec: StepSpec, state, hyper, batches, dataset):
    """Several updates: leaves of `batches` are [k, b, ...]; the metrics come back as [k]."""

    def update(state, batch):
        return train_step(spec, state, hyper, batch, dataset, AXIS)

    return jax.lax.scan(update, state, batches)


def _put(sharding, array):
    """A replicated array; made from this process's copy where there are several processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_process_local_data(sharding, array, array.shape)
