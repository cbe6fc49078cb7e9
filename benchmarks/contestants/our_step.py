"""Our training step as a contestant: what train.py runs.

The data set is uint8 on the device; the step gathers the batch, normalises it and keeps the
metrics, which the others are spared.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.contestants import channel
from configs import base, schema


def make_runner(work: dict[str, Any]):
    """Returns (runner, experiment, data set on the device) of a work; see benchmarks/step.py."""
    channel.use_cores(work['threads'])
    from training import devices, experiment
    from training.runner import Runner

    config = base.get_config()
    config.model.name = work['model']
    config.batch_size = work['batch_size']
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    schema.override(config, work.get('overrides', ()), base.FIELDS)
    all_devices = devices.start(config)
    shape = work['size'], work['size'], work['channels']
    names = tuple(map(str, range(work['classes'])))
    found = experiment.Experiment(config, shape, names, 8 * work['batch_size'])
    runner = Runner(found.spec(), config.runner, all_devices)
    draw = np.random.default_rng(0)
    dataset = runner.replicate(
        {
            'image': draw.integers(256, size=(found.train_examples, *shape)).astype(np.uint8),
            'label': draw.integers(work['classes'], size=found.train_examples).astype(np.int32),
        }
    )
    return runner, found, dataset


def training(work: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yields the indices of each batch after the update two before it, as the loop waits."""
    import collections

    import jax

    from training.experiment import hyperparameters
    from training.loop import RUN_AHEAD

    runner, found, dataset = make_runner(work)
    waiting = collections.deque()
    state = runner.replicate(found.initial_state(found.spec()))
    hyper = runner.replicate(hyperparameters(found.config))
    for number in range(2**31):
        batch = _batch(found, number)
        state, metrics = runner.train(state, hyper, runner.split(batch), dataset)
        waiting.append(metrics)
        if len(waiting) > RUN_AHEAD:
            jax.block_until_ready(waiting.popleft())
        yield batch['index']


def _batch(found, number: int) -> dict[str, np.ndarray]:
    """Batch `number`, one slice of the data set after the other."""
    size = found.config.batch_size
    index = np.arange(size, dtype=np.int32) + number * size % found.train_examples
    return {'index': index, 'epoch': np.zeros_like(index), 'mask': np.ones(size, np.float32)}


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves steps of the network that the work names."""
    import jax

    answers.serve(training(work), versions={'jax': jax.__version__})


if __name__ == '__main__':
    channel.run(compete)
