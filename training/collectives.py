"""Collectives that are identities when there is no mapped axis (axis=None: one device)."""

import jax
from jax import lax


def psum(tree, axis: str | None):
    """Sums every array of a tree over the axis."""
    return tree if axis is None else lax.psum(tree, axis)


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
