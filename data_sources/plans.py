"""Which examples make the batches of an evaluation, and of the training on a streamed set."""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np


@dataclasses.dataclass(frozen=True)
class EvalPlan:
    """Evaluation batches that hold every example exactly once, padded to one shape by mask 0.

    Attributes:
      size: examples in the split.
      batch_size: wanted examples per call over all devices; rounded up to a multiple of `devices`.
      devices: how many there are, over all processes.
      process, processes: this process's number, and how many there are.
      tiled: whether it has tiles of pictures in place of examples (data_sources/tiles.py).
    """

    size: int
    batch_size: int
    devices: int
    process: int = 0
    processes: int = 1

    tiled: ClassVar[bool] = False

    @property
    def step(self) -> int:
        """Examples per call, padding included."""
        return -(-min(self.batch_size, self.size) // self.devices) * self.devices

    @property
    def local_size(self) -> int:
        """Examples per call that are this process's, padding included."""
        return self.step // self.processes

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-self.size // self.step)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields all of them."""
        return map(self, range(len(self)))

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> dict:
        """Returns the rows start .. stop - 1 of this process's part of a batch.

        They are {'index' int32, 'mask' float32}; without `stop`, all rows from `start` on.
        """
        first = number * self.step + self.process * self.local_size
        position = np.arange(first + start, first + (self.local_size if stop is None else stop))
        return {
            'index': np.minimum(position, self.size - 1).astype(np.int32),
            'mask': (position < self.size).astype(np.float32),
        }


def stream_indices(
    seed: int, size: int, batch_size: int, repeats: int, first: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (example, visit) at positions first .. first + count - 1 of a streamed set's list.

    The list is as for `indices`, but the permutation takes constant memory. With `repeats` (Hoffer
    et al. 2020, "Augment your batch") a batch holds about batch_size / repeats different examples,
    one after the other and then again: the permutation advances 1 / `repeats` as fast, and every
    example still has its turn. `visit` counts how often it came before. Both are int32 [count].
    """
    from data_sources.record_source import shuffled

    # Odd where possible: then an example is next to one neighbour and then to the other, with which
    # it may be mixed, and never to itself.
    apart = batch_size
    if repeats > 1:
        apart = min(max(-(-batch_size // repeats) | 1, 2), batch_size)
    example, visit = np.empty(count, np.int32), np.empty(count, np.int32)
    for row, position in enumerate(range(first, first + count)):
        batch, offset = divmod(position, batch_size)
        repeat, slot = divmod(offset, apart)
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
    def local_size(self) -> int:
        """How many examples of a batch are this process's."""
        return self.batch_size // self.processes

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> dict:
        """Returns the rows start .. stop - 1 of this process's part of a batch.

        They are {'index', 'epoch' int32, 'mask' float32}; without `stop`, all rows from `start` on.
        """
        count = (self.local_size if stop is None else stop) - start
        first = number * self.batch_size + self.process * self.local_size + start
        example, visit = stream_indices(
            self.seed, self.size, self.batch_size, self.repeats, first, count
        )
        return {'index': example, 'epoch': visit, 'mask': np.ones(count, np.float32)}
