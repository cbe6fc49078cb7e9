"""Which of several equal forms computes a layer: the one place that chooses, by platform and shape.

`config.lowering` overrides the choice. `python -m benchmarks.run --only=step` measures its effect.
"""

import dataclasses
from collections.abc import Callable

import jax

from models import convolution, pooling, winograd


@dataclasses.dataclass(frozen=True)
class Lowering:
    """How layers are computed: by which of several forms that give the same numbers.

    Values and gradients agree up to rounding. Where a window of max pooling has several equal
    maxima, one of them gets the gradient: the first, or with 'pairs' the uppermost of the leftmost
    column.

    Attributes:
      convolution: 'native', XLA's own; 'patches', matrix products; 'auto' chooses for each layer,
        among by_parts and winograd, too.
      pooling: the form of max pooling. 'place' remembers where maxima were, for windows side by
        side; 'pairs' compares shifted maps, and also serves windows that 'place' does not; 'window'
        is XLA's own; 'auto' chooses.
      reduction: the sums of norm layers: 'native'; 'wide', rows of several positions; 'auto'
        chooses.
    """

    convolution: str = 'auto'
    pooling: str = 'auto'
    reduction: str = 'auto'

    def sums_wide(self) -> bool:
        """Whether a norm layer sums wide rows."""
        return _takes(self.reduction, 'wide')

    def max_pool(
        self, x: jax.Array, shape: tuple[int, int], window: int, stride: int, padding: int
    ) -> jax.Array:
        """Returns the maxima of windows of x [b, h, w, c]: [b, *shape, c]."""
        if self._by_place() and window == stride and not padding:
            return pooling.by_place(x, shape, window, stacked=x.shape[-1] < ENOUGH_TO_COMPARE)
        form = pooling.by_window if self.pooling == 'window' else pooling.by_pairs
        return form(x, shape, window, stride, padding)

    def pools_first(self, channels: int) -> bool:
        """Whether max pooling precedes an activation, where both orders give the same numbers."""
        return self._by_place() and channels < ENOUGH_TO_COMPARE

    def _by_place(self) -> bool:
        return _takes(self.pooling, 'place')

    def convolve(
        self,
        x: jax.Array,
        kernel: jax.Array,
        stride: int,
        padding: int,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """Convolves x [b, h, w, c] with kernel [f, f, c, features]; adds the bias [features]."""
        height, width = convolution.result_size(x, kernel, stride, padding)
        form, tiled = self._form(kernel, stride, min(*x.shape[1:3], height, width)), {}
        if form is convolution.patches and _few(kernel):
            tiled['tile'] = _tile(width, kernel.shape[-1])
            if self.pools_first(kernel.shape[-1]):
                # If the bias is added here, the gradient of a pooling that follows is written once.
                tiled['bias'], bias = bias, None
        x = form(x, kernel, stride, padding, **tiled)
        return x if bias is None else x + bias

    def _form(self, kernel: jax.Array, stride: int, least: int) -> Callable:
        """Returns one of the forms; `least` is the shortest side of the input and the output."""
        if not _takes(self.convolution, 'patches'):
            return convolution.native
        window = kernel.shape[0]
        if window == 1:
            return convolution.pointwise
        if self.convolution == 'auto' and least > 1 and _many(kernel, stride):
            return winograd.winograd
        # XLA's CPU convolution, or its gradient, is 10 to 50 times slower where a map is smaller
        # than the window.
        if self.convolution == 'patches' or least < window or _few(kernel):
            return convolution.patches
        return convolution.by_parts


AUTO = Lowering()
# Needs to know no device, and supports forward differentiation, too.
NATIVE = Lowering('native', 'pairs', 'native')
# A vector register of AVX-512 holds 16 numbers: with fewer, XLA's CPU convolution leaves it partly
# empty and is 2 to 5 times slower. A matrix product needs four full registers.
FEW_CHANNELS, FEW_FEATURES, ENOUGH_COLUMNS = 8, 16, 64
# Alone, Winograd's form takes 1.4 times the time of by_parts with 64 channels, 0.9 times with 128
# and 0.6 times with 256 or more. In the whole step of ResNet-18, 128 are too few.
MANY_CHANNELS = 256
# On the CPU, max pooling's gradient by comparing positions takes half the time of stacking with 16
# channels, and 1.6 times that time with 6. Nothing in between was measured.
ENOUGH_TO_COMPARE = 8


def _takes(asked: str, form: str) -> bool:
    """Whether the form is the one asked for; 'auto' stands for it on CPUs."""
    return jax.default_backend() == 'cpu' if asked == 'auto' else asked == form


def _few(kernel: jax.Array) -> bool:
    """Whether a kernel [f, f, c, features] has few channels and features."""
    return kernel.shape[-2] <= FEW_CHANNELS and kernel.shape[-1] <= FEW_FEATURES


def _many(kernel: jax.Array, stride: int) -> bool:
    """Whether Winograd's form applies, and moves little data for what it multiplies.

    It does not serve half precision, whose rounding its differences of neighbors make worse.
    """
    exact = kernel.dtype.itemsize >= 4
    return winograd.serves(kernel, stride) and exact and min(kernel.shape[2:]) >= MANY_CHANNELS


def _tile(width: int, features: int) -> tuple[int, int]:
    """Returns how many rows and columns of outputs a patch serves where channels are few."""
    # A tile of one row keeps the map's numbers in order; one of two has fewer zeros in the kernel.
    return (1, 4) if 4 * features >= ENOUGH_COLUMNS and width % 4 == 0 else (2, 2)
