"""The layers that all networks here are made of, each with its source.

Images and feature maps are [batch, height, width, channels]. Weights start from the same
distribution everywhere: He normal, a truncated normal of variance 2 / fan_in (He, Zhang, Ren and
Sun 2015, "Delving deep into rectifiers", section 2.2), and biases start from zero.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from errors import UserError


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draws weights [..., in, out] from He's normal distribution, cut at two standard deviations.

    The same numbers as flax's he_normal, drawn flat: for the CPU, XLA takes seconds to compile a
    draw of four dimensions, and a tenth of that for one.
    """
    fan_in = math.prod(shape[:-1])
    # 0.8796 is the standard deviation of a unit normal cut at +-2, which this makes up for.
    scale = math.sqrt(2 / fan_in) / 0.87962566103423978
    draw = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
    return draw.reshape(shape) * scale


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype of statistics and logits: float32, or float64 where `dtype` is float64."""
    return jnp.promote_types(dtype, jnp.float32)


def output_size(size: int, window: int, stride: int, padding: int, layer: str) -> int:
    """Returns floor((N + 2P - F) / S) + 1, the size a window of F leaves of N.

    Raises UserError, showing the sum, where the window does not fit even once.
    """
    span = size + 2 * padding - window
    if span < 0:
        raise UserError(
            f'the image is too small: {layer} slides a window of {window} over {size} pixels, and '
            f'(N + 2P - F) / S + 1 = ({size} + 2 x {padding} - {window}) / {stride} + 1 is below 1.'
        )
    return span // stride + 1


class Conv(nn.Module):
    """A two-dimensional convolution with `padding` zeros on each of the four sides.

    Strictly a cross-correlation, as everywhere in deep learning. Raises UserError, with the
    arithmetic, where the window does not fit.
    """

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, c] -> [b, h', w', features], h' as `output_size` gives it."""
        height, width = (
            output_size(n, self.window, self.stride, self.padding, self.name) for n in x.shape[1:3]
        )
        shape = (self.window, self.window, x.shape[-1], self.features)
        kernel = self.param('kernel', he_normal, shape, self.param_dtype).astype(self.dtype)
        x = x.astype(self.dtype)
        # XLA's CPU convolution, or its gradient, is 10 to 50 times slower where a map is smaller
        # than the window; matrix products are fast there on every device.
        if min(height, width, *x.shape[1:3]) < self.window:
            x = convolve_patches(x, kernel, self.stride, self.padding)
        else:
            padding = [(self.padding, self.padding)] * 2
            layout = ('NHWC', 'HWIO', 'NHWC')
            x = lax.conv_general_dilated(x, kernel, [self.stride] * 2, padding, None, None, layout)
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,), self.param_dtype)
            x = x + bias.astype(self.dtype)
        return x


def convolve_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Computes a convolution as one matrix product of all patches with the kernel.

    x [b, h, w, c], kernel [f, f, c, features] -> [b, h', w', features].

    The patches are a matrix [b h' w', f f c]: left in four dimensions, the product's gradient with
    respect to the kernel comes out wrong under pmap and shard_map on the CPU with jax 0.10.1
    (tests/models/test_synchronised_batch_norm.py fails).
    """
    window = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    below, right = (n - window + 1 for n in x.shape[1:3])
    patches = jnp.concatenate(
        [
            x[:, i : i + below : stride, j : j + right : stride]
            for i in range(window)
            for j in range(window)
        ],
        axis=-1,
    )
    product = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return product.reshape(*patches.shape[:3], -1)


class Dropout(nn.Module):
    """Sets each element to 0 with probability `rate`, and scales the others by 1 / (1 - rate).

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", in
    the form that leaves evaluation alone. `rate` is in [0, 1) and may be a traced scalar, which
    flax's own module refuses; it draws from the rng stream 'dropout'. A Python 0 needs no rng.
    """

    rate: Any = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Any shape -> the same shape and dtype; the input itself where `train` is false."""
        if not train or (isinstance(self.rate, int | float) and self.rate == 0):
            return x
        compute = at_least_float32(x.dtype)
        keep = 1 - jnp.asarray(self.rate, compute)
        # uniform() is in [0, 1), so that a traced rate of 0 keeps every element, and divides by 1.
        # Drawn flat, as the weights are, for the sake of compile time.
        draw = jax.random.uniform(self.make_rng('dropout'), (x.size,), compute).reshape(x.shape)
        return jnp.where(draw < keep, x.astype(compute) / keep, 0).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015, Algorithms 1 and 2).

    In training the statistics are those of the examples whose `mask` is 1, of all shards where
    `axis_name` names the mapped axis: shards of unequal counts give the global batch's statistics.
    The running variance is the unbiased one, n / (n - 1), as in Algorithm 2 and in PyTorch.
    Statistics are float32 whatever the compute dtype, because bfloat16 cannot sum a batch.
    """

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """[b, ..., c], mask [b] or None -> [b, ..., c] in `dtype`.

        With `train`, the collection 'batch_stats' has to be mutable.
        """
        channels, stat_dtype = x.shape[-1:], at_least_float32(self.param_dtype)
        scale = self.param('scale', nn.initializers.ones, channels, self.param_dtype)
        bias = self.param('bias', nn.initializers.zeros, channels, self.param_dtype)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, stat_dtype)
        running_var = self.variable('batch_stats', 'var', jnp.ones, channels, stat_dtype)

        x = x.astype(stat_dtype)
        mean, var = running_mean.value, running_var.value
        if train:
            # At initialisation no axis is mapped yet.
            axis_name = None if self.is_initializing() else self.axis_name
            mean, var, count = masked_moments(x, mask, axis_name)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                # A batch of nothing but padding says nothing about the running statistics.
                step = jnp.where(count > 0, 1 - self.momentum, 0)
                running_mean.value += step * (mean - running_mean.value)
                running_var.value += step * (unbiased - running_var.value)
        factor = lax.rsqrt(var + self.epsilon) * scale.astype(stat_dtype)
        return ((x - mean) * factor + bias.astype(stat_dtype)).astype(self.dtype)


def masked_moments(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean [c], biased variance [c] and count [] of x [b, ..., c] where mask [b] is 1.

    Two passes: E[x^2] - E[x]^2 cancels where the mean is far from 0.
    """
    over = tuple(range(x.ndim - 1))
    if mask is None:
        mask = jnp.ones(x.shape[0], x.dtype)
    weight = mask.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    positions = math.prod(x.shape[1:-1])

    def total(values):
        return lax.psum(values, axis_name) if axis_name else values

    count = total(mask.astype(x.dtype).sum() * positions)
    divisor = jnp.maximum(count, 1)
    mean = total((weight * x).sum(over)) / divisor
    var = total((weight * jnp.square(x - mean)).sum(over)) / divisor
    return mean, var, count


class NoNorm(nn.Module):
    """The absent normalisation: called like BatchNorm, it gives its input back."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Returns x."""
        return x


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Makes a network's layers, so that all share its dtypes, mapped axis and initialisation.

    A plain object rather than a module: a layer belongs to the module that is set up when it is
    made, so a block can be handed its network's factory.
    """

    dtype: Any
    param_dtype: Any
    dropout_rate: Any
    axis_name: str | None

    def conv(
        self, features: int, window: int, stride: int = 1, padding: int = 0, use_bias: bool = True
    ) -> Conv:
        """Makes a convolution with `padding` zeros on each of the four sides."""
        return Conv(features, window, stride, padding, use_bias, self.dtype, self.param_dtype)

    def dense(self, features: int) -> nn.Dense:
        """Makes a fully connected layer."""
        return nn.Dense(
            features, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=he_normal
        )

    def norm(self, kind: str = 'batch') -> nn.Module:
        """Makes the normalisation layer `kind`, 'batch' or 'none'; all networks ask here."""
        if kind == 'none':
            return NoNorm()
        return BatchNorm(self.dtype, self.param_dtype, self.axis_name)

    def dropout(self) -> Dropout:
        """Makes a dropout layer."""
        return Dropout(self.dropout_rate)


def activate(x: jax.Array, kind: str) -> jax.Array:
    """Applies the activation `kind`, 'relu' or 'tanh', to each element."""
    return {'relu': nn.relu, 'tanh': jnp.tanh}[kind](x)


def pool(x: jax.Array, kind: str, window: int = 2) -> jax.Array:
    """Takes the maximum ('max') or mean ('average') over windows that lie side by side.

    [b, h, w, c] -> [b, floor(h / window), floor(w / window), c]: a remainder below and at the right
    is dropped. Raises UserError where no window fits.

    Not by reduce_window, whose gradient is slow on the CPU. The values are the same; of several
    equal maxima the first gets the gradient.
    """
    height, width = (output_size(n, window, window, 0, 'pooling') for n in x.shape[1:3])
    x = x[:, : height * window, : width * window]
    x = x.reshape(x.shape[0], height, window, width, window, x.shape[-1])
    if kind != 'max':
        return x.mean((2, 4))
    rows = functools.reduce(larger, (x[:, :, i] for i in range(window)))
    return functools.reduce(larger, (rows[:, :, :, i] for i in range(window)))


def larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the elementwise maximum; of two equal ones the gradient goes to `a`.

    The gradients of jnp.max and jnp.maximum ask which element equals the maximum. XLA:CPU may
    compute the elements anew for that, rounded differently than in the forward pass, and then no
    element does: the gradient is lost, or 0 / 0. Which of two is larger does not depend on that.
    """
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def pad_to_windows(x: jax.Array, window: int = 2) -> jax.Array:
    """Pads [b, h, w, c] below and at the right with -inf, to whole windows of max pooling.

    Pooling the result gives ceil(h / window), as PyTorch's `ceil_mode` does: no pixel is dropped.
    """
    below, right = (-n % window for n in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), constant_values=-jnp.inf)


def global_pool(x: jax.Array, kind: str) -> jax.Array:
    """Takes the maximum ('max') or mean ('average') over all positions: [b, h, w, c] -> [b, c]."""
    if kind != 'max':
        return x.mean((1, 2))
    # By place, for the reason that `larger` gives.
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    return jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1)[:, 0]
