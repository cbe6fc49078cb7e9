"""Our training step as a contestant: what train.py runs.

The data set is uint8 on the device; the step gathers the batch, normalises it and keeps the
metrics, which the others are spared.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks.contestants import channel
from configs import base, schema


def make_runner(work: dict[str, Any], detailed: bool = False):
    """Returns (runner, experiment) of a work; see benchmarks/step.py and training/runner.py."""
    channel.use_cores(work['threads'])
    from distributed import devices
    from training import experiment
    from training.runner import Runner

    config = base.get_config()
    config.model.name = work['model']
    config.batch_size = work['batch_size']
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    schema.override(config, work.get('overrides', ()), base.fields())
    all_devices = devices.start(config)
    shape = work['size'], work['size'], work['channels']
    names = tuple(map(str, range(work['classes'])))
    found = experiment.Experiment(config, shape, names, 8 * work['batch_size'])
    return Runner(found.spec(), config.runner, all_devices, detailed), found


def make_dataset(found) -> dict[str, np.ndarray]:
    """Returns random images and labels for an experiment, on the host."""
    count, draw = found.train_examples, np.random.default_rng(0)
    return {
        'image': draw.integers(256, size=(count, *found.image_shape)).astype(np.uint8),
        'label': draw.integers(len(found.class_names), size=count).astype(np.int32),
    }


def updates(runner, found, batches: Iterable[Any], dataset) -> Iterator[np.ndarray]:
    """Yields an array as long as the batch, after the update two before its own, as the loop waits.

    Args:
      batches: on the devices.
      dataset: on the devices.
    """
    import jax

    from training.experiment import hyperparameters
    from training.runner import RUN_AHEAD

    waiting = collections.deque()
    state = runner.replicate(found.initial_state(found.spec()))
    hyper = runner.replicate(hyperparameters(found.config))
    for batch in batches:
        state, metrics = runner.train(state, hyper, batch, dataset)
        waiting.append(metrics)
        if len(waiting) > RUN_AHEAD:
            jax.block_until_ready(waiting.popleft())
        yield np.empty(found.config.batch_size)


def training(runner, found) -> Iterator[np.ndarray]:
    """Returns the updates of what `make_runner` gave, on a small resident data set."""
    batches = (runner.split(_batch(found, number)) for number in itertools.count())
    return updates(runner, found, batches, runner.replicate(make_dataset(found)))


def _batch(found, number: int) -> dict[str, np.ndarray]:
    """Batch `number`, one slice of the data set after the other."""
    size = found.config.batch_size
    index = np.arange(size, dtype=np.int32) + np.int32(number * size % found.train_examples)
    return {'index': index, 'epoch': np.zeros_like(index), 'mask': np.ones(size, np.float32)}


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves steps of the network that the work names."""
    import jax

    answers.serve(training(*make_runner(work)), versions={'jax': jax.__version__})


if __name__ == '__main__':
    channel.run(compete)
