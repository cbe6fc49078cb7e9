"""Collectives that are identities when there is no mapped axis (axis=None: one device)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHORT = 2**14  # elements up to which an array is sooner copied than waited for


def psum(tree, axis: str | None):
    """Sums every array of a tree over the axis."""
    if axis is None:
        return tree
    return _psum_joined(tree, axis) if jax.default_backend() == 'cpu' else lax.psum(tree, axis)


def _psum_joined(tree, axis: str):
    """The same sums, with all short arrays of a type as one.

    On a CPU the threads of all devices meet once for every array, which takes longer than a step of
    a small network; XLA joins arrays by itself on other devices only.
    """
    leaves, structure = jax.tree.flatten(tree)
    short = [place for place, leaf in enumerate(leaves) if leaf.size <= SHORT]
    groups = [[place] for place in range(len(leaves)) if place not in short]
    for dtype in {leaves[place].dtype: None for place in short}:
        groups.append([place for place in short if leaves[place].dtype == dtype])
    for group in groups:
        parts = [leaves[place] for place in group]
        total = lax.psum(jnp.concatenate([part.ravel() for part in parts]), axis)
        ends = np.cumsum([part.size for part in parts])[:-1]
        for place, part, own in zip(group, parts, jnp.split(total, ends), strict=True):
            leaves[place] = own.reshape(part.shape)
    return jax.tree.unflatten(structure, leaves)


def pmean(tree, axis: str | None):
    """Averages every array of a tree over the axis."""
    return tree if axis is None else lax.pmean(tree, axis)


def index(axis: str | None):
    """This device's place on the axis."""
    return 0 if axis is None else lax.axis_index(axis)


def varying(tree, axis: str | None):
    """Marks replicated values as this device's own.

    Under `shard_map(check_vma=True)` the gradient by a replicated value is already a sum over
    devices, and summing it again gives N times too much, silently. The gradient by a varying value
    is this device's part, under every runner.
    """
    if axis is None:
        return tree
    return jax.tree.map(lambda x: lax.pcast(x, axis, to='varying'), tree)
