"""Convolutional networks for image recognition, by name.

    model = models.create('lenet', num_classes=10, activation='tanh')
    variables = model.init(jax.random.key(0), images)
    logits = model.apply(variables, images)
    maps = model.apply(variables, images, method='stages')

One file per family; layers.py holds what they are made of.
"""

from models.network import Network
from models.registry import Option, create, names, options

__all__ = ['Network', 'Option', 'create', 'names', 'options']
