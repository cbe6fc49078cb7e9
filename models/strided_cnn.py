"""An all-convolutional network that shrinks its maps by stride, and its twin that pools.

Springenberg, Dosovitskiy, Brox and Riedmiller 2014, "Striving for simplicity: the all convolutional
net", section 2; global average pooling after Lin, Chen and Yan 2013, "Network in network", section
3.2. Batch norm after each convolution (Ioffe and Szegedy 2015) is the default, because it makes
five layers easy to train; `normalization='none'` gives the convolutions biases instead.
"""

from collections import OrderedDict
from typing import Literal

import flax.linen as nn
import jax

from models.declaration import option
from models.network import Network, width_option

FEATURES = (64, 128, 256, 512, 512)


class StridedCNN(Network):
    """Five 3x3 convolutions, padding 1, all but the first halving the map; pooling; a dense layer.

    Stages at 28x28: conv1 28x28x64, conv2 14x14x128, conv3 7x7x256, conv4 4x4x512, conv5 2x2x512.
    `downsample='max_pool'` is the twin: convolutions of stride 1, each followed by 2x2 max pooling
    that keeps an odd border (7 -> 4), so that both have the same sizes and parameters. `width`
    multiplies the number of filters.
    """

    downsample: Literal['stride', 'max_pool'] = option(
        'stride', 'How maps are halved, stride or max_pool.'
    )
    pooling: Literal['average', 'max'] = option(
        'average', 'How the last map is pooled, average or max.'
    )
    normalization: Literal['batch', 'group', 'none'] = option(
        'batch', 'Normalization layers, batch, group or none.'
    )
    width: float = width_option()

    def setup(self) -> None:
        """Makes the layers."""
        layer = self.factory()
        for i, features in enumerate(FEATURES, start=1):
            stride = 1 if i == 1 or self.downsample == 'max_pool' else 2
            conv = layer.conv(
                self.widened(features),
                window=3,
                stride=stride,
                padding=1,
                use_bias=self.normalization == 'none',
            )
            setattr(self, f'conv{i}', conv)
            setattr(self, f'norm{i}', layer.norm(self.normalization))
            if i > 1 and self.downsample == 'max_pool':
                setattr(self, f'pool{i}', layer.pool('max', ceil=True))
        self.global_pool = layer.adaptive_pool(self.pooling)
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        stages = OrderedDict()
        x = self.prepare(images)
        for i in range(1, len(FEATURES) + 1):
            conv, norm = getattr(self, f'conv{i}'), getattr(self, f'norm{i}')
            x = nn.relu(norm(conv(x), train, mask))
            if i > 1 and self.downsample == 'max_pool':
                x = getattr(self, f'pool{i}')(x)
            stages[f'conv{i}'] = x
        return stages

    def pool_features(self, features: jax.Array) -> jax.Array:
        """Pools the last stage globally."""
        return self.global_pool(features)

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        """Applies dropout to the features, then the dense layer."""
        return self.head(self.dropout(features, train))
