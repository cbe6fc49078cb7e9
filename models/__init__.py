"""Convolutional networks for image recognition, by name.

    model = models.create('lenet', num_classes=10, activation='tanh')
    variables = model.init(jax.random.key(0), images)
    logits = model.apply(variables, images)
    maps = model.apply(variables, images, method='stages')

One file per family; layers.py holds what they are made of. `register` adds a network of your own,
as docs/models.md shows.
"""

from models.declaration import Option, option
from models.network import Network
from models.registry import create, names, options, register

__all__ = ['Network', 'Option', 'create', 'names', 'option', 'options', 'register']
