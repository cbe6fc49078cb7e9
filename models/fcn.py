"""Fully connected networks (multilayer perceptrons), a baseline that ignores neighborhoods.

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors"; dropout
after each hidden layer as in Srivastava et al. 2014, section 6.1.1.
"""

from collections import OrderedDict
from typing import Literal

import jax

from models.declaration import option
from models.layers import activate, activation_option
from models.network import Network


class FCN(Network):
    """`depth` hidden layers of `units` each; stages dense1, dense2, ..., all [b, units]."""

    units: int = option(512, 'Units of each hidden layer.', at_least=1, at_most=100_000)
    depth: int = option(2, 'Number of hidden layers.', at_least=1, at_most=1000)
    activation: Literal['relu', 'tanh'] = activation_option()

    def setup(self) -> None:
        """Makes the layers."""
        layer = self.factory()
        for i in range(1, self.depth + 1):
            setattr(self, f'dense{i}', layer.dense(self.units))
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Model."""
        del mask
        x = self.prepare(images)
        x = x.reshape(x.shape[0], -1)
        stages = OrderedDict()
        for i in range(1, self.depth + 1):
            name = f'dense{i}'
            x = activate(getattr(self, name)(x), self.activation)
            stages[name] = x = self.dropout(x, train)
        return stages
