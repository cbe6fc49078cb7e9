"""Which of several equal forms computes a layer: the one place that chooses, by platform and shape.

`config.lowering` overrides it. `python -m benchmarks.run --only=step` measures what it is worth.
"""

import dataclasses
from collections.abc import Callable

import jax

from models import convolution, pooling, winograd


@dataclasses.dataclass(frozen=True)
class Lowering:
    """How layers are computed: by which of several forms that give the same numbers.

    Values agree to rounding. Gradients do as well; where a window of max pooling has several equal
    maxima, one of them gets it: the first, but by 'pairs' the first of the leftmost.

    Attributes:
      convolution: 'native', XLA's own; 'patches', matrix products; 'auto' chooses for each layer,
        also by_parts and winograd.
      pooling: of maxima: 'place', remembering where they were, for windows side by side; 'pairs',
        comparisons of shifted maps, also for the windows that 'place' leaves; 'window', XLA's own;
        'auto' chooses.
      reduction: sums of norm layers: 'native'; 'wide', rows of several positions; 'auto' chooses.
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
        """Takes the maxima of windows of x [b, h, w, c]: [b, *shape, c]."""
        if self._by_place() and window == stride and not padding:
            return pooling.by_place(x, shape, window, stacked=x.shape[-1] < ENOUGH_TO_COMPARE)
        form = pooling.by_window if self.pooling == 'window' else pooling.by_pairs
        return form(x, shape, window, stride, padding)

    def pools_first(self, channels: int) -> bool:
        """Whether max pooling comes before an activation that could as well come before it."""
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
                # The gradient of a pooling that comes next is written once if the bias joins here.
                tiled['bias'], bias = bias, None
        x = form(x, kernel, stride, padding, **tiled)
        return x if bias is None else x + bias

    def _form(self, kernel: jax.Array, stride: int, least: int) -> Callable:
        """Returns one of the forms; `least` is the shortest side of a map."""
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
# Asks no device what it is, and lets itself be differentiated forward, too.
NATIVE = Lowering('native', 'pairs', 'native')
# A vector register of AVX-512 holds 16 numbers: XLA's CPU convolution leaves it half empty with
# fewer, and is then 2 to 5 times slower. A matrix product wants four full.
FEW_CHANNELS, FEW_FEATURES, ENOUGH_COLUMNS = 8, 16, 64
# Alone, Winograd's form takes 1.4 times the time of by_parts with 64 channels, 0.9 with 128 and 0.6
# with 256 or more. In ResNet-18's whole step 128 are too few.
MANY_CHANNELS = 256
# On the CPU max pooling's gradient by comparing positions takes half the time of stacking with 16
# channels; with 6, 1.6 times that. What lies between was not measured.
ENOUGH_TO_COMPARE = 8


def _takes(asked: str, form: str) -> bool:
    """Whether this form is the one asked for; 'auto' asks for it on CPUs."""
    return jax.default_backend() == 'cpu' if asked == 'auto' else asked == form


def _few(kernel: jax.Array) -> bool:
    """Whether a kernel [f, f, c, features] has few channels and features."""
    return kernel.shape[-2] <= FEW_CHANNELS and kernel.shape[-1] <= FEW_FEATURES


def _many(kernel: jax.Array, stride: int) -> bool:
    """Whether Winograd's form can convolve and has little to move beside what it multiplies.

    Not with half precision, whose rounding its differences of neighbours make worse.
    """
    exact = kernel.dtype.itemsize >= 4
    return winograd.serves(kernel, stride) and exact and min(kernel.shape[2:]) >= MANY_CHANNELS


def _tile(width: int, features: int) -> tuple[int, int]:
    """How many outputs, rows and columns, one patch serves where channels and features are few."""
    # A tile of one row leaves the map's numbers in order; one of two has fewer zeros in the kernel.
    return (1, 4) if 4 * features >= ENOUGH_COLUMNS and width % 4 == 0 else (2, 2)
