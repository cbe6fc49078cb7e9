"""The first layers of ResNet and DenseNet, for large and for small images."""

from typing import Any

import flax.linen as nn
import jax

from models.declaration import option
from models.layers import LayerFactory

# stem -> (window, stride, padding) of the convolution. 'imagenet' also pools, at stride 2.
STEMS = {'imagenet': (7, 2, 3), 'cifar': (3, 1, 1), 'mnist': (3, 2, 1)}


class Stem(nn.Module):
    """Convolution, norm, ReLU; `pool` is the overlapping max pooling that ends a large stem.

    Total stride 4 for 'imagenet', 1 for 'cifar', 2 for 'mnist'.
    """

    layer: LayerFactory
    filters: int
    kind: str
    normalization: str

    def setup(self) -> None:
        """Makes the layers."""
        window, stride, padding = STEMS[self.kind]
        self.conv = self.layer.conv(self.filters, window, stride, padding, use_bias=False)
        self.norm = self.layer.norm(self.normalization)
        if self.kind == 'imagenet':
            self.max_pool = self.layer.pool('max', window=3, stride=2, padding=1)

    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """[b, h, w, c] -> [b, h', w', filters], before pooling."""
        return nn.relu(self.norm(self.conv(x), train, mask))

    def pool(self, x: jax.Array) -> jax.Array:
        """Pools the map of a large image; the identity for small images."""
        return self.max_pool(x) if self.kind == 'imagenet' else x


def stem_option() -> Any:
    """Returns the field of the option `stem`."""
    return option(
        'imagenet', 'First layers, for large images (imagenet) or small ones (cifar, mnist).'
    )
