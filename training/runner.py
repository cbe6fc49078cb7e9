"""Spreads the step over the devices: jax.pmap, or jax.jit of jax.shard_map.

The state is stored unstacked and replicated; batches are split along their first axis. Both
runners call the same step and give the same numbers (tests/training/test_runners.py).
"""

import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from errors import UserError
from training.step import StepSpec, eval_step, train_step

AXIS = 'batch'


class Runner:
    """Runs one StepSpec on some devices.

    Args:
      spec: the static part of the step.
      kind: 'pmap' or 'shard_map'.
      devices: all devices of all processes; every process must have equally many.
      detailed: whether evaluation also counts the confusion matrix.
    """

    def __init__(self, spec: StepSpec, kind: str, devices, detailed: bool = False):
        self.devices = list(devices)
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        train = functools.partial(train_step, spec, axis=AXIS)
        evaluate = functools.partial(eval_step, spec, axis=AXIS, detailed=detailed)
        if kind == 'pmap':
            # pmap sees this process's devices, and its arrays are this process's own.
            self._mesh = Mesh(np.array(self.local), (AXIS,))
            pmap = functools.partial(jax.pmap, axis_name=AXIS, devices=self.devices)
            self.train = pmap(train, in_axes=(None, None, 0, None), out_axes=(None, None),
                              donate_argnums=0)  # fmt: skip
            self.evaluate = pmap(evaluate, in_axes=(None, 0, None), out_axes=None)
            self._stack = True
        elif kind == 'shard_map':
            self._mesh = Mesh(np.array(self.devices), (AXIS,))
            one, split = PartitionSpec(), PartitionSpec(AXIS)
            shard = functools.partial(jax.shard_map, mesh=self._mesh)
            self.train = jax.jit(
                shard(train, in_specs=(one, one, split, one), out_specs=(one, one)),
                donate_argnums=0,
            )
            self.evaluate = jax.jit(shard(evaluate, in_specs=(one, split, one), out_specs=one))
            self._stack = False
        else:
            raise UserError(f'config.runner must be pmap or shard_map, not {kind!r}.')

    def replicate(self, tree):
        """Puts a tree of host arrays on every device, as the runner's calls take it."""
        sharding = NamedSharding(self._mesh, PartitionSpec())
        return jax.tree.map(lambda x: _put(sharding, np.asarray(x)), tree)

    def split(self, batch):
        """Puts this process's part of a batch on its devices, an equal share on each."""
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        if self._stack:
            count = len(self.local)
            batch = {k: x.reshape(count, -1, *x.shape[1:]) for k, x in batch.items()}
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, x)
            if not self._stack else jax.device_put(x, sharding), batch,
        )  # fmt: skip

    @staticmethod
    def fetch(tree):
        """Returns a replicated tree as host arrays; waits for it.

        Copies: on a CPU the array would be the device's own memory, which a later step reuses.
        """
        return jax.tree.map(lambda x: np.array(x.addressable_data(0)), tree)


def _put(sharding, array):
    """A replicated array; made from this process's copy where there are several processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_process_local_data(sharding, array, array.shape)
