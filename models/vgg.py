"""VGG: Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image
recognition", table 1, configurations A (11 layers), B (13), D (16) and E (19); batch norm after
each convolution in the variants _bn (Ioffe and Szegedy 2015). vgg16 has 138,357,544 parameters at
224x224x3 and 1000 classes.
"""

from collections import OrderedDict
from typing import Literal

import flax.linen as nn
import jax

from models.declaration import option
from models.network import Network, width_option
from models.stem import stem_option

FILTERS = (64, 128, 256, 512, 512)
# depth -> 3x3 convolutions in each of the five blocks; the other three layers are dense.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(Network):
    """Five blocks of 3x3 convolutions, each ended by 2x2 max pooling, and three dense layers.

    Stages at 224x224: block1 224x224x64, pool1 112x112, block2 112x112x128, pool2 56x56, block3
    56x56x256, pool3 28x28, block4 28x28x512, pool4 14x14, block5 14x14x512, pool5 7x7, dense1 4096,
    dense2 4096, the dense ones after dropout. The last map is averaged to 7x7 where it has another
    size.

    `stem='cifar'` and 'mnist', which are the same here because the first convolution is always
    small, leave the first pooling out, pool the last map globally and have 512 units. `width`
    multiplies filters and units.
    """

    depth: int = 16
    stem: Literal['imagenet', 'cifar', 'mnist'] = stem_option()
    normalization: Literal['batch', 'group', 'none'] = option(
        'none', 'Normalization layers, batch, group or none.'
    )
    width: float = width_option()

    def setup(self) -> None:
        """Makes the layers."""
        layer, large = self.factory(), self.stem == 'imagenet'
        for i, (count, filters) in enumerate(zip(CONVOLUTIONS[self.depth], FILTERS, strict=True)):
            for j in range(count):
                conv = layer.conv(self.widened(filters), window=3, padding=1)
                setattr(self, f'block{i + 1}_conv{j + 1}', conv)
                setattr(self, f'block{i + 1}_norm{j + 1}', layer.norm(self.normalization))
            if i or large:
                setattr(self, f'pool{i + 1}', layer.pool('max'))
        self.last_pool = layer.adaptive_pool(size=7 if large else 1)
        self.dense1 = layer.dense(self.widened(4096 if large else 512))
        self.dense2 = layer.dense(self.widened(4096 if large else 512))
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        stages = OrderedDict()
        x = self.prepare(images)
        for i, count in enumerate(CONVOLUTIONS[self.depth], start=1):
            for j in range(1, count + 1):
                conv = getattr(self, f'block{i}_conv{j}')
                norm = getattr(self, f'block{i}_norm{j}')
                x = nn.relu(norm(conv(x), train, mask))
            stages[f'block{i}'] = x
            if i > 1 or self.stem == 'imagenet':
                stages[f'pool{i}'] = x = getattr(self, f'pool{i}')(x)
        if self.convolutional:
            return stages
        x = self.last_pool(x)
        x = x.reshape(x.shape[0], -1)
        stages['dense1'] = x = self.dropout(nn.relu(self.dense1(x)), train)
        stages['dense2'] = self.dropout(nn.relu(self.dense2(x)), train)
        return stages
