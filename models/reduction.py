"""Sums over all axes but the last, as norm layers need them.

XLA's CPU backend sums more than 32 rows in parts of 32, and is fastest where rows are long. The
channels of one position are a short row, and it does not split axes of up to 32 at all:
`jnp.square(x).sum((0, 1, 2))` takes up to nine times as long. So here several positions stand side
by side in a row, and are added up last.
"""

import math

import jax
import jax.numpy as jnp

# How many numbers are a long row.
_LONG = 512
# XLA pads any other number of rows to whole parts, which takes up to 1.7 times as long.
_PART = 32


def masked_sum(values: jax.Array, mask: jax.Array, wide: bool) -> jax.Array:
    """Returns the sum [c] of values [b, ..., c] over the examples whose mask [b] is not 0.

    Args:
      values: [b, ..., c].
      mask: [b].
      wide: whether to sum wide rows, instead of XLA's own sum over several axes.
    """
    kept = jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)) != 0, values, 0)
    if not wide:
        return kept.sum(tuple(range(values.ndim - 1)))
    beside, channels = side_by_side(values.shape), values.shape[-1]
    return kept.reshape(-1, beside * channels).sum(0).reshape(beside, channels).sum(0)


def spread(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns the vector [c] repeated to shape [..., c]; its gradient is summed in wide rows."""
    row = jnp.tile(vector, side_by_side(shape))
    return jnp.broadcast_to(row, (math.prod(shape) // row.size, row.size)).reshape(shape)


def side_by_side(shape: tuple[int, ...]) -> int:
    """Returns how many positions of an array [..., c] are a wide row, a divisor of their number.

    It is two or more where possible: XLA sees through rows of one, and sums over the axes again.
    """
    positions, channels = math.prod(shape[:-1]), shape[-1]
    enough = max(2, -(-_LONG // channels))
    divisors = [n for n in range(1, min(positions, 8 * enough) + 1) if positions % n == 0]
    good = [n for n in divisors if n >= enough and positions // n % _PART == 0]
    return min(good, default=max(n for n in divisors if n <= enough))
