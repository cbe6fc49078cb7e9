"""Forms of max pooling that give the same numbers, each fast on some hardware.

x is [b, h, w, c] and the result [b, *shape, c], whose numbers are the maxima of windows. A NaN wins
in all forms. All are plain JAX without effects, and work under jit, pmap, shard_map, vmap and scan.
`models/lowering.py` chooses among them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def by_pairs(
    x: jax.Array, shape: tuple[int, int], window: int, stride: int, padding: int
) -> jax.Array:
    """Pools by comparing shifted maps: first the rows of a window, then its columns.

    Of several equal maxima, the uppermost of the leftmost column gets the gradient.
    """
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, around, constant_values=-jnp.inf) if padding else x
    below, right = ((n - 1) * stride + 1 for n in shape)
    x = functools.reduce(larger, (x[:, i : i + below : stride] for i in range(window)))
    return functools.reduce(larger, (x[:, :, i : i + right : stride] for i in range(window)))


def larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the elementwise maximum; of two equal ones the gradient goes to `a`.

    The gradients of jnp.max and jnp.maximum ask which element equals the maximum. XLA:CPU may
    compute the elements again for that, with a rounding other than that of the forward pass; then
    none is equal, and the gradient is lost, or 0 / 0. Asking which of two is larger avoids this.
    """
    return jnp.where(_wins(b, a), b, a)


def _wins(b: jax.Array, a: jax.Array) -> jax.Array:
    return (b > a) | jnp.isnan(b)


def by_window(
    x: jax.Array, shape: tuple[int, int], window: int, stride: int, padding: int
) -> jax.Array:
    """Pools by XLA's own operation, whose gradient is slow on the CPU."""
    del shape
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, sizes, strides, around)


def by_place(x: jax.Array, shape: tuple[int, int], window: int, stacked: bool) -> jax.Array:
    """Pools windows side by side, without padding; remembers where each maximum was.

    With `stacked` the gradient is assembled from a map for each position in a window; otherwise
    each of its elements compares its own position with that of the maximum.

    The gradient that JAX derives from comparisons pads and adds a map for each of them; this one
    writes each number once. Of several equal maxima the first, row by row, gets it. Only reverse
    mode is supported: jax.jvp refuses it, and needs `lowering.NATIVE`.
    """
    return _by_place(x[:, : shape[0] * window, : shape[1] * window], window, stacked)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _by_place(x: jax.Array, window: int, stacked: bool) -> jax.Array:
    del stacked  # for the gradient only
    windows = _windows(x, window)
    rows = functools.reduce(jnp.maximum, (windows[:, :, i] for i in range(window)))
    # XLA computes a reduction once, but comparisons again for each use of the maximum.
    return rows.max(3)


def _windows(x: jax.Array, window: int) -> jax.Array:
    """[b, height, width, c] -> [b, h, window, w, window, c]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // window, window, width // window, window, channels)


def _forward(x, window, stacked):
    return _by_place(x, window, stacked), _place(x, window)


def _place(x: jax.Array, window: int) -> jax.Array:
    """Returns where in its window each maximum is, as 0 to window^2 - 1, row by row."""
    windows = _windows(x, window)
    corners = [(i, j) for i in range(window) for j in range(window)]
    maximum, *others = (windows[:, :, i, :, j] for i, j in corners)
    place = jnp.zeros(maximum.shape, jnp.int32)
    for number, other in enumerate(others, 1):
        wins = _wins(other, maximum)
        maximum, place = jnp.where(wins, other, maximum), jnp.where(wins, number, place)
    return place


def _backward(window, stacked, place, gradient):
    batch, height, width, channels = gradient.shape
    whole = (_stacked if stacked else _compared)(place, gradient, window)
    return (whole.reshape(batch, height * window, width * window, channels),)


def _compared(place: jax.Array, gradient: jax.Array, window: int) -> jax.Array:
    """[b, h, w, c] -> [b, h, window, w, window, c]: compares each position with the place."""
    shape = 1, 1, window, 1, window, 1
    rows, columns = (lax.broadcasted_iota(place.dtype, shape, axis) for axis in (2, 4))
    here = place[:, :, None, :, None] == rows * window + columns
    return jnp.where(here, gradient[:, :, None, :, None], 0)


def _stacked(place: jax.Array, gradient: jax.Array, window: int) -> jax.Array:
    """The same as `_compared`, from one map for each position in a window."""
    maps = [jnp.where(place == number, gradient, 0) for number in range(window * window)]
    batch, height, width, channels = gradient.shape
    side_by_side = jnp.stack(maps, 3).reshape(batch, height, width, window, window, channels)
    return side_by_side.swapaxes(2, 3)


_by_place.defvjp(_forward, _backward)
