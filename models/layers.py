"""The layers of all networks here, each with its source.

Images and feature maps are [batch, height, width, channels]. Weights start from the same
distribution everywhere: He normal, a truncated normal of variance 2 / fan_in (He, Zhang, Ren and
Sun 2015, "Delving deep into rectifiers", section 2.2), and biases start from zero.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.arithmetic import output_size
from models.declaration import option
from models.lowering import AUTO, Lowering
from models.normalization import BatchNorm, GroupNorm, NoNorm, at_least_float32


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draws weights [..., in, out] from He's normal distribution, cut at two standard deviations.

    The numbers are those of flax's he_normal, but drawn flat: on the CPU, XLA takes seconds to
    compile a draw in four dimensions, and a tenth of that in one.
    """
    fan_in = math.prod(shape[:-1])
    # 0.8796 is the standard deviation of a unit normal cut at +-2, which this compensates for.
    scale = math.sqrt(2 / fan_in) / 0.87962566103423978
    draw = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
    return draw.reshape(shape) * scale


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draws weights [..., in, out] uniformly from -1 / sqrt(fan_in) to 1 / sqrt(fan_in).

    Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 1; PyTorch's default. Its variance is a sixth of He's.
    """
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)


INITIALIZATIONS = {'he': he_normal, 'uniform': uniform}


class Conv(nn.Module):
    """A two-dimensional convolution with `padding` zeros on each of the four sides.

    Strictly speaking a cross-correlation, as everywhere in deep learning.

    Raises:
      UserError: the window does not fit into the map; shows the arithmetic.
    """

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    lowering: Lowering = AUTO
    kernel_init: Callable = he_normal
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, c] -> [b, h', w', features], where `output_size` gives h' and w'."""
        map_size(self, x)
        shape = (self.window, self.window, x.shape[-1], self.features)
        kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype).astype(self.dtype)
        bias = None
        if self.use_bias:
            bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype)
            bias = bias.astype(self.dtype)
        x = x.astype(self.dtype)
        return self.lowering.convolve(x, kernel, self.stride, self.padding, bias)


class Scale(nn.Module):
    """Multiplies by one learned number, which starts from 1; what comes out is float32 at least."""

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape -> the same shape."""
        scale = self.param('scale', nn.initializers.ones, (1,), self.param_dtype)
        dtype = at_least_float32(x.dtype)
        return x.astype(dtype) * scale.astype(dtype)


class Dropout(nn.Module):
    """Sets each element to 0 with probability `rate`, and scales the others by 1 / (1 - rate).

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", in
    the form that leaves evaluation alone. `rate` is in [0, 1) and may be a traced scalar, which
    flax's own module refuses. Random numbers come from the stream 'dropout'; a Python 0 needs none.
    """

    rate: Any = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Any shape -> the same shape and dtype; the input itself where `train` is false."""
        if not train or (isinstance(self.rate, int | float) and self.rate == 0):
            return x
        compute = at_least_float32(x.dtype)
        keep = 1 - jnp.asarray(self.rate, compute)
        # uniform() is in [0, 1), so that a traced rate of 0 keeps every element and divides by 1.
        # Drawn flat, as the weights are, to save compile time.
        draw = jax.random.uniform(self.make_rng('dropout'), (x.size,), compute).reshape(x.shape)
        return jnp.where(draw < keep, x.astype(compute) / keep, 0).astype(x.dtype)


class StochasticDepth(nn.Module):
    """Sets whole examples to 0 with probability `rate`, and scales the others by 1 / (1 - rate).

    On the residual branch of a block it makes the depth random (Huang, Sun, Liu, Sedra and
    Weinberger 2016, "Deep networks with stochastic depth"). Random numbers come from the stream
    'dropout'.
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[b, ...] -> the same; the input itself where `train` is false or the rate is 0."""
        if not train or self.rate == 0:
            return x
        draw = jax.random.uniform(self.make_rng('dropout'), (x.shape[0],))
        keep = (draw < 1 - self.rate).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)


def activate(x: jax.Array, kind: str) -> jax.Array:
    """Applies the activation `kind`, 'relu' or 'tanh', to each element."""
    return {'relu': nn.relu, 'tanh': jnp.tanh}[kind](x)


def activation_option() -> Any:
    """Returns the field of the option `activation`, for networks that call `activate`."""
    return option('relu', 'Nonlinearity after each hidden layer, relu or tanh.')


class Pool(nn.Module):
    """The maximum ('max') or mean ('average') over windows; no parameters.

    A remainder at the bottom and on the right is dropped, unless `ceil` pads it to a whole window,
    as PyTorch's `ceil_mode` does. Only 'max' may have padding, which never wins. Windows of
    averages lie side by side.

    Raises:
      UserError: no window fits into the map; shows the arithmetic.
    """

    kind: str
    window: int = 2
    stride: int = 2
    padding: int = 0
    ceil: bool = False
    lowering: Lowering = AUTO

    @nn.compact
    def __call__(
        self, x: jax.Array, activation: str | None = None, before: jax.Array | None = None
    ) -> jax.Array:
        """[b, h, w, c] -> [b, h', w', c].

        Args:
          x: the map.
          activation: what has made x of `before`, if that is given. Where both orders give the same
            numbers and the other one is faster, `before` is pooled and then activated.
          before: the map before its activation.
        """
        # ReLU is monotonic: the larger of two numbers stays the larger one, or both become equal.
        monotonic = self.kind == 'max' and activation == 'relu'
        if before is not None and monotonic and self.lowering.pools_first(x.shape[-1]):
            return activate(self._pool(before), activation)
        return self._pool(x)

    def _pool(self, x: jax.Array) -> jax.Array:
        if self.ceil:
            if self.kind != 'max' or self.stride != self.window or self.padding:
                raise ValueError(
                    'ceil belongs to max pooling of windows side by side, without padding'
                )
            x = pad_to_windows(x, self.window)
        height, width = map_size(self, x)
        if self.kind == 'max':
            arguments = (height, width), self.window, self.stride, self.padding
            return self.lowering.max_pool(x, *arguments)
        if self.stride != self.window or self.padding:
            raise ValueError('windows of averages must lie side by side, without padding')
        x = x[:, : height * self.window, : width * self.window]
        return x.reshape(x.shape[0], height, self.window, width, self.window, -1).mean((2, 4))


class AdaptivePool(nn.Module):
    """Pools a map of any size to size x size, by PyTorch's rule.

    Row i is the mean of rows floor(i h / size) to ceil((i + 1) h / size) - 1. Size 1 is global
    pooling, whose result is flat; 'max' supports size 1 only.
    """

    kind: str
    size: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, c] -> [b, size, size, c], or [b, c] for size 1."""
        if self.size == 1:
            return global_pool(x, self.kind)
        if self.kind == 'max':
            raise ValueError('adaptive pooling to more than one position must be by average')
        if x.shape[1:3] == (self.size, self.size):
            return x
        rows, columns = (jnp.asarray(_averages(n, self.size), x.dtype) for n in x.shape[1:3])
        return jnp.einsum('bhwc,yh,xw->byxc', x, rows, columns)


def _averages(size: int, bins: int) -> np.ndarray:
    """Returns [bins, size], each row the weights of one bin."""
    weights = np.zeros((bins, size))
    for i, (start, stop) in enumerate(adaptive_bins(size, bins)):
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def adaptive_bins(size: int, bins: int) -> list[tuple[int, int]]:
    """Returns (start, stop) of each bin of adaptive pooling; bins may overlap."""
    return [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]


def map_size(layer: Conv | Pool, x: jax.Array) -> tuple[int, int]:
    """Returns (height, width) of a convolution or pooling layer's result for x [b, h, w, c].

    A border that the stride does not reach is dropped.

    Raises:
      UserError: no window fits; shows the arithmetic.
    """
    where = '/'.join(layer.path) or type(layer).__name__
    arguments = layer.window, layer.stride, layer.padding, 'floor', where
    return output_size(x.shape[1], *arguments), output_size(x.shape[2], *arguments)


def pad_to_windows(x: jax.Array, window: int = 2) -> jax.Array:
    """Pads [b, h, w, c] at the bottom and on the right with -inf, to whole windows of max pooling.

    Pooling the result gives ceil(h / window) rows, as PyTorch's `ceil_mode` does, and drops no
    pixel.
    """
    below, right = (-n % window for n in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), constant_values=-jnp.inf)


def global_pool(x: jax.Array, kind: str) -> jax.Array:
    """Takes the maximum ('max') or mean ('average') over all positions: [b, h, w, c] -> [b, c]."""
    if kind != 'max':
        return x.mean((1, 2))
    # By the place of the maximum, for the reason that `pooling.larger` gives.
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    return jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1)[:, 0]


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Makes a network's layers, so that all share its dtypes, mapped axis and initialization.

    A plain object rather than a module: a layer belongs to the module in whose `setup` it is made,
    so that a block or a head can use its network's factory.
    """

    dtype: Any
    param_dtype: Any
    dropout_rate: Any = 0.0
    axis_name: str | None = None
    frozen: tuple[str, ...] = ()
    lowering: Lowering = AUTO
    initialization: str = 'he'

    def conv(
        self,
        features: int,
        window: int,
        stride: int = 1,
        padding: int = 0,
        use_bias: bool = True,
        kernel_init: Callable | None = None,
        bias_init: Callable = nn.initializers.zeros,
    ) -> Conv:
        """Makes a convolution with `padding` zeros on each of the four sides.

        `kernel_init` is for layers whose source says how kernels start; None is as everywhere.
        """
        first = kernel_init or INITIALIZATIONS[self.initialization], bias_init
        kinds = self.dtype, self.param_dtype, self.lowering
        return Conv(features, window, stride, padding, use_bias, *kinds, *first)

    def dense(self, features: int) -> nn.Dense:
        """Makes a fully connected layer."""
        return nn.Dense(
            features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=INITIALIZATIONS[self.initialization],
        )

    def norm(self, kind: str = 'batch', zero_init: bool = False) -> nn.Module:
        """Makes the normalization layer `kind`: 'batch', 'group' or 'none'.

        With `zero_init` its scale starts from zero, so that a residual block starts as the
        identity (Goyal et al. 2017, "Accurate, large minibatch SGD", section 5.1).
        """
        if kind == 'none':
            return NoNorm()
        if kind == 'group':
            return GroupNorm(self.dtype, self.param_dtype, zero_init)
        fields = self.dtype, self.param_dtype, self.axis_name, self.frozen, zero_init
        return BatchNorm(*fields, lowering=self.lowering)

    def scale(self) -> Scale:
        """Makes a layer that multiplies by one learned number."""
        return Scale(self.param_dtype)

    def pool(
        self,
        kind: str,
        window: int = 2,
        stride: int | None = None,
        padding: int = 0,
        ceil: bool = False,
    ) -> Pool:
        """Makes a pooling layer; the stride is the window's size unless it is given."""
        return Pool(kind, window, stride or window, padding, ceil, self.lowering)

    def adaptive_pool(self, kind: str = 'average', size: int = 1) -> AdaptivePool:
        """Makes a layer that pools maps of any size to size x size; size 1 is global pooling."""
        return AdaptivePool(kind, size)

    def stochastic_depth(self, rate: float) -> StochasticDepth:
        """Makes a layer that sets its whole input to zero for some examples."""
        return StochasticDepth(rate)

    def dropout(self) -> Dropout:
        """Makes a dropout layer."""
        return Dropout(self.dropout_rate)
