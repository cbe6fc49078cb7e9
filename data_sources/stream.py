"""Batches of decoded pictures from records on disk, by Grain's threads or worker processes.

What a batch holds follows from its number alone. An element of Grain's data set is a whole batch,
or a part of a large one: Grain's own work per element is then shared by hundreds of pictures.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import grain.experimental
import numpy as np
from absl import flags

from data_sources import cropping, decoding, fitting
from data_sources.decoding import DecodeError
from data_sources.draws import Draws
from data_sources.host_augment import Moved, Pipeline
from data_sources.record_source import Record, RecordSource
from errors import UserError

PART = 256  # pictures that one thread decodes in a row, at most: bounds the memory
# Those of distributed/preemption.py.
_NOTICES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_TRIES = 100  # records that are tried in the place of one that does not decode


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """A random-resized crop, mirrored and augmented, drawn by (seed, visit, example).

    Attributes:
      seed: the run's.
      size: side of the result in pixels.
      scale, ratio: see cropping.crop_box.
      augment: what is done to the crop, as data_sources/host_augment.py; None for nothing.
      upright: whether EXIF orientation is applied.
      zoom: see cropping.window_box; None for the crops of cropping.crop_box.
    """

    seed: int
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    augment: Pipeline | None = None
    upright: bool = False
    zoom: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The result's."""
        return (self.size, self.size, 3)

    def __call__(self, encoded: bytes, visit: int, example: int) -> np.ndarray:
        """Returns uint8 [size, size, 3]."""
        return self.with_matrices(encoded, visit, example)[0]

    def with_matrices(self, encoded: bytes, visit: int, example: int) -> Moved:
        """Returns the same image, and the matrices by which its targets move, in order."""
        draws = Draws(self.seed, 'crop', visit, example)
        frame = decoding.read_frame(encoded, self.upright)
        side = frame.height, frame.width
        if self.zoom is None:
            box = cropping.crop_box(draws, *side, self.size, self.scale, self.ratio)
            image, matrices = cropping.decode_crop(encoded, frame, box, self.size), ()
        else:
            box = cropping.window_box(draws, *side, self.size, self.zoom)
            image, matrices = cropping.decode_window(encoded, frame, box, self.size), ()
        if self.augment is not None:
            draws = Draws(self.seed, 'augment', visit, example)
            image, matrices = self.augment.with_matrices(image, draws)
        return image, (cropping.crop_matrix(box, self.size), *matrices)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """The centre crop.

    Attributes:
      size, shorter, upright: as in cropping.centre.
      own_scale: whether the picture keeps its own scale, whatever `shorter` is.
    """

    size: int
    shorter: int
    upright: bool = False
    own_scale: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """The result's."""
        return (self.size, self.size, 3)

    def __call__(self, encoded: bytes, visit: int = 0, example: int = 0) -> np.ndarray:
        """Returns uint8 [size, size, 3], the same for every visit of every example."""
        del visit, example
        if not self.own_scale:
            return cropping.centre(encoded, self.size, self.shorter, self.upright)
        frame = decoding.read_frame(encoded, self.upright)
        return cropping.decode_window(encoded, frame, self._window(frame), self.size)

    def with_matrices(self, encoded: bytes, visit: int = 0, example: int = 0) -> Moved:
        """Returns the same image, and the matrix by which its targets move."""
        frame = decoding.read_frame(encoded, self.upright)
        if self.own_scale:
            matrix = cropping.crop_matrix(self._window(frame), self.size)
        else:
            matrix = cropping.centre_matrix(frame.height, frame.width, self.size, self.shorter)
        return self(encoded, visit, example), (matrix,)

    def _window(self, frame: decoding.Frame) -> decoding.Box:
        corner = ((side - self.size) // 2 for side in (frame.height, frame.width))
        return decoding.Box(*corner, self.size, self.size)


@dataclasses.dataclass(frozen=True)
class FitTransform:
    """The whole picture, fitted into a frame; see data_sources/fitting.py.

    Attributes:
      seed: the run's; None for evaluation, which draws nothing.
      frame: (height, width) of the result.
      zoom: see fitting.drawn_fit.
      augment, upright: as for TrainTransform.
    """

    seed: int | None
    frame: tuple[int, int]
    zoom: tuple[float, float] = (1.0, 1.0)
    augment: Pipeline | None = None
    upright: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """The result's."""
        return (*self.frame, 3)

    def __call__(self, encoded: bytes, visit: int = 0, example: int = 0) -> np.ndarray:
        """Returns uint8 [*frame, 3]."""
        return self.with_matrices(encoded, visit, example)[0]

    def with_matrices(self, encoded: bytes, visit: int = 0, example: int = 0) -> Moved:
        """Returns the same image, and the matrices by which its targets move, in order."""
        header = decoding.read_frame(encoded, self.upright)
        size = header.height, header.width
        if self.seed is None:
            place = fitting.fit(size, self.frame)
        else:
            draws = Draws(self.seed, 'crop', visit, example)
            place = fitting.drawn_fit(draws, size, self.frame, self.zoom)
        image, matrices = fitting.decode(encoded, header, place, self.frame), ()
        if self.augment is not None:
            draws = Draws(self.seed, 'augment', visit, example)
            image, matrices = self.augment.with_matrices(image, draws)
        return image, (fitting.matrix(place, size, self.frame), *matrices)


Transform = TrainTransform | EvalTransform | FitTransform


class Plan(Protocol):
    """Which examples make a batch; it has to be picklable.

    Attributes:
      local_size: how many examples of each batch are this process's.
    """

    local_size: int

    def __call__(self, number: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Returns rows start .. stop - 1 of this process's part of batch `number`.

        'index' int32: each example's number in its split; 'mask' float32: 0 for padding; for
        training 'epoch' int32: how often the example came before.
        """


@dataclasses.dataclass(frozen=True)
class _Load:
    """A function that decodes part `number % parts` of batch `number // parts`."""

    source: RecordSource
    plan: Plan
    transform: Transform
    skip: bool
    parts: int

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        number, part = divmod(int(number), self.parts)
        start, stop = (self.plan.local_size * k // self.parts for k in (part, part + 1))
        batch = self.plan(number, start, stop)
        count, shape = stop - start, self.transform.shape
        batch['image'] = np.zeros((count, *shape), np.uint8)
        for name, kind in self.source.kinds.items():
            batch[name] = kind.empty(count, shape)
        if self.skip:
            batch['bad'] = np.zeros(count, np.int32)
        real = np.flatnonzero(batch['mask'])
        for row, record in zip(real, self.source.read(batch['index'][real]), strict=True):
            self._fill(batch, row, record)
        return batch

    def _fill(self, batch: dict[str, np.ndarray], row: int, record: Record) -> None:
        """Decodes one record into its row of the batch."""
        example = int(batch['index'][row])
        visit = int(batch['epoch'][row]) if 'epoch' in batch else 0
        try:
            image, matrices = self._decoded(record, visit, example)
        except DecodeError as error:
            if not self.skip:
                raise UserError(self.source.unusable(example, error)) from error
            batch['bad'][row] = 1
            if 'epoch' not in batch:
                batch['mask'][row] = 0  # another in its place would count twice
                return
            image, matrices, record = self._replacement(example, visit)
        batch['image'][row] = image
        for name, value in record.targets.items():
            kind = self.source.kinds[name]
            for matrix in matrices:
                value = kind.moved(value, matrix, image.shape[:2])
            batch[name][row] = value

    def _decoded(self, record: Record, visit: int, example: int) -> Moved:
        """Returns the image, and matrices if a target has to move with its pixels."""
        if any(kind.moves for kind in self.source.kinds.values()):
            return self.transform.with_matrices(record.image, visit, example)
        return self.transform(record.image, visit, example), ()

    def _replacement(
        self, example: int, visit: int
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], Record]:
        """Returns the next example that decodes, drawn as the bad one would have been."""
        for step in range(1, _TRIES):
            [record] = self.source.read([(example + step) % self.source.size])
            try:
                return *self._decoded(record, visit, example), record
            except DecodeError:
                continue
        raise UserError(
            f'{_TRIES} records in a row of the {self.source.split} split in {self.source.folder} '
            'do not decode: prepare the data set again.'
        )


def dataset(
    source: RecordSource,
    plan: Plan,
    batches: range,
    transform: Transform,
    skip: bool = False,
    threads: int = 0,
    workers: int = 0,
) -> grain.IterDataset:
    """Returns some of the plan's batches in order, decoded ahead.

    Each is what the plan says, 'image' uint8 [b, height, width, 3] and the targets by their names,
    stacked. With `skip` there is also 'bad' int32 [b], 1 for a record that did not decode: in
    training another takes its place, in evaluation it is masked.

    Args:
      source: an open split.
      plan: which examples make a batch.
      batches: the numbers of the batches, in steps of 1.
      transform: encoded picture -> pixels.
      skip: whether a record that does not decode is left out; otherwise it ends the run.
      threads: how many decode in each process; 0: one per core, or one in a worker process.
      workers: processes that decode; 0: threads of this one.
    """
    parts = -(-plan.local_size // PART)
    load = _Load(source, plan, transform, skip, parts)
    threads = threads or (1 if workers else available_cores())
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    numbers = grain.MapDataset.range(batches.start * parts, batches.stop * parts)
    loaded = numbers.map(load).to_iter_dataset(options)
    if workers:
        _mark_flags_parsed()
        loaded = loaded.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1), _end_with
        )
    return loaded if parts == 1 else loaded.batch(parts, batch_fn=_joined)


def sent_ahead(batches: grain.IterDataset, send: Callable[[dict], Any], count: int) -> Iterator:
    """Yields send(batch) for each batch; a thread sends up to `count` of them ahead."""
    ahead = grain.experimental.ThreadPrefetchIterDataset(
        batches.map(send), prefetch_buffer_size=count
    )
    with contextlib.closing(iter(ahead)) as sent:
        # Worker processes inherit the signal mask of the thread that starts them. Ctrl-C and a
        # scheduler's notice reach them as well, but the run still needs them to end its step.
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, _NOTICES)
        try:
            sent.start_prefetch()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        try:
            yield from sent
        except RuntimeError as error:
            if 'terminated unexpectedly' not in str(error):
                raise
            raise UserError(
                'A process that decodes pictures was killed, perhaps because memory ran out: set '
                'config.data.workers lower, or to 0 for threads, and start again.'
            ) from error


def _end_with(*_: int) -> None:
    """Ends this worker process once the process that started it is gone, perhaps killed."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the parts of a batch as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _mark_flags_parsed() -> None:
    """Has absl's flags, which Grain reads, count as parsed: the commands here do not use absl."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
