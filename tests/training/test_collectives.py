"""Sums over devices: joined where that is faster, and the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from training import collectives

DEVICES = 4
LONG = collectives.SHORT + 1


def make_tree():
    draw = np.random.default_rng(0)
    shapes = {'a': (3, 5), 'b': (), 'c': (LONG,), 'd': (0, 2), 'e': (collectives.SHORT,), 'f': (7,)}
    tree = {k: draw.normal(size=(DEVICES, *v)).astype(np.float32) for k, v in shapes.items()}
    tree['counts'] = [draw.integers(2**30, size=(DEVICES, *v)).astype(np.int32) for v in ((), (2,))]
    tree['half'] = tree['a'].astype(jnp.bfloat16)
    return tree


def summed(psum):
    return jax.vmap(psum, axis_name='axis')(make_tree())


def test_joined_sums_are_those_of_each_array():
    expected = summed(lambda tree: jax.tree.map(lambda x: lax.psum(x, 'axis'), tree))
    found = summed(lambda tree: collectives.psum(tree, 'axis'))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)


def test_devices_meet_once_for_each_type_and_long_array():
    def f(tree):
        return collectives.psum(tree, 'axis')

    tree = jax.tree.map(lambda x: x[0], make_tree())
    jaxpr = jax.make_jaxpr(f, axis_env=[('axis', DEVICES)])(tree)
    sizes = [e.invars[0].aval.size for e in jaxpr.eqns if e.primitive.name.startswith('psum')]
    assert sorted(sizes) == sorted([LONG, 15 + 1 + collectives.SHORT + 7, 3, 15])


def test_without_an_axis_nothing_is_summed():
    tree = make_tree()
    assert collectives.psum(tree, None) is tree
