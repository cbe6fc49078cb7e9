"""Which of several equal forms computes a layer: the one place that chooses, by platform and shape.

`config.lowering` overrides it. `python -m benchmarks.run --only=step` measures what it is worth.
"""

import dataclasses

import jax

from models import convolution, pooling


@dataclasses.dataclass(frozen=True)
class Lowering:
    """How layers are computed: by which of several forms that give the same numbers.

    Values agree to rounding. Gradients do as well; where a window of max pooling has several equal
    maxima, one of them gets it: the first, but by 'pairs' the first of the leftmost.

    Attributes:
      convolution: 'native', XLA's own; 'patches', matrix products; 'auto' chooses for each layer.
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

    def convolve(self, x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
        """Convolves x [b, h, w, c] with kernel [f, f, c, features]."""
        window, _, channels, features = kernel.shape
        height, width = ((n + 2 * padding - window) // stride + 1 for n in x.shape[1:3])
        form = self.convolution
        if form == 'auto':
            # XLA's CPU convolution, or its gradient, is 10 to 50 times slower where a map is
            # smaller than the window, and 2 to 5 times where channels and features are few.
            tiny = min(*x.shape[1:3], height, width) < window
            few = channels <= FEW_CHANNELS and features <= FEW_FEATURES
            form = 'patches' if tiny or few else 'by_parts'
            form = form if jax.default_backend() == 'cpu' else 'native'
        if form == 'native':
            return convolution.native(x, kernel, stride, padding)
        if window == 1 and not padding:
            return convolution.pointwise(x, kernel, stride)
        if form == 'by_parts':
            return convolution.by_parts(x, kernel, stride, padding)
        return convolution.patches(x, kernel, stride, padding, _block(width, channels, features))


AUTO = Lowering()
# Asks no device what it is, and lets itself be differentiated forward, too.
NATIVE = Lowering('native', 'pairs', 'native')
# A vector register of AVX-512 holds 16 numbers: with fewer, XLA's convolution leaves it half empty,
# and a matrix product wants four of them full.
FEW_CHANNELS, FEW_FEATURES, ENOUGH_COLUMNS = 8, 16, 64
# On the CPU max pooling's gradient by comparing positions takes half the time of stacking with 16
# channels; with 6, 1.6 times that. What lies between was not measured.
ENOUGH_TO_COMPARE = 8


def _takes(asked: str, form: str) -> bool:
    """Whether this form is the one asked for; 'auto' asks for it on CPUs."""
    return jax.default_backend() == 'cpu' if asked == 'auto' else asked == form


def _block(width: int, channels: int, features: int) -> int:
    """How many outputs of a row one patch serves; divides the width."""
    if channels > FEW_CHANNELS:
        return 1
    divisors = [n for n in range(1, 9) if width % n == 0]
    return next((n for n in divisors if n * features >= ENOUGH_COLUMNS), divisors[-1])
