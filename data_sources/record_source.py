"""One split of a prepared data set, left on disk: encoded pictures, read as they are asked for.

For sets of any size and pictures of any size. tfds finds the records (ArrayRecord files, random
access); what they hold is decoded elsewhere (data_sources/decoding.py).
"""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import grain.experimental
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_sources import draws, tfds_sets
from errors import UserError

# Of the cipher behind index_shuffle. After Grain's usual 4, neighbours are correlated by 0.04, ten
# standard deviations of a fair shuffle's; after 12 by no more than chance.
_ROUNDS = 12
_HELD_OUT = zlib.crc32(b'held out')
_SMALL = 2**16
_UNLABELLED = -1  # what tfds gives the examples of a test split whose labels are secret


class Record(NamedTuple):
    """An encoded picture and its class."""

    image: bytes
    label: int


def shuffled(index: int, size: int, seed: int) -> int:
    """Returns the place of `index` in the seed's permutation of range(size), in constant memory.

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
    """The permutation of a small range, which Grain's cipher would search for a long time."""
    return draws.permutation(size, seed, 'shuffled').astype(np.int32)


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """One split of a labelled picture set, on disk. It pickles; each process opens its own files.

    Attributes:
      folder: of the prepared set, <data_dir>/<name>/<version>.
      name: the data set's name.
      split: 'train', 'validation' or 'test'.
      stored: the split in the files that it is, or is a part of.
      start: its first place in the order of the stored split (see `place`).
      size: how many examples it has.
      stored_size: how many the stored split has.
      class_names: the classes in the order of their labels.
    """

    folder: Path
    name: str
    split: str
    stored: str
    start: int
    size: int
    stored_size: int
    class_names: tuple[str, ...]

    def place(self, example: int) -> int:
        """Returns the record of the stored split that is example 0 .. size - 1 of this one.

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
            f'Record {self.place(example)} of split "{self.stored}" in {self.folder} '
            f'(data set "{self.name}") cannot be used: {reason}. Prepare the data set again, or '
            "set config.data.on_bad_record='skip'."
        )

    def read(self, examples: Sequence[int]) -> list[Record]:
        """Returns the records of some examples, 0 .. size - 1 each.

        Raises:
          UserError: the files are gone or damaged, or a label is out of range.
        """
        places = [self.place(int(example)) for example in examples]
        with tfds_sets.damage_named(self.folder):
            # One by one: reading them at once starts threads that cost more than they save.
            files = _open(self.folder, self.stored)
            return [self._parse(place, files[place]) for place in places]

    def _parse(self, place: int, serialised: bytes) -> Record:
        feature = tf_example_pb2.Example.FromString(serialised).features.feature
        label = feature['label'].int64_list.value[0]
        if not 0 <= label < len(self.class_names):
            raise UserError(
                f'Record {place} of split "{self.stored}" in {self.folder} has label {label}, out '
                f'of range for {len(self.class_names)} classes: prepare the data set again.'
            )
        return Record(feature['image'].bytes_list.value[0], label)


# Beside the source, so that it pickles. A run has three splits open at most.
@functools.lru_cache(maxsize=8)
def _open(folder: Path, stored: str):
    """The serialised examples of a stored split."""
    builder = tfds.builder_from_directory(folder)
    return builder.as_data_source(
        stored, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )


def load(name: str, split: str, data_dir: str) -> RecordSource:
    """Opens one split of the data set in <data_dir>/<name>/<highest version>/.

    Raises:
      UserError: as `find` does, or the split has no examples or cannot be read.
    """
    source = find(name, split, data_dir)
    source.read([0])  # files that are missing or cut are found now, not in the middle of a run
    return source


def find(name: str, split: str, data_dir: str) -> RecordSource:
    """Does what `load` does, but reads nothing of the split.

    Raises:
      UserError: not prepared (names the command to run), not ArrayRecord (names the command that
        takes it over), damaged, lacking the split, or unfit: it needs an encoded 'image' and a
        class 'label'.
    """
    folder = tfds_sets.find(name, data_dir)
    with tfds_sets.damage_named(folder):
        builder = tfds.builder_from_directory(folder)
        class_names = _check(builder, folder)
        stored = tfds_sets.counts(builder)
        if stored.get('test') and _unlabelled(folder):
            del stored['test']
        which, start, stop = tfds_sets.locate(split, stored, folder)
    if stop == start:
        raise UserError(f'The {split} split of data set "{name}" has no examples.')
    size = stop - start
    return RecordSource(folder, name, split, which, start, size, stored[which], class_names)


def _check(builder: tfds.core.DatasetBuilder, folder: Path) -> tuple[str, ...]:
    """Returns the class names of a set whose records can be read here."""
    features = dict(builder.info.features or {})
    image, label = features.get('image'), features.get('label')
    encoded = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8
    if not encoded or not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise UserError(
            f'The data set in {folder} cannot be streamed: that takes an "image" in uint8 and a '
            f'class "label", and it has {features}.'
        )
    kind = builder.info.file_format
    if kind != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f'The data set in {folder} is stored as {kind.value if kind else "unknown"}: run '
            f'"python -m tools.prepare_data from_tfrecord --source={folder}" to take it over.'
        )
    return tuple(label.names)


def _unlabelled(folder: Path) -> bool:
    """Whether the test split has no labels, as ImageNet's as tfds prepares it."""
    example = tf_example_pb2.Example.FromString(_open(folder, 'test')[0])
    return example.features.feature['label'].int64_list.value[0] == _UNLABELLED
