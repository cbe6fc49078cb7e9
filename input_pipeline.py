"""The only way to the data: batches(config, split, start_step).

Batch t is a function of (data set, seed, t) alone. The training batches are consecutive slices of
an endless list of positions, epoch after epoch, each epoch a fresh permutation: position p is
example permutation(seed, p // n)[p % n]. So every example comes once an epoch, none is dropped, and
a batch may straddle two epochs. Nothing here counts devices: a host takes a slice of the list.

A data set that fits lives on the device, and a batch is only indices into it. One that is streamed
(config.data.image_size says so) is decoded anew for every batch, by the same rule: its order is a
permutation in constant memory, and an example may come `data.repeats` times in a row.

What is read beside the images are the targets of the configured task. Worker processes import this
module, so the tasks, and Flax with them, are imported where they are needed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from data_sources import arrays, draws, selection
from data_sources.arrays import ArraySource
from data_sources.plans import EvalPlan, StreamPlan
from data_sources.targets import Kind, TargetError
from errors import UserError

if TYPE_CHECKING:  # Grain takes half a second to import
    import grain

    from data_sources.host_augment import Pipeline
    from data_sources.record_source import RecordSource
    from data_sources.stream import Transform
    from data_sources.tiles import TilePlan

_FOR_EVER = 2**40  # steps
_SMOKE_EXAMPLES = 64


def open_split(config: ConfigDict, split: str) -> 'ArraySource | RecordSource':
    """Opens a split: an ArraySource, or a RecordSource where config.data.image_size is given.

    It has the targets of the configured task, and no others.

    Raises:
      UserError: no such data set or split, its files are damaged, it lacks a target of the task or
        does not suit the configuration in another way, or a class has fewer examples than
        config.data.train_per_class.
    """
    data = config.data
    try:
        source = _loaded(config, split, _targets(config))
    except TargetError as error:
        raise UserError(f'{error} config.task={config.task} needs it.') from error
    check_fits(config, image_shape(config, source)[-1], source.class_names)
    if split != 'train':
        return selection.sample(source, _SMOKE_EXAMPLES) if config.smoke else source
    if not data.train_per_class:
        return source
    if data.image_size:
        raise UserError(
            'config.data.train_per_class needs a data set in memory: data.image_size=None.'
        )
    return selection.few_per_class(source, data.train_per_class, config.seed)


def check_fits(config: ConfigDict, channels: int, class_names: Sequence[str]) -> None:
    """Checks what a configuration says of its data set.

    Raises:
      UserError: the images have other channels, or the set has another number of classes.
    """
    data = config.data
    for name in ('mean', 'std'):
        if len(data[name]) not in (1, channels):
            raise UserError(
                f'config.data.{name} has {len(data[name])} values, but the images of '
                f'{data.name} have {channels} channel(s).'
            )
    if data.num_classes and data.num_classes != len(class_names):
        raise UserError(
            f'config.data.num_classes={data.num_classes}, but data set "{data.name}" in '
            f'{data.dir} has {len(class_names)} classes.'
        )


def _targets(config: ConfigDict) -> Mapping[str, Kind]:
    """Returns {name: kind} of the configured task's targets."""
    from tasks import registry

    return registry.get(config.task).kinds(config)


def _loaded(
    config: ConfigDict, split: str, wanted: Mapping[str, Kind]
) -> 'ArraySource | RecordSource':
    """Opens a split with some targets, in memory or streamed."""
    data = config.data
    if not data.image_size:
        return arrays.load(data.name, split, data.dir, wanted)
    if data.name in arrays.EMBEDDED:
        raise UserError(
            f'Data set "{data.name}" is held in memory: leave config.data.image_size out, or name '
            'a streamed data set by config.data.name.'
        )
    from data_sources import record_source

    return record_source.load(data.name, split, data.dir, wanted)


def check_test_split(config: ConfigDict) -> None:
    """Checks that there is something to test on; nothing of it is read.

    Raises:
      UserError: nothing in the data set can serve as test. That is better known before training.
    """
    data = config.data
    if data.image_size:
        from data_sources import record_source

        record_source.find(data.name, 'test', data.dir, _targets(config))
    else:
        arrays.check_split(data.name, 'test', data.dir)


def image_shape(config: ConfigDict, source: 'ArraySource | RecordSource') -> tuple[int, int, int]:
    """Returns (height, width, channels) of the training images of an open split."""
    return streamed_shape(config) if config.data.image_size else source.images.shape[1:]


def streamed_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the training crops of a streamed set."""
    return (config.data.image_height or config.data.image_size, config.data.image_size, 3)


def indices(
    seed: int, size: int, batch_size: int, step: int, order: Callable | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (example, epoch) of training batch `step`, each int32 [batch_size].

    `order` may be the caller's own cache of `permutation`.
    """
    order = order or permutation
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    epoch, turn = position // size, position % size
    example = np.empty(batch_size, np.int32)
    for number in range(epoch[0], epoch[-1] + 1):
        rows = epoch == number
        example[rows] = order(seed, number, size)[turn[rows]]
    return example, epoch.astype(np.int32)


# The cache holds two epochs, because a batch may straddle them.
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
    config: ConfigDict, size: int, start_step: int = 0, process: int = 0, processes: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's part of training batches start_step, start_step + 1, ... without end.

    Each is {'index', 'epoch' int32 [b], 'mask' float32 [b]} with b = batch_size / processes.
    """
    local_size = config.batch_size // processes
    part = slice(process * local_size, (process + 1) * local_size)
    step = start_step
    while True:
        example, epoch = indices(config.seed, size, config.batch_size, step)
        yield {
            'index': example[part],
            'epoch': epoch[part],
            'mask': np.ones(local_size, np.float32),
        }
        step += 1


def train_stream(
    config: ConfigDict,
    source: 'RecordSource',
    start_step: int = 0,
    process: int = 0,
    processes: int = 1,
) -> 'grain.IterDataset':
    """Returns this process's part of training batches start_step, ... as a Grain data set.

    data_sources.stream.dataset says what a batch holds.
    """
    from augmentation import registry as augmentations
    from data_sources import stream

    data = config.data
    plan = StreamPlan(config.seed, source.size, config.batch_size, data.repeats, process, processes)
    transform = train_transform(config, source.upright, augmentations.on_host(config))
    batches = range(start_step, _FOR_EVER)
    skip = data.on_bad_record == 'skip'
    return stream.dataset(source, plan, batches, transform, skip, data.threads, data.workers)


def train_transform(
    config: ConfigDict, upright: bool, augment: 'Pipeline | None' = None
) -> 'Transform':
    """Returns what training makes of an encoded picture of a streamed set.

    Args:
      config: of the run.
      upright: whether the set's EXIF orientation is applied.
      augment: what is done to the crop; None for nothing.
    """
    from data_sources import stream

    data = config.data
    if data.crop == 'fit':
        frame = streamed_shape(config)[:2]
        return stream.FitTransform(config.seed, frame, data.crop_zoom, augment, upright)
    return stream.TrainTransform(
        config.seed,
        data.image_size,
        data.crop_scale,
        data.crop_ratio,
        augment,
        upright,
        data.crop_zoom if data.crop == 'pixels' else None,
    )


def eval_plan(
    config: ConfigDict,
    source: 'ArraySource | RecordSource',
    devices: int,
    process: int = 0,
    processes: int = 1,
) -> 'EvalPlan | TilePlan':
    """Returns the batches of an evaluation; arguments as for EvalPlan.

    Of a streamed set a dense task gets the tiles of whole pictures, others a crop of each.
    """
    from tasks import registry

    if config.data.image_size and registry.get(config.task).dense:
        from data_sources import tile_stream, tiles

        sizes = tile_stream.sizes(source, config.data.on_bad_record == 'skip')
        where = devices, process, processes
        return tiles.TilePlan(sizes, tile_side(config), config.eval_batch_size, *where)
    return EvalPlan(source.size, config.eval_batch_size, devices, process, processes)


def tile_side(config: ConfigDict) -> int:
    """Returns the side in pixels of the tiles into which a dense task cuts whole pictures."""
    return config.data.tile or -(-(config.data.image_size or 256) // 64) * 64


def eval_stream(
    config: ConfigDict, source: 'RecordSource', plan: 'EvalPlan | TilePlan'
) -> 'grain.IterDataset':
    """Returns the plan's batches, as a Grain data set: images, and targets unless they are tiles.

    Threads of this process decode: starting other processes takes longer than most evaluations.
    """
    skip = config.data.on_bad_record == 'skip'
    if plan.tiled:
        from data_sources import tile_stream

        return tile_stream.dataset(source, plan, skip, config.data.threads)
    from data_sources import stream

    transform = eval_transform(config, source.upright)
    return stream.dataset(source, plan, range(len(plan)), transform, skip, config.data.threads)


def eval_transform(config: ConfigDict, upright: bool) -> 'Transform':
    """Returns what evaluation makes of an encoded picture of a streamed set.

    Args:
      config: of the run.
      upright: whether the set's EXIF orientation is applied.
    """
    from data_sources import stream

    if config.data.crop == 'fit':
        return stream.FitTransform(None, streamed_shape(config)[:2], upright=upright)
    size = config.data.eval_image_size or config.data.image_size
    shorter = config.data.eval_resize or round(size * 8 / 7)
    return stream.EvalTransform(size, shorter, upright, config.data.crop == 'pixels')


def batches(config: ConfigDict, split: str, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields the global batches of a split, as one process on one device sees them.

    'train' starts at `start_step` and has no end; 'validation' and 'test' hold each example once.
    A batch is {'image' uint8 [b, h, w, c], 'index' int32 [b], 'mask' float32 [b]}, the task's
    targets by their names, and for training 'epoch' int32 [b]. Of a set in memory the training loop
    sends only the indices, and gathers the same examples on the device.
    """
    data = open_split(config, split)
    if split != 'train':
        yield from eval_images(config, data, EvalPlan(data.size, config.eval_batch_size, 1))
    elif config.data.image_size:
        yield from train_stream(config, data, start_step)
    else:
        for batch in train_batches(config, data.size, start_step):
            yield _with_images(batch, data)


def eval_images(
    config: ConfigDict, source: 'ArraySource | RecordSource', plan: EvalPlan
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the plan's batches with images and targets, streamed or from memory."""
    if config.data.image_size:
        yield from eval_stream(config, source, plan)
    else:
        for batch in plan:
            yield _with_images(batch, source)


def _with_images(batch: dict[str, np.ndarray], source: ArraySource) -> dict[str, np.ndarray]:
    """Returns a batch of indices with the images and targets that they stand for."""
    return {**batch, **{name: array[batch['index']] for name, array in source.arrays.items()}}
