"""Fully connected networks (multilayer perceptrons), the baseline that knows no neighbourhood.

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors"; dropout
after each hidden layer as in Srivastava et al. 2014, section 6.1.1.
"""

import dataclasses
from collections import OrderedDict
from typing import Literal

import jax

from models.layers import activate
from models.network import Network


class FCN(Network):
    """`depth` hidden layers of `units` each; stages dense1, dense2, ..., all [b, units]."""

    units: int = dataclasses.field(default=512, metadata={'at_least': 1})
    depth: int = dataclasses.field(default=2, metadata={'at_least': 1})
    activation: Literal['relu', 'tanh'] = 'relu'

    def setup(self):
        """Makes the layers."""
        layer = self.factory()
        for i in range(1, self.depth + 1):
            setattr(self, f'dense{i}', layer.dense(self.units))
        self.dropout = layer.dropout()
        self.head = layer.dense(self.num_classes)

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages; see Network."""
        del mask
        x = self.prepare(images)
        x = x.reshape(x.shape[0], -1)
        stages = OrderedDict()
        for i in range(1, self.depth + 1):
            name = f'dense{i}'
            x = activate(getattr(self, name)(x), self.activation)
            stages[name] = x = self.dropout(x, train)
        return stages
