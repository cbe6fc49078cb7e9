"""Forms of a two-dimensional convolution that give the same numbers, each fast on some hardware.

x is [b, h, w, c], kernel [f, f, c, features], the result [b, h', w', features]. All forms are plain
JAX without effects, and work under jit, pmap, shard_map, vmap and scan. `models/lowering.py`
chooses among them.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from models.arithmetic import output_size

# The convolution that computes a kernel's gradient is fast up to this many positions of its input,
# and more than this many parts take too long to compile.
ENOUGH_POSITIONS, MOST_PARTS = 2048, 64
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def result_size(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[int, int]:
    """Returns (h', w')."""
    height, width = (
        output_size(n, kernel.shape[0], stride, padding, 'floor') for n in x.shape[1:3]
    )
    return height, width


def native(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's own convolution."""
    around = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, [stride] * 2, around, dimension_numbers=_LAYOUT)


def pointwise(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """A 1x1 convolution: one matrix product over all positions."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, around)[:, ::stride, ::stride]
    product = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[-2:])
    return product.reshape(*x.shape[:3], -1)


def patches(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: int,
    tile: tuple[int, int] = (1, 1),
    bias: jax.Array | None = None,
) -> jax.Array:
    """One matrix product of all patches with the kernel; a patch serves a tile of outputs.

    With a tile of one output this is the usual im2col. A larger patch, whose sides are (n - 1)
    stride + f, is multiplied with a kernel that is placed in it once for each output: some products
    are with zeros, but the matrices are large where c and the features are few, and there is less
    to copy. (A NaN spreads to all outputs of its patch.) The bias [features] is added if it is
    given.

    The patches are a matrix [b h' w' / outputs, ...]: in four dimensions, the product's gradient
    with respect to the kernel is wrong under pmap and shard_map on the CPU with jax 0.10.1
    (tests/models/test_synchronized_batch_norm.py fails).
    """
    window, _, channels, features = kernel.shape
    height, width = result_size(x, kernel, stride, padding)
    grid = -(-height // tile[0]), -(-width // tile[1])
    step = tile[0] * stride, tile[1] * stride
    rows, columns = ((n - 1) * stride + window for n in tile)
    patch = _patches(x, padding, grid, step, (rows, columns))
    placed = [
        jnp.pad(kernel, ((i, rows - window - i), (j, columns - window - j), (0, 0), (0, 0)))
        for i in range(0, step[0], stride)
        for j in range(0, step[1], stride)
    ]
    size = rows * columns * channels
    product = patch.reshape(-1, size) @ jnp.stack(placed, axis=3).reshape(size, -1)
    if bias is not None:
        product = product + jnp.tile(bias, len(placed))
    tiles = product.reshape(x.shape[0], *grid, *tile, features).swapaxes(2, 3)
    whole = tiles.reshape(x.shape[0], grid[0] * tile[0], grid[1] * tile[1], features)
    return whole[:, :height, :width]


def _patches(
    x: jax.Array,
    padding: int,
    grid: tuple[int, int],
    step: tuple[int, int],
    shape: tuple[int, int],
) -> jax.Array:
    """Returns [b, *grid, *shape, c]: patches of padded x, each a step from the next.

    They are assembled from cells of the size of a step, so that their gradient is a sum of shifted
    cells; that of patches cut directly from x would be a sum of maps with gaps.
    """
    batch, *sizes, channels = x.shape
    pieces = [-(-n // s) for n, s in zip(shape, step, strict=True)]
    cells = [n + p - 1 for n, p in zip(grid, pieces, strict=True)]
    ends = [n * s - padding - size for n, s, size in zip(cells, step, sizes, strict=True)]
    around = ((0, 0, 0), *((padding, end, 0) for end in ends), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    x = x.reshape(batch, cells[0], step[0], cells[1], step[1], channels).swapaxes(2, 3)
    starts = range(pieces[1])
    x = [x[:, :, j : j + grid[1], :, : shape[1] - j * step[1]] for j in starts]
    x = jnp.concatenate(x, axis=4)
    starts = range(pieces[0])
    return jnp.concatenate(
        [x[:, i : i + grid[0], :, : shape[0] - i * step[0]] for i in starts], axis=3
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def by_parts(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's own convolution, with the kernel's gradient summed over parts of the batch.

    That gradient is a convolution in which the examples are the channels and the map is the window.
    XLA's CPU backend is up to four times as fast where it sums over few positions, so a part is a
    few examples or, where maps are large, a few rows of one. Only reverse mode is supported:
    jax.jvp refuses it, and needs `lowering.NATIVE`.
    """
    return native(x, kernel, stride, padding)


def _forward(x, kernel, stride, padding):
    return native(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, gradient):
    x, kernel = saved
    by_input = jax.linear_transpose(lambda x: native(x, kernel, stride, padding), x)
    around = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    window, sums = kernel.shape[0], []
    for examples, rows in parts(*x.shape[:3], gradient.shape[1]):
        of_part = gradient[examples, rows]
        top, height = rows.start * stride, (of_part.shape[1] - 1) * stride + window
        part = around[examples, top : top + height]
        by_kernel = jax.linear_transpose(
            lambda kernel, part=part: native(part, kernel, stride, 0), kernel
        )
        sums.append(by_kernel(of_part)[0])
    return by_input(gradient)[0], functools.reduce(jnp.add, sums)


def parts(batch: int, height: int, width: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Yields slices of the examples and of the result's rows, which together cover all once.

    Args:
      batch, height, width: the sizes of the convolution's input.
      rows: how many its result has.
    """
    count = min(-(-batch * height * width // ENOUGH_POSITIONS), MOST_PARTS)
    examples, band = -(-batch // min(count, batch)), -(-rows // max(1, count // batch))
    for start in range(0, batch, examples):
        for top in range(0, rows, band):
            yield slice(start, start + examples), slice(top, top + band)


by_parts.defvjp(_forward, _backward)
