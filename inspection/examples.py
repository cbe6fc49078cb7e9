"""One pass over a split for looking: pixels and targets, in the order of the data set.

    looked = examples.of(opened.experiment, 'test')
    for chunk in looked:
        opened.look(chunk.images)
    print(looked.note())

Each example comes once, as evaluation sees it. Padding and records that do not decode are left out
of the chunks, and the latter are counted.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

import input_pipeline
from data_sources import draws
from errors import UserError
from training import facts, progress
from training.experiment import Experiment

if TYPE_CHECKING:  # Grain takes half a second to import
    from data_sources.arrays import ArraySource
    from data_sources.record_source import RecordSource

BATCH = 64  # examples at once, whatever the run's batch sizes: results do not depend on them
MOST = 10_000  # examples of a larger split are a sample, unless more are asked for


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some examples.

    Attributes:
      images: uint8 [b, h, w, c].
      targets: {name: array [b, ...]}, the task's.
      positions: int32 [b], each example's number in its split, from 0, ascending.
    """

    images: np.ndarray
    targets: Mapping[str, np.ndarray]
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def target(self, row: int) -> dict[str, np.ndarray]:
        """Returns the targets of one example."""
        return {name: values[row] for name, values in self.targets.items()}


class Examples:
    """An open split; iterating yields its chunks. Where that takes a while, a terminal shows it.

    Args:
      experiment: the run's.
      source: the open split.
      most: how many examples at most; of a larger split they are drawn, the same every time.

    Attributes:
      split: its name.
      size: how many examples it has.
      bad: how many did not decode in the last pass.
    """

    def __init__(self, experiment: Experiment, source: 'ArraySource | RecordSource', most: int):
        self._config, self._source = experiment.config, source
        self.split, self.size = source.split, source.size
        # No beginning of the split, which may be in the order of the classes.
        drawn = draws.permutation(self.size, 0, 'looked at')[:most]
        self._chosen = np.sort(drawn).astype(np.int32)
        self.bad = 0

    @property
    def count(self) -> int:
        """How many examples are looked at, with those that do not decode."""
        return len(self._chosen)

    def __iter__(self) -> Iterator[Chunk]:
        """Yields all examples once.

        Raises:
          UserError: a record is damaged, and config.data.on_bad_record does not say to skip it; or
            not one of them decodes.
        """
        yield from progress.pictures(self._chunks(), self.count, of=len)

    def at(self, positions: Sequence[int]) -> Chunk:
        """Returns some examples that decode, in the order given.

        Args:
          positions: each example's number in its split; at least one.
        """
        wanted, inverse = np.unique(np.asarray(positions, np.int32), return_inverse=True)
        found = list(self._batches(wanted))
        arrays = {
            name: np.concatenate([batch[name] for batch in found])[inverse]
            for name in ('image', 'index', *self._source.kinds)
        }
        return Chunk(arrays.pop('image'), positions=arrays.pop('index'), targets=arrays)

    def images(self, positions: Sequence[int]) -> np.ndarray:
        """Returns the images of some examples that decode: uint8 [n, h, w, c]; as `at`."""
        return self.at(positions).images

    def note(self) -> str:
        """Returns a sentence on what the last pass has left out; '' for nothing."""
        sentences = []
        if self.count < self.size:
            sentences.append(
                f'{self.count:,} of the {self.size:,} examples of the {self.split} split were '
                'drawn and looked at; --most=N sets another number.'
            )
        if self.bad:
            sentences.append(f'{self.bad:,} record(s) did not decode and were left out.')
        return ' '.join(sentences)

    def _chunks(self) -> Iterator[Chunk]:
        self.bad = 0
        for batch in self._batches(self._chosen):
            if 'bad' in batch:
                self.bad += int(batch['bad'].sum())
            real = batch['mask'] > 0
            if real.any():
                targets = {name: batch[name][real] for name in self._source.kinds}
                yield Chunk(batch['image'][real], targets, batch['index'][real])
        if self.bad == self.count:
            raise UserError(
                f'Not one record of the {self.split} split decodes: prepare the data set again.'
            )

    def _batches(self, chosen: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Yields chosen examples, int32 [n], in batches of one size; the last one is padded."""
        plan = _Plan(chosen, min(BATCH, len(chosen)))
        yield from input_pipeline.eval_images(self._config, self._source, plan)


@dataclasses.dataclass(frozen=True)
class Given:
    """Pictures of no split, which can be passed over like one.

    Attributes:
      images: uint8 [n, h, w, c].
    """

    images: np.ndarray

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.images)

    def __iter__(self) -> Iterator[Chunk]:
        """Yields all of them once, without targets."""
        for start in range(0, self.count, BATCH):
            images = self.images[start : start + BATCH]
            yield Chunk(images, {}, np.arange(start, start + len(images), dtype=np.int32))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Chosen examples in batches of one size, as data_sources.plans.EvalPlan has all of them.

    Attributes:
      chosen: int32 [n].
      local_size: examples of a batch.
    """

    chosen: np.ndarray
    local_size: int

    tiled: ClassVar[bool] = False

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.local_size)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return map(self, range(len(self)))

    def __call__(self, number: int, start: int = 0, stop: int | None = None) -> dict:
        """Returns the rows start .. stop - 1 of a batch: 'index' int32 and 'mask' float32."""
        first = number * self.local_size
        position = np.arange(first + start, first + (self.local_size if stop is None else stop))
        real = position < len(self.chosen)
        index = self.chosen[np.minimum(position, len(self.chosen) - 1)]
        return {'index': index, 'mask': real.astype(np.float32)}


def of(experiment: Experiment, split: str, most: int = MOST) -> Examples:
    """Opens a split of the data set that a network was trained on.

    Args:
      experiment: the run's.
      split: 'train', 'validation' or 'test'.
      most: how many examples to look at, at most.

    Raises:
      UserError: the data set is not there, damaged, or another one.
    """
    try:
        source = input_pipeline.open_split(experiment.config, split)
    except UserError as error:
        raise UserError(
            f'{error} Where it lies in another folder, give that by --config.data.dir=DIR.'
        ) from error
    facts.check_split(experiment, source)
    return Examples(experiment, source, most)
