"""A step's arguments by shape and type alone: for tests that lower it, and compute nothing."""

import dataclasses
from typing import Any

import jax
import numpy as np

from configs import reading
from training import checks, experiment

# Data set -> shape of its images, number of classes, training and validation examples.
SETS = {
    'digits': ((28, 28, 1), 10, 1295, 143),
    'cifar10': ((32, 32, 3), 10, 45_000, 5_000),
    'imagenet2012': (None, 1000, 1_268_356, 12_811),  # the configuration has the shape
}


@dataclasses.dataclass(frozen=True)
class Abstract:
    """What train.py makes of a configuration; of arrays only their shapes and types.

    Attributes:
      experiment: the configuration and what follows from the data set.
      spec: the static part of the step.
      state: before the first update.
      hyper: the scalars that enter the step, which have values.
      batch, dataset: of training.
      eval_batch, eval_dataset: of validation.
    """

    experiment: Any
    spec: Any
    state: Any
    hyper: dict
    batch: dict
    dataset: dict
    eval_batch: dict
    eval_dataset: dict


def abstract(path: str, **fields) -> Abstract:
    """Returns it for a configuration file; a__b=v sets config.a.b. The data need not be there."""
    given = [f'--config.{name.replace("__", ".")}={value}' for name, value in fields.items()]
    config = reading.from_arguments(path, given)
    checks.check(config)
    shape, classes, train, validation = SETS[config.data.name]
    side = config.data.image_size
    shape = shape or (side, side, 3)
    found = experiment.Experiment(config, shape, tuple(map(str, range(classes))), train)
    spec = found.spec()
    batch = _batch(config, config.batch_size, shape) | {'epoch': array(config.batch_size)}
    eval_side = config.data.eval_image_size or side
    eval_shape = (eval_side, eval_side, 3) if side else shape
    eval_batch = _batch(config, config.eval_batch_size, eval_shape)
    state, hyper = found.abstract_state(spec), experiment.hyperparameters(config)
    datasets = [{} if side else _examples(size, shape) for size in (train, validation)]
    if config.linear_probe:
        width = state.params['head']['kernel'].shape[0]
        for size, dataset in zip((train, validation), datasets, strict=True):
            del dataset['image']
            dataset['features'] = array(size, width, dtype=np.float32)
    return Abstract(found, spec, state, hyper, batch, datasets[0], eval_batch, datasets[1])


def array(*shape: int, dtype=np.int32) -> jax.ShapeDtypeStruct:
    """Returns an array without numbers."""
    return jax.ShapeDtypeStruct(shape, dtype)


def stacked(tree, *sizes: int):
    """Returns the tree with axes of these sizes in front of each of its arrays."""
    return jax.tree.map(lambda x: array(*sizes, *np.shape(x), dtype=x.dtype), tree)


def _batch(config, size: int, shape: tuple[int, ...]) -> dict:
    """What training and evaluation both have; the images of a resident set are gathered."""
    batch = {'index': array(size), 'mask': array(size, dtype=np.float32)}
    if not config.data.image_size:
        return batch
    if config.data.on_bad_record == 'skip':
        batch['bad'] = array(size)
    return batch | _examples(size, shape)


def _examples(size: int, shape: tuple[int, ...]) -> dict:
    return {'image': array(size, *shape, dtype=np.uint8), 'label': array(size)}
