"""A small convolutional network with batch normalization.

Convolution, batch norm, ReLU, in the order of Ioffe and Szegedy 2015, "Batch normalization",
section 3.2. The convolutions keep their biases, as in introductory texts, although batch norm
cancels them in training. 29,034 parameters at 28x28x1 and 10 classes, including batch norm's scale
and bias.
"""

from collections import OrderedDict

import flax.linen as nn
import jax

from models.network import Network


class DeepCNN(Network):
    """Two blocks of 5x5 convolution, batch norm, ReLU, 2x2 max pooling; dropout; a dense layer.

    Stages at 28x28: conv1 28x28x16, pool1 14x14x16, conv2 14x14x32, pool2 7x7x32.
    """

    def setup(self) -> None:
        """Makes the layers."""
        layer = self.factory()
        self.conv1 = layer.conv(16, window=5, padding=2)
        self.norm1 = layer.norm()
        self.pool1 = layer.pool('max')
        self.conv2 = layer.conv(32, window=5, padding=2)
        self.norm2 = layer.norm()
        self.pool2 = layer.pool('max')
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        stages = OrderedDict()
        x = self.prepare(images)
        stages['conv1'] = x = nn.relu(self.norm1(self.conv1(x), train, mask))
        stages['pool1'] = x = self.pool1(x)
        stages['conv2'] = x = nn.relu(self.norm2(self.conv2(x), train, mask))
        stages['pool2'] = self.pool2(x)
        return stages

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        """Applies dropout to the features, then the dense layer."""
        return self.head(self.dropout(features, train))
