"""Our training step and our evaluation as contestants: what train.py and evaluate.py run.

The split is uint8 on the device. The step gathers the batch, normalizes it and keeps the metrics,
which the other contestants are spared.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.contestants import channel
from configs import base, schema


def prepare(work: dict[str, Any], detailed: bool = False):
    """Returns the SyntheticExperiment of a contestant's work; see benchmarks/networks.py."""
    channel.use_cores(work['threads'])
    from benchmarks.synthetic import SyntheticExperiment, random_split

    config = base.get_config()
    config.model.name = work['model']
    config.batch_size = config.eval_batch_size = work['batch_size']
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    schema.override(config, work.get('overrides', ()), base.fields())
    shape = work['size'], work['size'], work['channels']
    split = random_split(work['examples'], shape, work['classes'])
    return SyntheticExperiment(config, split, detailed)


def updates(ready) -> Iterator[np.ndarray]:
    """Yields an array as long as a batch of train.py, after the update two before its own."""
    from benchmarks.synthetic import run_ahead
    from training.placement import Placement

    data = Placement(ready.runner, ready.split, ready.experiment.config)
    batches, call = data.train_batches(0), ready.runner.train
    for _ in run_ahead(call, ready.state(), ready.hyper, batches, data.dataset):
        yield np.empty(ready.experiment.config.batch_size)


def evaluation(ready) -> Iterator[np.ndarray]:
    """Yields as many batches as a pass has, once it is done: a turn of that many is one pass."""
    from training.evaluation import Evaluator

    evaluate = Evaluator(ready.experiment, ready.runner, ready.split)
    variables = ready.state().variables()
    batch_size = ready.experiment.config.eval_batch_size
    while True:
        count = int(evaluate(variables).sums['count'])
        yield from np.empty((count // batch_size, batch_size))


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves batches of the task in the work."""
    training = work['task'] == 'train'
    ready = prepare(work, detailed=not training)
    import jax

    batches = updates(ready) if training else evaluation(ready)
    answers.serve(batches, versions={'jax': jax.__version__})


if __name__ == '__main__':
    channel.run(compete)
