"""What tests of drawn pictures share: their pixels, and networks that were not trained."""

import io

import numpy as np
from matplotlib.image import imread

import models
from configs import base
from inspection import opened
from tests.models.declared import draw_variables
from training import experiment


def pixels_of(png: bytes) -> np.ndarray:
    """The pixels of a PNG file, float [h, w, 3] in [0, 1]."""
    return imread(io.BytesIO(png))[..., :3]


def untrained(name: str, shape=(28, 28, 1), classes=10, **options) -> opened.Opened:
    """A network with drawn weights, opened; nothing is compiled."""
    config = base.get_config()
    config.model.name = name
    for option, value in options.items():
        config.model[option] = value
    names = tuple(map(str, range(classes)))
    made = experiment.Experiment(config, shape, names, train_examples=100)
    model = models.create(name, num_classes=classes, **options)
    variables = draw_variables(model, np.zeros((1, *shape), np.float32))
    return opened.Opened(made, made.spec(), variables, step=0)
