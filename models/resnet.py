"""ResNet: He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition", table 1,
with the stride in the 3x3 convolution of a bottleneck ("v1.5"), for which published weights are
made. resnet50 has 25,557,032 parameters at 224x224x3 and 1000 classes.
"""

from collections import OrderedDict
from typing import Literal

import flax.linen as nn
import jax

from models.declaration import option
from models.layers import LayerFactory
from models.network import Network, remat_option, width_option
from models.stem import Stem, stem_option

FILTERS = (64, 128, 256, 512)
# depth -> (blocks in each of the four stages, whether they are bottlenecks).
BLOCKS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
EXPANSION = 4  # output channels of a bottleneck for each of its filters


class Block(nn.Module):
    """relu(x + branch(x)); the branch is 3x3, 3x3, or as a bottleneck 1x1, 3x3, 1x1.

    The first 3x3 convolution has the stride. The shortcut is the identity, except where the shape
    changes: there it is a strided 1x1 convolution (section 3.3, option B).
    """

    layer: LayerFactory
    filters: int
    stride: int
    bottleneck: bool
    project: bool
    normalization: str
    zero_init: bool
    drop_rate: float

    def setup(self) -> None:
        """Makes the layers."""
        layer, filters, stride = self.layer, self.filters, self.stride
        if self.bottleneck:
            # (filters, window, stride)
            shapes = [(filters, 1, 1), (filters, 3, stride), (filters * EXPANSION, 1, 1)]
        else:
            shapes = [(filters, 3, stride), (filters, 3, 1)]
        for i, (features, window, step) in enumerate(shapes, start=1):
            conv = layer.conv(features, window, step, window // 2, use_bias=False)
            setattr(self, f'conv{i}', conv)
            last = i == len(shapes)
            norm = layer.norm(self.normalization, zero_init=self.zero_init and last)
            setattr(self, f'norm{i}', norm)
        self.count = len(shapes)
        self.stochastic_depth = layer.stochastic_depth(self.drop_rate)
        if self.project:
            self.shortcut_conv = layer.conv(shapes[-1][0], 1, stride, use_bias=False)
            self.shortcut_norm = layer.norm(self.normalization)

    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """[b, h, w, c] -> [b, ceil(h / stride), ceil(w / stride), filters or 4 filters]."""
        shortcut = x
        if self.project:
            shortcut = self.shortcut_norm(self.shortcut_conv(x), train, mask)
        for i in range(1, self.count + 1):
            x = getattr(self, f'norm{i}')(getattr(self, f'conv{i}')(x), train, mask)
            x = nn.relu(x) if i < self.count else x
        return nn.relu(shortcut + self.stochastic_depth(x, train))


class ResNet(Network):
    """A stem, four stages of residual blocks, global average pooling, dropout, a dense layer.

    Stages of resnet50 at 224x224: stem 112x112x64 (before its pooling), stage1 56x56x256, stage2
    28x28x512, stage3 14x14x1024, stage4 7x7x2048.

    `stem='cifar'` starts with a 3x3 convolution and no pooling; 'mnist' gives that convolution
    stride 2. `stochastic_depth` is the rate at which the last block is dropped; the rates of the
    others rise linearly to it (Huang et al. 2016). `zero_init` starts each block as the identity.
    `remat` computes the activations within a block again for the gradient, to save memory. `width`
    multiplies the number of filters.
    """

    depth: int = 50
    stem: Literal['imagenet', 'cifar', 'mnist'] = stem_option()
    normalization: Literal['batch', 'group'] = option(
        'batch', 'Normalization layers, batch or group.'
    )
    stochastic_depth: float = option(
        0.0,
        'Probability that the last residual block is dropped; it grows linearly with depth.',
        at_least=0,
        below=1,
    )
    zero_init: bool = option(False, 'Whether each residual block starts as the identity.')
    remat: bool = remat_option()
    width: float = width_option()

    def setup(self) -> None:
        """Makes the layers."""
        layer, (counts, bottleneck) = self.factory(), BLOCKS[self.depth]
        block_type = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        self.start = Stem(layer, self.widened(64), self.stem, self.normalization, name='stem')
        channels, number = self.widened(64), 0
        for i, (count, filters) in enumerate(zip(counts, FILTERS, strict=True), start=1):
            filters = self.widened(filters)
            for j in range(1, count + 1):
                number += 1
                stride = 2 if i > 1 and j == 1 else 1
                features = filters * EXPANSION if bottleneck else filters
                block = block_type(
                    layer, filters, stride, bottleneck,
                    project=stride > 1 or features != channels,
                    normalization=self.normalization,
                    zero_init=self.zero_init,
                    drop_rate=self.stochastic_depth * number / sum(counts),
                )  # fmt: skip
                setattr(self, f'stage{i}_block{j}', block)
                channels = features
        self.global_pool = layer.adaptive_pool()
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        stages = OrderedDict()
        stages['stem'] = x = self.start(self.prepare(images), train, mask)
        x = self.start.pool(x)
        for i, count in enumerate(BLOCKS[self.depth][0], start=1):
            for j in range(1, count + 1):
                x = getattr(self, f'stage{i}_block{j}')(x, train, mask)
            stages[f'stage{i}'] = x
        return stages

    def pool_features(self, features: jax.Array) -> jax.Array:
        """Averages the last stage over all positions."""
        return self.global_pool(features)

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        """Applies dropout to the features, then the dense layer."""
        return self.head(self.dropout(features, train))
