"""Our training step and evaluation of a U-Net as contestants: what train.py and evaluate.py run."""

from typing import Any

import numpy as np

from benchmarks.contestants import channel, our_networks
from configs import base


def prepare(work: dict[str, Any]):
    """Returns the SyntheticExperiment of a contestant's work; see benchmarks/segmentation.py."""
    channel.use_cores(work['threads'])
    from benchmarks.synthetic import SyntheticExperiment
    from data_sources import arrays
    from data_sources.label_maps import LabelMap

    config = base.get_config()
    config.task = 'segmentation'
    config.model.name, config.model.width = 'resnet18', work['width']
    config.model.stem, config.head.width = work['stem'], work['head_width']
    config.batch_size = config.eval_batch_size = work['batch_size']
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    draw = np.random.default_rng(0)
    images = arrays.empty_images((work['examples'], work['size'], work['size'], work['channels']))
    images[...] = draw.integers(256, size=images.shape, dtype=np.uint8)
    masks = draw.integers(work['classes'], size=images.shape[:3], dtype=np.uint8)
    kinds, names = {'segmentation_mask': LabelMap()}, tuple(map(str, range(work['classes'])))
    targets = {'segmentation_mask': masks}
    split = arrays.ArraySource('synthetic', 'train', images, targets, names, kinds)
    return SyntheticExperiment(config, split)


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves batches of the task in the work."""
    ready = prepare(work)
    import jax

    batches = {'train': our_networks.updates, 'evaluate': our_networks.evaluation}[work['task']]
    answers.serve(batches(ready), versions={'jax': jax.__version__})


if __name__ == '__main__':
    channel.run(compete)
