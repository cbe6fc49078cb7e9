"""A step's arguments by shape and type alone: for tests that lower it, and compute nothing."""

import dataclasses
from typing import Any

import jax
import numpy as np

from configs import reading
from training import checks, experiment

# Data set -> shape of its images, number of classes, training examples.
SETS = {
    'digits': ((28, 28, 1), 10, 1295),
    'imagenet2012': (None, 1000, 1_268_356),  # the configuration has the shape
}


@dataclasses.dataclass(frozen=True)
class Abstract:
    """The experiment of a configuration; of arrays only their shapes and types.

    Attributes:
      experiment: the configuration and what follows from the data set.
      spec: the static part of the step.
      state: before the first update.
      hyper: the scalars that enter the step, which have values.
      batch, dataset: of training.
    """

    experiment: Any
    spec: Any
    state: Any
    hyper: dict
    batch: dict
    dataset: dict


def abstract(path: str, **fields) -> Abstract:
    """Returns it for a configuration file; a__b=v sets config.a.b. The data need not be there."""
    given = [f'--config.{name.replace("__", ".")}={value}' for name, value in fields.items()]
    config = reading.from_arguments(path, given)
    checks.check(config)
    shape, classes, examples = SETS[config.data.name]
    side = config.data.image_size
    shape = shape or (side, side, 3)
    exp = experiment.Experiment(config, shape, tuple(map(str, range(classes))), examples)
    spec = exp.spec()
    size = config.batch_size
    batch = {'index': array(size), 'epoch': array(size), 'mask': array(size, dtype=np.float32)}
    if side:  # streamed: the batch has the images, and there is no resident set
        batch, dataset = batch | _examples(size, shape), {}
    else:
        dataset = _examples(examples, shape)
    state, hyper = exp.abstract_state(spec), experiment.hyperparameters(config)
    return Abstract(exp, spec, state, hyper, batch, dataset)


def array(*shape: int, dtype=np.int32) -> jax.ShapeDtypeStruct:
    """Returns an array without numbers."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _examples(size: int, shape: tuple[int, ...]) -> dict:
    return {'image': array(size, *shape, dtype=np.uint8), 'label': array(size)}
