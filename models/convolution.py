"""Forms of a two-dimensional convolution that give the same numbers, each fast somewhere.

x is [b, h, w, c], kernel [f, f, c, features], the result [b, h', w', features]. All of them are
plain JAX, without effects, and work under jit, pmap, shard_map, vmap and scan. `models/lowering.py`
chooses.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A convolution that computes a kernel's gradient is fast up to so many positions of its input. More
# parts than so many take too long to compile.
ENOUGH_POSITIONS, MOST_PARTS = 2048, 64
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def native(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's own convolution."""
    around = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, [stride] * 2, around, dimension_numbers=_LAYOUT)


def pointwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A 1x1 convolution without padding: one matrix product over all positions."""
    x = x[:, ::stride, ::stride]
    product = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[-2:])
    return product.reshape(*x.shape[:3], -1)


def patches(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, block: int = 1
) -> jax.Array:
    """One matrix product of all patches with the kernel; a patch serves `block` outputs of a row.

    With a block of 1 this is the usual im2col. A wider patch, of (block - 1) stride + f columns,
    meets a kernel that is repeated along a diagonal band, [f columns c, block features]: some of
    the products are with zeros, but the matrices are large where c and the features are few, and
    there is less to copy. (A NaN spreads to all outputs of its patch.) `block` divides w'.

    The patches are a matrix [b h' w' / block, ...]: left in four dimensions, the product's gradient
    with respect to the kernel comes out wrong under pmap and shard_map on the CPU with jax 0.10.1
    (tests/models/test_synchronised_batch_norm.py fails).
    """
    window, features = kernel.shape[0], kernel.shape[-1]
    height, width = ((n + 2 * padding - window) // stride + 1 for n in x.shape[1:3])
    columns = (block - 1) * stride + window
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    starts = range(0, width * stride, block * stride)
    strips = jnp.stack([x[:, :, j : j + columns].reshape(*x.shape[:2], -1) for j in starts], 2)
    below = (height - 1) * stride + 1
    rows = jnp.concatenate([strips[:, i : i + below : stride] for i in range(window)], axis=-1)
    band = jnp.einsum('ujv,ijcn->iucvn', jnp.asarray(_band(block, window, stride), x.dtype), kernel)
    product = rows.reshape(-1, rows.shape[-1]) @ band.reshape(-1, block * features)
    return product.reshape(x.shape[0], height, width, features)


def _band(block: int, window: int, stride: int) -> np.ndarray:
    """[columns, window, block]: 1 where a column of a patch is column j of output v's window."""
    band = np.zeros(((block - 1) * stride + window, window, block))
    for v in range(block):
        for j in range(window):
            band[v * stride + j, j, v] = 1
    return band


def by_parts(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's own convolution, with the kernel's gradient summed over parts of the batch.

    That gradient is a convolution in which the examples are the channels and the map is the window.
    XLA's CPU backend is up to four times as fast where it sums over few positions: a part is some
    examples or, where maps are large, some rows of one. Reverse mode alone: jax.jvp refuses, and
    `lowering.NATIVE` serves it.
    """
    return _by_parts(x, _varying_as(kernel, x), stride, padding)


def _varying_as(value: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the value, for JAX one of each device's own if x is that (under shard_map).

    A gradient that we compute ourselves is that of the device alone. JAX sums it over the devices
    where it made the value each device's own; the branch that is never taken makes it do so.
    """
    return jnp.where(False, lax.stop_gradient(x.reshape(-1)[0]).astype(value.dtype), value)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_parts(x, kernel, stride, padding):
    return native(x, kernel, stride, padding)


def _forward(x, kernel, stride, padding):
    return native(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, gradient):
    x, kernel = saved
    by_input = jax.linear_transpose(lambda x: native(x, kernel, stride, padding), x)
    around = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    window, sums = kernel.shape[0], []
    for examples, rows in parts(*x.shape[:3], gradient.shape[1]):
        its_gradient = gradient[examples, rows]
        top, height = rows.start * stride, (its_gradient.shape[1] - 1) * stride + window
        part = around[examples, top : top + height]
        by_kernel = jax.linear_transpose(
            lambda kernel, part=part: native(part, kernel, stride, 0), kernel
        )
        sums.append(by_kernel(its_gradient)[0])
    return by_input(gradient)[0], functools.reduce(jnp.add, sums)


def parts(batch: int, height: int, width: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Yields slices of the examples and of the result's rows; together they cover all once.

    Args:
      batch, height, width: of the convolution's input.
      rows: of its result.
    """
    count = min(-(-batch * height * width // ENOUGH_POSITIONS), MOST_PARTS)
    examples, band = -(-batch // min(count, batch)), -(-rows // max(1, count // batch))
    for start in range(0, batch, examples):
        for top in range(0, rows, band):
            yield slice(start, start + examples), slice(top, top + band)


_by_parts.defvjp(_forward, _backward)
