"""AlexNet: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional
neural networks", in the single-column form of Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks", without its response normalization, as in torchvision.
61,100,840 parameters at 224x224x3 and 1000 classes.
"""

from collections import OrderedDict
from typing import Literal

import flax.linen as nn
import jax

from models.network import Network, width_option
from models.stem import stem_option

# (filters, window, padding) of the convolutions after the first; stride 1.
CONVOLUTIONS = {2: (192, 5, 2), 3: (384, 3, 1), 4: (256, 3, 1), 5: (256, 3, 1)}
# stem -> (window, stride, padding) of the first convolution.
STEMS = {'imagenet': (11, 4, 2), 'cifar': (3, 1, 1), 'mnist': (3, 2, 1)}


class AlexNet(Network):
    """Five convolutions, three of them pooled, and three dense layers; dropout after two.

    Stages at 224x224: conv1 55x55x64, pool1 27x27, conv2 27x27x192, pool2 13x13, conv3 13x13x384,
    conv4 13x13x256, conv5 13x13x256, pool5 6x6, dense1 4096, dense2 4096. The last map is averaged
    to 6x6 where it has another size.

    `stem='cifar'` starts with a 3x3 convolution and leaves the first pooling out; 'mnist' gives
    that convolution stride 2. Both pool the last map globally and have 512 units. `width`
    multiplies filters and units.
    """

    stem: Literal['imagenet', 'cifar', 'mnist'] = stem_option()
    width: float = width_option()

    def setup(self) -> None:
        """Makes the layers."""
        layer, large = self.factory(), self.stem == 'imagenet'
        window, stride, padding = STEMS[self.stem]
        self.conv1 = layer.conv(self.widened(64), window, stride, padding)
        for i, (filters, window, padding) in CONVOLUTIONS.items():
            setattr(self, f'conv{i}', layer.conv(self.widened(filters), window, padding=padding))
        for i in (1, 2, 5) if large else (2, 5):
            setattr(self, f'pool{i}', layer.pool('max', window=3, stride=2))
        self.last_pool = layer.adaptive_pool(size=6 if large else 1)
        self.dense1 = layer.dense(self.widened(4096 if large else 512))
        self.dense2 = layer.dense(self.widened(4096 if large else 512))
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        del mask
        stages = OrderedDict()
        x = self.prepare(images)
        for i in range(1, 6):
            stages[f'conv{i}'] = x = nn.relu(getattr(self, f'conv{i}')(x))
            if i in (1, 2, 5) and (i > 1 or self.stem == 'imagenet'):
                stages[f'pool{i}'] = x = getattr(self, f'pool{i}')(x)
        if self.convolutional:
            return stages
        x = self.last_pool(x)
        x = x.reshape(x.shape[0], -1)
        stages['dense1'] = x = self.dropout(nn.relu(self.dense1(x)), train)
        stages['dense2'] = self.dropout(nn.relu(self.dense2(x)), train)
        return stages
