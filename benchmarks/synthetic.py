"""An experiment on random images, made ready as train.py does it; needs no data set."""

import collections
import functools
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from data_sources import arrays
from distributed import devices
from training import experiment
from training.runner import RUN_AHEAD, Runner


def random_split(count: int, shape: tuple[int, int, int], classes: int) -> arrays.ArraySource:
    """Returns `count` images of random pixels with random labels."""
    draw = np.random.default_rng(0)
    images = arrays.empty_images((count, *shape))
    for start in range(0, count, 10_000):
        chunk = images[start : start + 10_000]
        chunk[...] = draw.integers(256, size=chunk.shape, dtype=np.uint8)
    return split_of(images, draw.integers(classes, size=count, dtype=np.int32), classes)


def split_of(images: np.ndarray, labels: np.ndarray, classes: int) -> arrays.ArraySource:
    """Returns images and labels as a training split."""
    names = tuple(map(str, range(classes)))
    return arrays.ArraySource('synthetic', 'train', images, {'label': labels}, names)


class SyntheticExperiment:
    """A configuration and a split, ready for the first step.

    With `detailed`, evaluation counts the confusion matrix as well.
    """

    def __init__(self, config, split: arrays.ArraySource, detailed: bool = False):
        all_devices = devices.start(config)
        shape = split.images.shape[1:]
        self.split = split
        self.experiment = experiment.Experiment(config, shape, split.class_names, split.size)
        self.spec = self.experiment.spec()
        self.runner = Runner(self.spec, config.runner, all_devices, detailed)
        self.hyper = self.runner.replicate(experiment.hyperparameters(config))

    @functools.cached_property
    def dataset(self) -> dict:
        """The split on the devices."""
        return self.runner.replicate(self.split.arrays)

    @functools.cached_property
    def _initial(self):
        return self.experiment.initial_state(self.spec)

    def state(self):
        """Returns a new state before the first update, on the devices."""
        return self.runner.replicate(self._initial)


def run_ahead(call, state, hyper, batches: Iterable, dataset) -> Iterator[tuple]:
    """Yields (state, metrics) of call(state, hyper, batch, dataset) for each of the batches.

    Never has more than RUN_AHEAD calls under way between two of them, as the training loop.
    """
    waiting = collections.deque()
    for batch in batches:
        state, metrics = call(state, hyper, batch, dataset)
        waiting.append(metrics)
        if len(waiting) > RUN_AHEAD:
            jax.block_until_ready(waiting.popleft())
        yield state, metrics
