"""One split of a prepared data set, left on disk: encoded pictures are read when they are needed.

For sets of any size and pictures of any size. tfds finds the records (ArrayRecord files, random
access); what they hold is decoded elsewhere (data_sources/decoding.py).
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain.experimental
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_sources import decoding, draws, tfds_sets
from data_sources.targets import LABELS, Kind
from errors import UserError

# Rounds of the cipher behind index_shuffle. After Grain's usual 4, neighbours are correlated by
# 0.04, ten standard deviations of a fair shuffle's; after 12 by no more than chance.
_ROUNDS = 12
_HELD_OUT = zlib.crc32(b'held out')
_SMALL = 2**16


class Record(NamedTuple):
    """An encoded picture and {name: value} of its targets."""

    image: bytes
    targets: dict[str, Any]


def shuffled(index: int, size: int, seed: int) -> int:
    """Returns the entry `index` of the seed's permutation of range(size), in constant memory.

    Args:
      index: 0 .. size - 1.
      size: up to 2**32.
      seed: 0 .. 2**32 - 1.
    """
    if size <= _SMALL:
        return int(_listed(size, seed)[index])
    return grain.experimental.index_shuffle(index, max_index=size - 1, seed=seed, rounds=_ROUNDS)


# A plan straddles two epochs, and a split may be a shuffled part of another.
@functools.lru_cache(maxsize=8)
def _listed(size: int, seed: int) -> np.ndarray:
    """Returns the permutation of a small range, which would take Grain's cipher a long time."""
    return draws.permutation(size, seed, 'shuffled').astype(np.int32)


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """One split of a picture set, on disk. It pickles; each process opens its own files.

    Attributes:
      folder: of the prepared set, <data_dir>/<name>/<version>.
      name: the data set's name.
      split: 'train', 'validation' or 'test'.
      stored: the split in the files that it is, or is a part of.
      start: where it starts in the order of the stored split (see `stored_index`).
      size: how many examples it has.
      stored_size: how many the stored split has.
      class_names: the classes in the order of their labels; none for a set without classes.
      kinds: {name: kind} of the targets that are read.
      upright: whether EXIF orientation is applied; the set's info says so.
      stretch: the percentile by which its pictures were stretched when it was prepared, which new
        ones have to be too (data_sources/stretching.py); None: they were not.
    """

    folder: Path
    name: str
    split: str
    stored: str
    start: int
    size: int
    stored_size: int
    class_names: tuple[str, ...]
    kinds: Mapping[str, Kind]
    upright: bool = False
    stretch: float | None = None

    def stored_index(self, example: int) -> int:
        """Returns the number in the stored split of example 0 .. size - 1 of this one.

        A part of a stored split is a part of a fixed permutation of it: files are often in the
        order of the classes, so that their end would be a few classes only. Sets that hold the same
        pictures at different sizes have the same parts.
        """
        if self.size == self.stored_size:
            return example
        return shuffled(self.start + example, self.stored_size, _HELD_OUT)

    def unusable(self, example: int, reason: Exception) -> str:
        """Returns the sentence that names an example which does not decode, and what to do."""
        return (
            f'{self._record(self.stored_index(example))} (data set "{self.name}") cannot be used: '
            f"{reason}. Prepare the data set again, or set config.data.on_bad_record='skip'."
        )

    def _record(self, index: int) -> str:
        """Returns the name of a record of the stored split, for messages."""
        return f'Record {index} of split "{self.stored}" in {self.folder}'

    def read(self, examples: Sequence[int]) -> list[Record]:
        """Returns the records of some examples, 0 .. size - 1 each.

        Raises:
          UserError: the files are gone or damaged, or a target is out of range.
        """
        indices = [self.stored_index(int(example)) for example in examples]
        with tfds_sets.damage_named(self.folder):
            # One by one: reading them at once starts threads that cost more than they save.
            records = _open(self.folder, self.stored)
            return [self._parse(index, records[index]) for index in indices]

    def _parse(self, index: int, serialized: bytes) -> Record:
        """Returns the record, checked, of a serialized tf.train.Example."""
        features = tf_example_pb2.Example.FromString(serialized).features.feature
        targets = {}
        encoded = features['image'].bytes_list.value[0]
        for name, kind in self.kinds.items():
            if not kind.stored:
                targets[name] = kind.default(self._size(encoded))
                continue
            value = kind.read(name, features)
            kind.check(
                name, np.asarray(value)[None], self.class_names, lambda _: self._record(index)
            )
            targets[name] = kind.in_pixels(value, self._size(encoded)) if kind.fractions else value
        return Record(encoded, targets)

    def _size(self, encoded: bytes) -> tuple[int, int]:
        """Returns (height, width) of a picture; what does not decode is noticed elsewhere."""
        try:
            header = decoding.read_frame(encoded, self.upright)
        except decoding.DecodeError:
            return (1, 1)
        return header.height, header.width


# Not a part of the source, so that it pickles. A run has three splits open at most.
@functools.lru_cache(maxsize=8)
def _open(folder: Path, stored: str) -> Sequence[bytes]:
    """Opens a stored split: its serialized examples."""
    builder = tfds_sets.opened(folder)
    return builder.as_data_source(
        stored, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )


def load(name: str, split: str, data_dir: str, wanted: Mapping[str, Kind] = LABELS) -> RecordSource:
    """Opens one split of the data set in <data_dir>/<name>/<highest version>/.

    Args:
      name: of the data set.
      split: 'train', 'validation' or 'test'.
      data_dir: the folder of prepared data sets.
      wanted: {name: kind} of the targets that are read; other features are left out.

    Raises:
      TargetError: as `find` does.
      UserError: as `find` does, or the split has no examples or cannot be read.
    """
    source = find(name, split, data_dir, wanted)
    source.read([0])  # files that are missing or cut are found now, not in the middle of a run
    return source


def find(name: str, split: str, data_dir: str, wanted: Mapping[str, Kind] = LABELS) -> RecordSource:
    """Does what `load` does, but reads nothing of the split.

    Raises:
      TargetError: the set has no feature that is such a target.
      UserError: not prepared (names the command to run), not ArrayRecord (names the command that
        converts it), damaged, lacking the split, or without an encoded 'image'.
    """
    folder = tfds_sets.find(name, data_dir, streamed=True, wanted=wanted)
    with tfds_sets.damage_named(folder):
        builder = tfds_sets.opened(folder)
        class_names = _check(builder, folder, wanted)
        counts = tfds_sets.counts(builder)
        if counts.get('test') and _is_withheld(folder, 'test', wanted):
            del counts['test']
        stored, start, stop = tfds_sets.locate(split, counts, folder)
        metadata = builder.info.metadata or {}
    if stop == start:
        raise UserError(f'The {split} split of data set "{name}" has no examples.')
    size = stop - start
    stored_size = counts[stored]
    return RecordSource(
        folder,
        name,
        split,
        stored,
        start,
        size,
        stored_size,
        class_names,
        dict(wanted),
        upright=bool(metadata.get('upright')),
        stretch=metadata.get('stretch'),
    )


def _check(
    builder: tfds.core.DatasetBuilder, folder: Path, wanted: Mapping[str, Kind]
) -> tuple[str, ...]:
    """Returns the class names of a set whose records can be read here."""
    features = dict(builder.info.features or {})
    image = features.get('image')
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(
            f'The data set in {folder} cannot be streamed: that needs an "image" in uint8, and it '
            f'has {features}.'
        )
    class_names = tfds_sets.check_targets(features, wanted, folder)
    form = builder.info.file_format
    if form != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f'The data set in {folder} is stored as {form.value if form else "unknown"}: run '
            f'"python -m tools.prepare_data from_tfrecord --source={folder}" to take it over.'
        )
    return class_names


def _is_withheld(folder: Path, stored: str, wanted: Mapping[str, Kind]) -> bool:
    """Returns whether a stored split keeps targets secret, as the test split of tfds' ImageNet."""
    features = tf_example_pb2.Example.FromString(_open(folder, stored)[0]).features.feature
    return any(
        kind.is_withheld(kind.read(name, features)) for name, kind in wanted.items() if kind.stored
    )
