"""The one door to data: batches(config, split, start_step).

Batch t is a function of (data set, seed, t) alone. The training batches are consecutive slices of
an endless list of positions, epoch after epoch, each epoch a fresh permutation: position p is
example permutation(seed, p // n)[p % n]. So every example comes once an epoch, none is dropped, and
a batch may straddle two epochs. Nothing here counts devices: a host takes a slice of the list.

A data set that fits lives on the device, and a batch is only indices into it.
"""

import dataclasses
import functools
import zlib
from collections.abc import Iterator

import numpy as np

import data_sources
from errors import UserError


def open_split(config, split: str) -> data_sources.ArraySource:
    """Reads a split of the configured data set.

    Raises:
      UserError: no such data set or split, its files are damaged, or a class has fewer examples
        than config.data.train_per_class.
    """
    source = data_sources.load(config.data.name, split, config.data.dir)
    for name in ('mean', 'std'):
        channels = source.images.shape[-1]
        if len(config.data[name]) not in (1, channels):
            raise UserError(
                f'config.data.{name} has {len(config.data[name])} values, but the images of '
                f'{config.data.name} have {channels} channel(s).'
            )
    if split == 'train' and config.data.train_per_class:
        source = few_per_class(source, config.data.train_per_class, config.seed)
    return source


def few_per_class(
    source: data_sources.ArraySource, count: int, seed: int
) -> data_sources.ArraySource:
    """Returns `count` examples of each class, drawn by the seed, in the order of the data set.

    By the seed, so that a mean over seeds is one over choices of examples as well. Of the same seed
    a smaller choice is part of a larger one.

    Raises:
      UserError: a class has fewer.
    """
    sizes = np.bincount(source.labels, minlength=len(source.class_names))
    if sizes.min() < count:
        raise UserError(
            f'config.data.train_per_class={count}, but {source.name} has only {sizes.min()} '
            f'training examples of class {source.class_names[sizes.argmin()]}.'
        )
    key = np.array([seed, zlib.crc32(b'few_per_class')], np.uint64)
    order = np.argsort(np.random.Philox(key=key).random_raw(len(source.labels)), kind='stable')
    parts = [order[source.labels[order] == label][:count] for label in range(len(sizes))]
    chosen = np.sort(np.concatenate(parts))
    return dataclasses.replace(source, images=source.images[chosen], labels=source.labels[chosen])


def indices(seed: int, size: int, batch_size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (example, epoch) of training batch `step`, each int32 [batch_size]."""
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    epoch, place = position // size, position % size
    example = np.empty(batch_size, np.int32)
    for number in range(epoch[0], epoch[-1] + 1):
        here = epoch == number
        example[here] = permutation(seed, number, size)[place[here]]
    return example, epoch.astype(np.int32)


# Kept for two epochs, because a batch may straddle them.
@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order of the examples in an epoch: a permutation of range(size), int32.

    Sorting Philox's raw 64-bit words uses only what NumPy promises to keep the same between
    releases (its Generator.permutation is not promised).
    """
    key = np.array([seed, zlib.crc32(b'shuffle')], np.uint64)
    counter = np.array([0, 0, 0, epoch], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(size)
    order = np.argsort(words, kind='stable').astype(np.int32)
    order.flags.writeable = False
    return order


def train_batches(
    config, size: int, start_step: int = 0, process: int = 0, processes: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's part of training batches start_step, start_step + 1, ... for ever.

    Each is {'index', 'epoch' int32 [b], 'mask' float32 [b]} with b = batch_size / processes.
    """
    share = config.batch_size // processes
    part = slice(process * share, (process + 1) * share)
    step = start_step
    while True:
        example, epoch = indices(config.seed, size, config.batch_size, step)
        yield {
            'index': example[part],
            'epoch': epoch[part],
            'mask': np.ones(share, np.float32),
        }
        step += 1


def eval_batches(
    size: int, batch_size: int, devices: int, process: int = 0, processes: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches that hold every example exactly once, padded to one shape by mask 0.

    Args:
      size: examples in the split.
      batch_size: wanted examples per call over all devices; rounded up to a multiple of `devices`.
      devices: over all processes.
      process, processes: this one's place.
    """
    batch_size = -(-min(batch_size, size) // devices) * devices
    share = batch_size // processes
    for start in range(0, size, batch_size):
        place = np.arange(start + process * share, start + (process + 1) * share)
        yield {
            'index': np.minimum(place, size - 1).astype(np.int32),
            'mask': (place < size).astype(np.float32),
        }


def batches(config, split: str, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields the global batches of a split with their images, as one process on one device sees.

    'train' goes on for ever from `start_step`; 'validation' and 'test' hold each example once.
    Each batch is {'image' uint8 [b, h, w, c], 'label', 'index' int32 [b], 'mask' float32 [b]}, and
    'epoch' int32 [b] for training. The training loop sends only the indices, and gathers on the
    device: the same examples.
    """
    data = open_split(config, split)
    if split == 'train':
        plan = train_batches(config, len(data.labels), start_step)
    else:
        plan = eval_batches(len(data.labels), config.eval_batch_size, devices=1)
    for batch in plan:
        chosen = batch['index']
        yield {**batch, 'image': data.images[chosen], 'label': data.labels[chosen]}
