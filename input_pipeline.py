"""The one door to data: batches(config, split, start_step).

Batch t is a function of (data set, seed, t) alone. The training batches are consecutive slices of
an endless list of positions, epoch after epoch, each epoch a fresh permutation: position p is
example permutation(seed, p // n)[p % n]. So every example comes once an epoch, none is dropped, and
a batch may straddle two epochs. Nothing here counts devices: a host takes a slice of the list.

A data set that fits lives on the device, and a batch is only indices into it. One that is streamed
(config.data.image_size says so) is decoded anew for every batch, by the same rule: its order is a
permutation in constant memory, and an example may come `data.repeats` times in a row.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from data_sources import arrays, draws
from errors import UserError

_FOR_EVER = 2**40  # steps


def open_split(config, split: str):
    """Opens a split: an ArraySource, or a RecordSource where config.data.image_size is given.

    Raises:
      UserError: no such data set or split, its files are damaged, it does not suit the
        configuration, or a class has fewer examples than config.data.train_per_class.
    """
    data = config.data
    if data.image_size:
        if data.name == 'digits':
            raise UserError(
                'The digits are held in memory: leave config.data.image_size out, or name a '
                'streamed data set by config.data.name.'
            )
        from data_sources import record_source  # Grain: half a second to import

        source, channels = record_source.load(data.name, split, data.dir), 3
    else:
        source = arrays.load(data.name, split, data.dir)
        channels = source.images.shape[-1]
    for name in ('mean', 'std'):
        if len(data[name]) not in (1, channels):
            raise UserError(
                f'config.data.{name} has {len(data[name])} values, but the images of '
                f'{data.name} have {channels} channel(s).'
            )
    if data.num_classes and data.num_classes != len(source.class_names):
        raise UserError(
            f'config.data.num_classes={data.num_classes}, but data set "{data.name}" in '
            f'{data.dir} has {len(source.class_names)} classes.'
        )
    if split != 'train' or not data.train_per_class:
        return source
    if data.image_size:
        raise UserError(
            'config.data.train_per_class needs a data set in memory: data.image_size=None.'
        )
    return few_per_class(source, data.train_per_class, config.seed)


def check_test_split(config) -> None:
    """Checks that there is something to test on; nothing of it is read.

    Raises:
      UserError: the data set has nothing that could serve. It is better known before training.
    """
    wanted = (config.data.name, 'test', config.data.dir)
    if config.data.image_size:
        from data_sources import record_source

        record_source.find(*wanted)
    elif config.data.name != 'digits':
        from data_sources import tfds_sets

        tfds_sets.check_split(*wanted)


def image_shape(config, source) -> tuple[int, int, int]:
    """Returns [height, width, channels] of the training images of an open split."""
    if config.data.image_size:
        return (config.data.image_size, config.data.image_size, 3)
    return source.images.shape[1:]


def few_per_class(source: arrays.ArraySource, count: int, seed: int) -> arrays.ArraySource:
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
    order = draws.permutation(source.size, seed, 'few_per_class')
    parts = [order[source.labels[order] == label][:count] for label in range(len(sizes))]
    chosen = np.sort(np.concatenate(parts))
    return dataclasses.replace(source, images=source.images[chosen], labels=source.labels[chosen])


def indices(
    seed: int, size: int, batch_size: int, step: int, order: Callable | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (example, epoch) of training batch `step`, each int32 [batch_size].

    `order` may be a memory of `permutation` of the caller's own.
    """
    order = order or permutation
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    epoch, place = position // size, position % size
    example = np.empty(batch_size, np.int32)
    for number in range(epoch[0], epoch[-1] + 1):
        here = epoch == number
        example[here] = order(seed, number, size)[place[here]]
    return example, epoch.astype(np.int32)


# Kept for two epochs, because a batch may straddle them.
@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order of the examples in an epoch: a permutation of range(size), int32.

    Sorting Philox's raw 64-bit words uses only what NumPy promises to keep the same between
    releases (its Generator.permutation is not promised).
    """
    order = draws.permutation(size, seed, 'shuffle', epoch).astype(np.int32)
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


@dataclasses.dataclass(frozen=True)
class EvalPlan:
    """Evaluation batches that hold every example exactly once, padded to one shape by mask 0.

    Attributes:
      size: examples in the split.
      batch_size: wanted examples per call over all devices; rounded up to a multiple of `devices`.
      devices: over all processes.
      process, processes: this one's place.
    """

    size: int
    batch_size: int
    devices: int
    process: int = 0
    processes: int = 1

    @property
    def step(self) -> int:
        """Examples per call, padding included."""
        return -(-min(self.batch_size, self.size) // self.devices) * self.devices

    @property
    def share(self) -> int:
        """This process's part of them."""
        return self.step // self.processes

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-self.size // self.step)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields all of them."""
        return map(self, range(len(self)))

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> dict:
        """Returns the rows start .. stop - 1 of this process's part of a batch.

        {'index' int32, 'mask' float32}; all of them without `stop`.
        """
        first = number * self.step + self.process * self.share
        place = np.arange(first + start, first + (self.share if stop is None else stop))
        return {
            'index': np.minimum(place, self.size - 1).astype(np.int32),
            'mask': (place < self.size).astype(np.float32),
        }


def stream_indices(
    seed: int, size: int, batch_size: int, repeats: int, first: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (example, visit) at positions first .. first + count - 1 of a streamed set's list.

    The list is as for `indices`, but the permutation takes constant memory. With `repeats` (Hoffer
    et al. 2020, "Augment your batch") a batch holds batch_size / repeats different examples, about,
    one after the other and then again: the permutation goes on `repeats` times as slowly, and every
    example still has its turn. `visit` counts how often it came before. Both are int32 [count].
    """
    from data_sources.record_source import shuffled

    # Odd, if it can be: then an example has one neighbour and then the other, and never itself,
    # with which it may be mixed.
    apart = batch_size
    if repeats > 1:
        apart = min(max(-(-batch_size // repeats) | 1, 2), batch_size)
    example, visit = np.empty(count, np.int32), np.empty(count, np.int32)
    for row, position in enumerate(range(first, first + count)):
        batch, place = divmod(position, batch_size)
        repeat, slot = divmod(place, apart)
        epoch, turn = divmod(batch * apart + slot, size)
        example[row] = shuffled(turn, size, zlib.crc32(f'{seed} {epoch} stream'.encode()))
        visit[row] = epoch * repeats + repeat
    return example, visit


@dataclasses.dataclass(frozen=True)
class StreamPlan:
    """Training batches of a streamed set: batch number -> rows; picklable, for worker processes."""

    seed: int
    size: int
    batch_size: int
    repeats: int
    process: int = 0
    processes: int = 1

    @property
    def share(self) -> int:
        """Examples of a batch that are this process's."""
        return self.batch_size // self.processes

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> dict:
        """Returns the rows start .. stop - 1 of this process's part; all of them without `stop`.

        {'index', 'epoch' int32, 'mask' float32}.
        """
        count = (self.share if stop is None else stop) - start
        first = number * self.batch_size + self.process * self.share + start
        example, visit = stream_indices(
            self.seed, self.size, self.batch_size, self.repeats, first, count
        )
        return {'index': example, 'epoch': visit, 'mask': np.ones(count, np.float32)}


def train_stream(config, source, start_step: int = 0, process: int = 0, processes: int = 1):
    """Returns this process's part of training batches start_step, ... as a Grain data set.

    What a batch holds is in data_sources.stream.dataset.
    """
    from data_sources import stream
    from training import augmentations

    data = config.data
    plan = StreamPlan(config.seed, source.size, config.batch_size, data.repeats, process, processes)
    transform = stream.TrainTransform(
        config.seed,
        data.image_size,
        data.crop_scale,
        data.crop_ratio,
        augmentations.on_host(config),
    )
    batches = range(start_step, _FOR_EVER)
    skip = data.on_bad_record == 'skip'
    return stream.dataset(source, plan, batches, transform, skip, data.threads, data.workers)


def eval_stream(config, source, plan: EvalPlan):
    """Returns the plan's batches with their images, as a Grain data set.

    By threads of this process: starting others takes longer than most evaluations.
    """
    from data_sources import stream

    skip = config.data.on_bad_record == 'skip'
    transform = eval_transform(config)
    return stream.dataset(source, plan, range(len(plan)), transform, skip, config.data.threads)


def eval_transform(config):
    """Returns what evaluation makes of an encoded picture of a streamed set."""
    from data_sources import stream

    size = config.data.eval_image_size or config.data.image_size
    return stream.EvalTransform(size, config.data.eval_resize or round(size * 8 / 7))


def batches(config, split: str, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields the global batches of a split with their images, as one process on one device sees.

    'train' goes on for ever from `start_step`; 'validation' and 'test' hold each example once.
    Each batch is {'image' uint8 [b, h, w, c], 'label', 'index' int32 [b], 'mask' float32 [b]}, and
    'epoch' int32 [b] for training. The training loop sends only the indices of a set in memory, and
    gathers on the device: the same examples.
    """
    data = open_split(config, split)
    if split != 'train':
        yield from eval_images(config, data, EvalPlan(data.size, config.eval_batch_size, 1))
    elif config.data.image_size:
        yield from train_stream(config, data, start_step)
    else:
        for batch in train_batches(config, data.size, start_step):
            yield _with_images(batch, data)


def eval_images(config, source, plan: EvalPlan) -> Iterator[dict[str, np.ndarray]]:
    """Yields the plan's batches with their images, streamed or from memory."""
    if config.data.image_size:
        yield from eval_stream(config, source, plan)
    else:
        for batch in plan:
            yield _with_images(batch, source)


def _with_images(batch: dict, source: arrays.ArraySource) -> dict[str, np.ndarray]:
    chosen = batch['index']
    return {**batch, 'image': source.images[chosen], 'label': source.labels[chosen]}
