"""A 3x3 convolution of stride 1 by Winograd's minimal filtering F(2x2, 3x3).

A tile of 2x2 outputs takes 16 products instead of 36. Along one axis, the outputs y of data d and
kernel g are

    m = (d0 - d2) g0, (d1 + d2) (g0 + g1 + g2) / 2, (d2 - d1) (g0 - g1 + g2) / 2, (d1 - d3) g2
    y = m0 + m1 + m2, m1 - m2 - m3

and the same applies along the other axis. Each of the 16 is a matrix product [tiles, c] x
[c, features]: where channels are many, these take most of the time, elsewhere moving the tiles
does. (Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308,
section 4.1.) `models/lowering.py` chooses this form.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from models.convolution import result_size

# The places of a kernel's sums in the list that the kernel turned by 180 degrees would give.
_TURNED = (3, 1, 2, 0)


def serves(kernel: jax.Array, stride: int) -> bool:
    """Whether this form applies to a convolution with such a kernel and stride."""
    return kernel.shape[:2] == (3, 3) and stride == 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def winograd(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolves x [b, h, w, c] with kernel [3, 3, c, features], stride 1: [b, h', w', features].

    In float32 it differs from XLA's own by about 1e-6 of the largest value. (A NaN spreads to all
    outputs of its tiles.) Only reverse mode is supported: jax.jvp refuses it, and needs
    `lowering.NATIVE`.

    Raises:
      ValueError: another kernel or stride.
    """
    if not serves(kernel, stride):
        raise ValueError(f'needs a 3x3 kernel and stride 1, not {kernel.shape[:2]} and {stride}')
    return _convolve(x, kernel, padding)


def _convolve(x, kernel, padding):
    shape = (x.shape[0], *result_size(x, kernel, 1, padding), kernel.shape[-1])
    products = [d @ g for d, g in zip(_data(x, padding, shape), _kernels(kernel), strict=True)]
    return _outputs(products, shape)


def _forward(x, kernel, stride, padding):
    return winograd(x, kernel, stride, padding), (x, kernel)


def _backward(_, padding, saved, gradient):
    x, kernel = saved
    # The gradient with respect to x is a convolution with the turned kernel, from features to
    # channels. Multiplying with transposed matrices is fast; writing a transposed kernel of 512
    # channels takes XLA longer than all the products.
    kernels = _kernels(kernel)
    turned = [kernels[4 * i + j] for i in _TURNED for j in _TURNED]
    data = _data(gradient, 2 - padding, x.shape)
    by_input = _outputs([d @ g.T for d, g in zip(data, turned, strict=True)], x.shape)
    by_kernel = jax.linear_transpose(lambda kernel: _convolve(x, kernel, padding), kernel)
    return by_input, by_kernel(gradient)[0]


winograd.defvjp(_forward, _backward)


def _data(x: jax.Array, padding: int, shape: tuple[int, ...]) -> list[jax.Array]:
    """Returns the 16 sums of x that are multiplied, [tiles, c]; shape is the result's."""
    sizes = zip(shape[1:3], x.shape[1:3], strict=True)
    ends = [2 * _tiles(outputs) + 2 - padding - size for outputs, size in sizes]
    around = ((0, 0, 0), *((padding, end, 0) for end in ends), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    return [
        sums.reshape(-1, x.shape[-1]) for rows in _data_along(x, 1) for sums in _data_along(rows, 2)
    ]


def _data_along(x: jax.Array, axis: int) -> list[jax.Array]:
    last = x.shape[axis] - 3
    d = [lax.slice_in_dim(x, start, start + last, 2, axis) for start in range(4)]
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _kernels(kernel: jax.Array) -> list[jax.Array]:
    """Returns the 16 sums of the kernel that are multiplied, [c, features]."""
    return [sums for rows in _kernels_along(kernel) for sums in _kernels_along(rows)]


def _kernels_along(kernel: jax.Array) -> list[jax.Array]:
    """Returns the sums along the first axis, which they no longer have."""
    outer, middle = (kernel[0] + kernel[2]) / 2, kernel[1] / 2
    return [kernel[0], outer + middle, outer - middle, kernel[2]]


def _outputs(products: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Returns the result, of this shape, from the 16 products [tiles, features]."""
    batch, height, width, features = shape
    rows, columns = _tiles(height), _tiles(width)
    m = [product.reshape(batch, rows, columns, features) for product in products]
    along_width = [_outputs_along(m[i : i + 4]) for i in range(0, 16, 4)]
    y = [_outputs_along(column) for column in zip(*along_width, strict=True)]
    # y[j][i] is row i and column j of each tile.
    y = jnp.stack([jnp.stack(row, axis=3) for row in zip(*y, strict=True)], axis=2)
    return y.reshape(batch, 2 * rows, 2 * columns, features)[:, :height, :width]


def _outputs_along(m: list[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _tiles(size: int) -> int:
    """Returns how many tiles of two outputs cover `size` of them."""
    return -(-size // 2)
