"""Our detector's training step and inference as contestants: what train.py and predict.py run."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.contestants import channel, our_networks
from configs import base


def prepare(work: dict[str, Any]):
    """Returns the SyntheticExperiment of a contestant's work; see benchmarks/detection.py."""
    channel.use_cores(work['threads'])
    from benchmarks.synthetic import SyntheticExperiment
    from data_sources import arrays
    from data_sources.box_targets import Objects, Placement

    config = base.get_config()
    config.task = 'detection'
    config.model.name = 'resnet18'
    config.head.channels, config.head.depth, config.head.extra = work['channels'], work['depth'], 2
    config.data.max_boxes = work['max_boxes']
    config.detection.candidates = work['candidates']
    config.batch_size = config.eval_batch_size = work['batch_size']
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    draw = np.random.default_rng(0)
    images = arrays.empty_images((2 * work['batch_size'], work['height'], work['width'], 3))
    images[...] = draw.integers(256, size=images.shape, dtype=np.uint8)
    kinds = {'objects': Objects(work['max_boxes']), 'placement': Placement()}
    targets = {name: kind.empty(len(images), images.shape[1:]) for name, kind in kinds.items()}
    targets['objects'][:, : work['objects']] = objects(work, draw, len(images))
    names = tuple(map(str, range(work['classes'])))
    split = arrays.ArraySource('synthetic', 'train', images, targets, names, kinds)
    return SyntheticExperiment(config, split)


def objects(work: dict[str, Any], draw: np.random.Generator, examples: int) -> np.ndarray:
    """Returns objects of random places, sizes and classes, float32 [examples, objects, 6]."""
    shape = examples, work['objects']
    sizes = draw.uniform(0.1, 0.4, (*shape, 2)) * min(work['height'], work['width'])
    starts = draw.uniform(0, 1, (*shape, 2)) * ([work['height'], work['width']] - sizes)
    classes = draw.integers(work['classes'], size=(*shape, 1))
    parts = [starts, starts + sizes, classes, np.zeros_like(classes)]
    return np.concatenate(parts, -1).astype(np.float32)


def predictions(ready) -> Iterator[np.ndarray]:
    """Yields an array as long as a batch of predict.py, once its boxes are there."""
    import jax

    from training.inputs import network_input

    spec, variables = ready.spec, jax.device_get(ready.state().variables())
    size = ready.experiment.config.batch_size

    @jax.jit
    def predicted(variables, pixels):
        inputs = network_input(spec, pixels)
        return spec.task.predictions(spec.model.apply(variables, inputs, train=False))

    while True:
        jax.tree.map(np.asarray, predicted(variables, ready.split.images[:size]))
        yield np.empty(size)


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves batches of the task in the work."""
    ready = prepare(work)
    import jax

    batches = {'train': our_networks.updates, 'predict': predictions}[work['task']]
    answers.serve(batches(ready), versions={'jax': jax.__version__})


if __name__ == '__main__':
    channel.run(compete)
