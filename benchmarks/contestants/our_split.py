"""A whole split by our own means as a contestant: train.py's batches of it, evaluate.py's pass.

Beside what our_step.py does this holds what plans, places and collects: `Placement`, `Evaluator`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.contestants import channel, our_step


def make_split(work: dict[str, Any]):
    """Returns an ArraySource of random pixels, work['examples'] of them."""
    from data_sources import arrays

    draw = np.random.default_rng(0)
    count, side = work['examples'], work['size']
    images = arrays.empty_images((count, side, side, work['channels']))
    for start in range(0, count, 10_000):
        part = images[start : start + 10_000]
        part[...] = draw.integers(256, size=part.shape, dtype=np.uint8)
    labels = draw.integers(work['classes'], size=count, dtype=np.int32)
    names = tuple(map(str, range(work['classes'])))
    return arrays.ArraySource('random', 'train', images, {'label': labels}, names)


def training(work: dict[str, Any]) -> Iterator[np.ndarray]:
    """Returns the updates on the split's batches."""
    from training.placement import Placement

    runner, found = our_step.make_runner(work)
    data = Placement(runner, make_split(work), found.config)
    return our_step.updates(runner, found, data.train_batches(0), data.dataset)


def evaluation(work: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yields as many batches as a pass holds, once the whole pass is done.

    So a turn of that many batches is one pass, whatever was yielded before it.
    """
    from training.evaluation import Evaluator

    runner, found = our_step.make_runner(work, detailed=True)
    found.config.eval_batch_size = work['batch_size']
    variables = runner.replicate(found.initial_state(found.spec()).variables())
    evaluate = Evaluator(found, runner, make_split(work))
    while True:
        count = int(evaluate(variables).sums['count'])
        yield from np.empty((count // work['batch_size'], work['batch_size']))


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves batches of the task that the work names."""
    batches = {'train': training, 'evaluate': evaluation}[work['task']](work)
    import jax

    answers.serve(batches, versions={'jax': jax.__version__})


if __name__ == '__main__':
    channel.run(compete)
