"""Opened networks that were not trained, for tests of arithmetic."""

import dataclasses

import jax
import numpy as np

from configs import base, schema
from inspection.opened import Opened
from training import experiment


def untrained(name, shape, classes=4, seed=0, variables=None, **fields):
    """Returns an opened network, whose inputs are (pixels / 255 - 0.5) / 0.25.

    Args:
      name: of the model.
      shape: (h, w, c) of its images.
      classes: their number.
      seed: of the parameters.
      variables: in place of those.
      fields: of the configuration; a__b sets config.a.b.
    """
    config = base.get_config()
    config.model.name = name
    for field, value in fields.items():
        schema.assign(config, field.replace('__', '.'), value)
    exp = experiment.Experiment(config, shape, tuple(map(str, range(classes))), 100)
    channels = shape[-1]
    spec = dataclasses.replace(exp.spec(), mean=(0.5,) * channels, std=(0.25,) * channels)
    if variables is None:
        images = np.zeros((1, *shape), np.float32)
        variables = jax.jit(spec.model.init)(jax.random.key(seed), images)
    return Opened(exp, spec, variables, 0)


def noisy(count, shape, seed=0):
    """Returns images of noise, uint8 [count, h, w, c]: no two pixels tie in a window."""
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def chosen(network, name):
    """Returns the choice of a class, whatever the network's answer is."""
    return network.choice(np.zeros(len(network.class_names)), name)
