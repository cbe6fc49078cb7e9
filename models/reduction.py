"""Sums over all axes but the last, as norm layers need them, and how gradients are summed.

XLA's CPU backend takes three times as long over the sum of a product, such as
`jnp.square(x).sum((0, 1, 2))`, as over the sum of a choice, `jnp.where(mask, jnp.square(x), 0)`. A
matrix product with ones is faster still where channels are many.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

# A product with one row of ones would be fused with what it sums, which is the slow form again.
_ROWS = 8
# Products add up in order; sums of parts as long as this are rounded less than that.
_LONGEST = 1024


def masked_sum(values: jax.Array, mask: jax.Array, products: bool) -> jax.Array:
    """Returns the sum of values [b, ..., c] of the examples where mask [b] is not 0: [c].

    Args:
      products: by matrix products, in place of XLA's reduction; reverse mode alone.
    """
    shape = values.shape[:-1]
    if products and math.prod(shape) >= _ROWS:
        weights = (mask != 0).astype(values.dtype)
        return _weighted_sum(values, jnp.broadcast_to(_beside(weights, len(shape)), shape))
    kept = jnp.where(_beside(mask != 0, values.ndim), values, 0)
    return kept.sum(tuple(range(len(shape))))


def _beside(vector: jax.Array, ndim: int) -> jax.Array:
    """[b] -> [b, 1, ...] of so many axes."""
    return vector.reshape(-1, *[1] * (ndim - 1))


@jax.custom_vjp
def _weighted_sum(values, weights):
    rows = weights.size
    length = max(n for n in range(1, min(rows, _LONGEST) + 1) if rows % n == 0)
    left = jnp.broadcast_to(weights.reshape(-1, 1, length), (rows // length, _ROWS, length))
    parts = left @ values.reshape(rows // length, length, -1)
    return parts[:, 0].sum(0)


def _weighted_sum_forward(values, weights):
    return _weighted_sum(values, weights), weights


def _weighted_sum_backward(weights, gradient):
    # As a product, which JAX would make of it, it could not be fused with what comes next.
    return weights[..., None] * gradient, jnp.zeros_like(weights)


_weighted_sum.defvjp(_weighted_sum_forward, _weighted_sum_backward)


def spread(vector: jax.Array, x: jax.Array) -> jax.Array:
    """[c] -> the shape of x [..., c]; the gradient is summed by products. Reverse mode alone."""
    return _spread(varying_as(vector, x), x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _spread(vector, shape):
    return jnp.broadcast_to(vector, shape)


def _spread_forward(vector, shape):
    return _spread(vector, shape), None


def _spread_backward(shape, _, gradient):
    return (masked_sum(gradient, jnp.ones(shape[0], gradient.dtype), products=True),)


_spread.defvjp(_spread_forward, _spread_backward)


def varying_as(value: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the value, for JAX one of each device's own if x is that (under shard_map).

    A gradient that we compute ourselves is that of the device alone. JAX sums it over the devices
    where it made the value each device's own; the branch that is never taken makes it do so.
    """
    return jnp.where(False, lax.stop_gradient(x.reshape(-1)[0]).astype(value.dtype), value)
