"""DenseNet: Huang, Liu, van der Maaten and Weinberger 2016, "Densely connected convolutional
networks", table 1: DenseNet-BC with bottlenecks and halving transitions. densenet121 has 7,978,856
parameters at 224x224x3 and 1000 classes.
"""

from collections import OrderedDict
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.declaration import option
from models.layers import LayerFactory
from models.network import Network, remat_option, width_option
from models.stem import Stem, stem_option

# depth -> (layers in each of the four blocks, growth rate).
BLOCKS = {
    121: ((6, 12, 24, 16), 32),
    161: ((6, 12, 36, 24), 48),
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
}
BOTTLENECK = 4  # filters of a 1x1 convolution for each channel of the growth rate


class DenseLayer(nn.Module):
    """Appends `growth` channels: norm, ReLU, 1x1; norm, ReLU, 3x3; dropout (section 3)."""

    layer: LayerFactory
    growth: int
    normalization: str

    def setup(self) -> None:
        """Makes the layers."""
        self.norm1 = self.layer.norm(self.normalization)
        self.conv1 = self.layer.conv(BOTTLENECK * self.growth, 1, use_bias=False)
        self.norm2 = self.layer.norm(self.normalization)
        self.conv2 = self.layer.conv(self.growth, 3, padding=1, use_bias=False)
        self.dropout = self.layer.dropout()

    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """[b, h, w, c] -> [b, h, w, c + growth]."""
        new = self.conv1(nn.relu(self.norm1(x, train, mask)))
        new = self.conv2(nn.relu(self.norm2(new, train, mask)))
        return jnp.concatenate([x, self.dropout(new, train)], axis=-1)


class Transition(nn.Module):
    """Norm, ReLU, 1x1 convolution to half the channels, 2x2 average pooling."""

    layer: LayerFactory
    features: int
    normalization: str

    def setup(self) -> None:
        """Makes the layers."""
        self.norm = self.layer.norm(self.normalization)
        self.conv = self.layer.conv(self.features, 1, use_bias=False)
        self.pool = self.layer.pool('average')

    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """[b, h, w, c] -> [b, h / 2, w / 2, features], rounded down."""
        return self.pool(self.conv(nn.relu(self.norm(x, train, mask))))


class DenseNet(Network):
    """A stem, four dense blocks with transitions between, norm, global pooling, a dense layer.

    Stages of densenet121 at 224x224: stem 112x112x64 (before its pooling), block1 56x56x256, block2
    28x28x512, block3 14x14x1024, block4 7x7x1024, norm 7x7x1024 (block4 after the last norm and
    ReLU, from which the logits are computed).

    `stem='cifar'` starts with a 3x3 convolution and no pooling; 'mnist' gives that convolution
    stride 2. `dropout_rate` applies to each layer's new channels (section 4.2). `remat` computes
    the activations within a layer again for the gradient, to save memory. `width` multiplies the
    growth rate.
    """

    depth: int = 121
    stem: Literal['imagenet', 'cifar', 'mnist'] = stem_option()
    normalization: Literal['batch', 'group'] = option(
        'batch', 'Normalization layers, batch or group.'
    )
    remat: bool = remat_option()
    width: float = width_option()

    def setup(self) -> None:
        """Makes the layers."""
        layer, (counts, growth) = self.factory(), BLOCKS[self.depth]
        growth = self.widened(growth)
        layer_type = nn.remat(DenseLayer, static_argnums=(2,)) if self.remat else DenseLayer
        channels = 2 * growth
        self.start = Stem(layer, channels, self.stem, self.normalization, name='stem')
        for i, count in enumerate(counts, start=1):
            for j in range(1, count + 1):
                new = layer_type(layer, growth, self.normalization)
                setattr(self, f'block{i}_layer{j}', new)
            channels += count * growth
            if i < len(counts):
                channels //= 2
                setattr(self, f'transition{i}', Transition(layer, channels, self.normalization))
        self.norm = layer.norm(self.normalization)
        self.global_pool = layer.adaptive_pool()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        stages, counts = OrderedDict(), BLOCKS[self.depth][0]
        stages['stem'] = x = self.start(self.prepare(images), train, mask)
        x = self.start.pool(x)
        for i, count in enumerate(counts, start=1):
            for j in range(1, count + 1):
                x = getattr(self, f'block{i}_layer{j}')(x, train, mask)
            stages[f'block{i}'] = x
            if i < len(counts):
                x = getattr(self, f'transition{i}')(x, train, mask)
        stages['norm'] = nn.relu(self.norm(x, train, mask))
        return stages

    def pool_features(self, features: jax.Array) -> jax.Array:
        """Averages the last stage over all positions."""
        return self.global_pool(features)
