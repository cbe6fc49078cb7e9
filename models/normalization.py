"""Normalization layers, all called as norm(x, train, mask): batch, group and none."""

import fnmatch
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from models import reduction
from models.lowering import AUTO, Lowering


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype of statistics and logits: float32, or float64 where `dtype` is float64."""
    return jnp.promote_types(dtype, jnp.float32)


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last (Ioffe and Szegedy 2015, Algorithms 1 and 2).

    In training the statistics are those of the examples whose `mask` is 1, over all shards where
    `axis_name` names the mapped axis: shards of unequal counts give the global batch's statistics.
    The running variance is the unbiased one, n / (n - 1), as in Algorithm 2 and in PyTorch.
    Statistics are float32 whatever the compute dtype, because bfloat16 is too coarse for the sum
    over a batch.

    A layer whose scale and bias both match the globs `frozen` uses its running statistics in
    training, too, and does not change them.
    """

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None
    frozen: tuple[str, ...] = ()
    zero_init: bool = False
    lowering: Lowering = AUTO
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """[b, ..., c], mask [b] or None -> [b, ..., c] in `dtype`.

        With `train`, the collection 'batch_stats' must be mutable.
        """
        channels, stat_dtype = x.shape[-1:], at_least_float32(self.param_dtype)
        scale, bias = _scale_and_bias(self, channels)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, stat_dtype)
        running_var = self.variable('batch_stats', 'var', jnp.ones, channels, stat_dtype)

        x = x.astype(stat_dtype)
        wide = self.lowering.sums_wide()
        mean, var = running_mean.value, running_var.value
        center = mean
        if train and not self._is_frozen():
            # At initialisation no axis is mapped yet.
            axis_name = None if self.is_initializing() else self.axis_name
            mean, var, count = masked_moments(x, mask, axis_name, wide)
            center = lax.stop_gradient(mean)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                # A batch of nothing but padding does not change the running statistics.
                step = jnp.where(count > 0, 1 - self.momentum, 0)
                running_mean.value += step * (mean - running_mean.value)
                running_var.value += step * (unbiased - running_var.value)
        factor = lax.rsqrt(var + self.epsilon) * scale.astype(stat_dtype)
        # (x - mean) factor + bias. The mean's gradient goes through the offset, which has one
        # number for each channel, so that it costs no pass over x.
        offset = bias.astype(stat_dtype) + (center - mean) * factor
        if wide:
            factor, offset = (reduction.spread(vector, x.shape) for vector in (factor, offset))
        return ((x - center) * factor + offset).astype(self.dtype)

    def _is_frozen(self) -> bool:
        names = ['/'.join((*self.path, leaf)) for leaf in ('scale', 'bias')]
        return all(any(fnmatch.fnmatchcase(n, glob) for glob in self.frozen) for n in names)


def masked_moments(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None, wide: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean [c], biased variance [c] and count [] of x [b, ..., c] where mask [b] is 1.

    Two passes: E[x^2] - E[x]^2 cancels where the mean is far from 0. `wide`: see
    models/reduction.py.
    """
    if mask is None:
        mask = jnp.ones(x.shape[0], x.dtype)

    def total(values):
        values = reduction.masked_sum(values, mask, wide)
        return lax.psum(values, axis_name) if axis_name else values

    count = mask.astype(x.dtype).sum() * math.prod(x.shape[1:-1])
    count = lax.psum(count, axis_name) if axis_name else count
    divisor = jnp.maximum(count, 1)
    mean = total(x) / divisor
    # To first order the variance does not change with the mean, so no gradient goes that way.
    var = total(jnp.square(x - lax.stop_gradient(mean))) / divisor
    return mean, var, count


class GroupNorm(nn.Module):
    """Group normalization (Wu and He 2018): statistics of one example and one group of channels.

    There are 32 groups, as in section 4 of the paper; where 32 does not divide the number of
    channels, as many groups as their greatest common divisor. There are no running statistics, and
    examples do not depend on each other.
    """

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    zero_init: bool = False
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """[b, ..., c] -> [b, ..., c] in `dtype`; `train` and `mask` make no difference."""
        channels, stat_dtype = x.shape[-1], at_least_float32(self.param_dtype)
        scale, bias = _scale_and_bias(self, (channels,))
        groups = math.gcd(32, channels)
        grouped = x.astype(stat_dtype).reshape(x.shape[0], -1, groups, channels // groups)
        mean = grouped.mean((1, 3), keepdims=True)
        var = jnp.square(grouped - mean).mean((1, 3), keepdims=True)
        normal = ((grouped - mean) * lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        return (normal * scale.astype(stat_dtype) + bias.astype(stat_dtype)).astype(self.dtype)


def _scale_and_bias(module: nn.Module, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    first = nn.initializers.zeros if module.zero_init else nn.initializers.ones
    return (
        module.param('scale', first, shape, module.param_dtype),
        module.param('bias', nn.initializers.zeros, shape, module.param_dtype),
    )


class NoNorm(nn.Module):
    """No normalization: called like BatchNorm, it returns its input."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Returns x."""
        return x
