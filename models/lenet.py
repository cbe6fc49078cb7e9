"""LeNet-5: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
recognition", section II.B, in the form taught today.

It differs from the paper: the second convolution sees all six maps (table I leaves some out),
pooling has no weights, the output is a plain dense layer, and the first convolution pads 28x28
images. 61,706 parameters at 28x28x1 and 10 classes.
"""

from collections import OrderedDict
from typing import Literal

import jax

from models.declaration import option
from models.layers import activate, activation_option
from models.network import Network


class LeNet(Network):
    """Two convolutions, each pooled, and three dense layers; dropout after the two hidden ones.

    Stages at 28x28: conv1 28x28x6, pool1 14x14x6, conv2 10x10x16, pool2 5x5x16, dense1 120,
    dense2 84.
    """

    activation: Literal['relu', 'tanh'] = activation_option()
    pooling: Literal['max', 'average'] = option('max', 'How maps are pooled, max or average.')

    def setup(self) -> None:
        """Makes the layers."""
        layer = self.factory()
        self.conv1 = layer.conv(6, window=5, padding=2)
        self.pool1 = layer.pool(self.pooling)
        self.conv2 = layer.conv(16, window=5)
        self.pool2 = layer.pool(self.pooling)
        self.dense1 = layer.dense(120)
        self.dense2 = layer.dense(84)
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        del mask
        stages = OrderedDict()
        x = self.conv1(self.prepare(images))
        stages['conv1'] = activated = activate(x, self.activation)
        stages['pool1'] = x = self.pool1(activated, self.activation, before=x)
        x = self.conv2(x)
        stages['conv2'] = activated = activate(x, self.activation)
        stages['pool2'] = x = self.pool2(activated, self.activation, before=x)
        if self.convolutional:
            return stages
        x = x.reshape(x.shape[0], -1)
        stages['dense1'] = x = self.dropout(activate(self.dense1(x), self.activation), train)
        stages['dense2'] = self.dropout(activate(self.dense2(x), self.activation), train)
        return stages
