"""Our pipeline as a contestant: `batches(config, 'train')`, or its decoding alone."""

import collections
import itertools
import platform
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np

import input_pipeline
from benchmarks.contestants import channel
from configs import base
from data_sources import plans


def configuration(work: dict[str, Any]):
    """Returns the configuration of the work (benchmarks/input_pipeline.py)."""
    config = base.get_config()
    config.batch_size, config.augment.flip = work['batch_size'], 0.5
    config.data.name, config.data.dir = work['name'], work['data_dir']
    config.data.image_size, config.data.threads = work['size'], work['threads']
    return config


def pipeline(work: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yields the images of training batches, uint8 [batch_size, size, size, 3], for ever."""
    for batch in input_pipeline.batches(configuration(work), 'train'):
        yield batch['image']


def threads_alone(work: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yields the same images by a plain thread pool, one at a time, without Grain."""
    from data_sources import stream

    config = configuration(work)
    source = input_pipeline.open_split(config, 'train')
    transform = stream.TrainTransform(config.seed, work['size'], work['scale'], work['ratio'])
    plan = plans.StreamPlan(config.seed, source.size, config.batch_size, repeats=1)

    def image(pair):
        example, visit = map(int, pair)
        return transform(source.read([example])[0].image, visit, example)

    with futures.ThreadPoolExecutor(work['threads']) as pool:
        waiting = collections.deque()
        for number in itertools.count():
            batch = plan(number)
            pairs = zip(batch['index'], batch['epoch'], strict=True)
            waiting.append([pool.submit(image, pair) for pair in pairs])
            if len(waiting) > 2:
                yield np.stack([future.result() for future in waiting.popleft()])


def compete(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Serves the variant of this pipeline in the work."""
    batches = {'pipeline': pipeline, 'threads': threads_alone}[work['variant']](work)
    answers.serve(batches, versions={'python': platform.python_version()})


if __name__ == '__main__':
    channel.run(compete)
