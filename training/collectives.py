"""Collectives that are identities if there is no mapped axis (axis=None: one device)."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHORT = 2**14  # elements up to which copying an array is faster than a collective of its own

Tree = TypeVar('Tree')  # a pytree of arrays


def psum(tree: Tree, axis: str | None) -> Tree:
    """Sums every array of a tree over the axis."""
    if axis is None:
        return tree
    return _psum_joined(tree, axis) if jax.default_backend() == 'cpu' else lax.psum(tree, axis)


def _psum_joined(tree: Tree, axis: str) -> Tree:
    """Computes the same sums, but joins all short arrays of a type into one.

    On a CPU the threads of all devices meet once for every array, which takes longer than a step of
    a small network. XLA joins arrays by itself only on other devices.
    """
    leaves, structure = jax.tree.flatten(tree)
    short = [i for i, leaf in enumerate(leaves) if leaf.size <= SHORT]
    groups = [[i] for i in range(len(leaves)) if i not in short]
    for dtype in {leaves[i].dtype: None for i in short}:
        groups.append([i for i in short if leaves[i].dtype == dtype])
    for group in groups:
        arrays = [leaves[i] for i in group]
        total = lax.psum(jnp.concatenate([array.ravel() for array in arrays]), axis)
        ends = np.cumsum([array.size for array in arrays])[:-1]
        for i, array, summed in zip(group, arrays, jnp.split(total, ends), strict=True):
            leaves[i] = summed.reshape(array.shape)
    return jax.tree.unflatten(structure, leaves)


def pmean(tree: Tree, axis: str | None) -> Tree:
    """Averages every array of a tree over the axis."""
    return tree if axis is None else lax.pmean(tree, axis)


def index(axis: str | None) -> jax.Array | int:
    """Returns this device's index on the axis."""
    return 0 if axis is None else lax.axis_index(axis)


def varying(tree: Tree, axis: str | None) -> Tree:
    """Marks replicated values as values of this device.

    Under `shard_map(check_vma=True)` the gradient by a replicated value is already a sum over the
    devices; summed again, it would be N times too large, without an error. The gradient by a
    varying value is that of this device's examples, under every runner.
    """
    if axis is None:
        return tree
    return jax.tree.map(lambda x: lax.pcast(x, axis, to='varying'), tree)
