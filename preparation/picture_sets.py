"""Turns encoded pictures of any size into checked examples (image, label, file_name) to be written.

The image feature is declared as JPEG, as in tfds's own ImageNet, but a file keeps its bytes: a PNG
stays a PNG, and decoders recognise it by its first bytes.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from preparation import picture_check, sharded_writer, tfds_files
from preparation.sharded_writer import Item, Totals


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file of a source.

    Attributes:
      file: the name of the file in messages to the user.
      name: the name that is stored as file_name.
      label: the number of its class.
      cursor: any JSON value; `pictures(split, cursor)` continues after this picture.
      size: its size in bytes.
      data: its contents; None if there is a fault.
      fault: why it could not be read, or ''.
      defective: whether the fault counts as a defect of the source.
    """

    file: str
    name: str
    label: int
    cursor: Any
    size: int
    data: bytes | None
    fault: str = ''
    defective: bool = True


class PictureSource(Protocol):
    """Where pictures come from; `splits`, `identity`, `stamp` are as in sharded_writer.Source.

    Attributes:
      upright: whether EXIF orientation is applied to the set's pictures, when they are decoded or
        scaled; the set's info says so.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    description: str
    homepage: str
    citation: str
    splits: Mapping[str, int]
    upright: bool

    def identity(self) -> dict[str, Any]:
        """Returns as JSON what defines the examples."""

    def stamp(self) -> Any:
        """Returns JSON that changes when the source changes."""

    def pictures(self, split: str, cursor: Any) -> Iterator[Picture]:
        """Yields the pictures of a split after `cursor`, or all of them for None; a generator."""


class PictureSet:
    """A `sharded_writer.Source` of pictures, each of which is decoded once to check it.

    Args:
      source: where the pictures come from.
      shorter_side: see `picture_check.check`; it is appended to the name, as in imagenet2012_256.
    """

    def __init__(self, source: PictureSource, shorter_side: int | None = None):
        self._source = source
        self._shorter_side = shorter_side
        self.name = f'{source.name}_{shorter_side}' if shorter_side else source.name
        self.version = source.version
        self.splits = source.splits
        self.shard_bytes = sharded_writer.SHARD_BYTES

    def identity(self) -> dict[str, Any]:
        """Returns the identity of the source and the size of the pictures."""
        return {**self._source.identity(), 'shorter_side': self._shorter_side}

    def stamp(self) -> Any:
        """Returns the stamp of the source, and whether pictures are turned upright.

        A set that was prepared before they were stays valid; one that was begun is not continued.
        """
        stamp = self._source.stamp()
        return {'source': stamp, 'upright': True} if self._source.upright else stamp

    def items(self, split: str, cursor: Any) -> Iterator[Item]:
        """Yields the pictures in the order of the source; several threads check and serialise."""
        pictures = self._source.pictures(split, cursor)
        to_item = functools.partial(
            _to_item, shorter_side=self._shorter_side, upright=self._source.upright
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow warns about unusual metadata
            threads = min(os.cpu_count() or 1, 16)
            yield from picture_check.in_order(to_item, pictures, threads)

    def describe(self, folder: Path, splits: Mapping[str, Totals]) -> None:
        """Writes tfds's files; builder.info.metadata has the kinds and the rejected pictures."""
        features = {
            'image': tfds.features.Image(
                shape=(None, None, 3), dtype=np.uint8, encoding_format='jpeg'
            ),
            'label': tfds.features.ClassLabel(names=self._source.class_names),
            'file_name': tfds.features.Text(),
        }
        description = self._source.description
        if self._shorter_side:
            description += (
                f' Pictures with a shorter side of more than {self._shorter_side} pixels were '
                'scaled to it (bicubic, antialiased) and encoded again (JPEG, quality 95, 4:2:0).'
            )
        tfds_files.describe(
            folder,
            features,
            splits,
            metadata={
                'shorter_side': self._shorter_side,
                'upright': self._source.upright,
                'kinds': {split: dict(total.kinds) for split, total in splits.items()},
                'rejected': {split: total.defective for split, total in splits.items()},
            },
            supervised_keys=('image', 'label'),
            version=self.version,
            description=description,
            homepage=self._source.homepage,
            citation=self._source.citation,
        )


def _to_item(picture: Picture, shorter_side: int | None, upright: bool) -> Item:
    """Checks one picture and serialises it; called from several threads."""
    if picture.data is None:
        return Item(
            picture.cursor,
            picture.size,
            file=picture.file,
            fault=picture.fault,
            defective=picture.defective,
        )
    checked = picture_check.check(picture.data, shorter_side, upright)
    if checked.fault:
        return Item(picture.cursor, picture.size, file=picture.file, fault=checked.fault)
    name = picture.name.encode('utf-8', 'replace')
    record = tfds_files.serialized(
        {'image': checked.data, 'label': picture.label, 'file_name': name}
    )
    return Item(picture.cursor, picture.size, record, checked.kinds)
