"""Turns pictures with a number for each pixel into checked examples to be written.

A source of such pictures (`MaskSource`) says of each example where its picture is and how its mask
is made; `MaskSet` checks both, brings them together, and is what `sharded_writer.prepare` writes:

    source = MyMasks(...)               # has `pairs(split, cursor)`, a generator of `Pair`
    sharded_writer.prepare(mask_sets.MaskSet(source, stretch=None), data_dir, max_rejected)

An example has `image`, `file_name` and one of
  `segmentation_mask`   the class of each pixel; 255: not known (void). 8-bit grey PNG
  `instance_map`        the object of each pixel from 1 on; 0: background. A tensor of 16 bits,
                        because tfds reads no picture of 16 bits without OpenCV

How a picture is stored is said in stored_pictures.py.

A mask belongs to the upright picture, as EXIF turns it when it is read. One that fits the picture
only as it is stored stays as it is, and so does the picture: it is stored without its EXIF data, so
that nothing turns it any more, and listed.
"""

import dataclasses
import functools
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from data_sources import orientation, picture_files
from data_sources.label_maps import InstanceMap, LabelMap
from errors import UserError
from preparation import picture_check, sharded_writer, stored_pictures, tfds_files
from preparation.mask_files import MaskFaultError
from preparation.sharded_writer import Item, Totals

UNTURNED = 'left unrotated with its mask'
_CLASS = 'class '  # + its number: a kind under which the pictures that show it are counted
_CLASSES = 255  # at most: 0 .. 254
_WHERE = {False: 'segmentation_mask', True: 'instance_map'}
_KINDS = {False: LabelMap(), True: InstanceMap()}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A mask.

    Attributes:
      values: int [height, width]: classes or objects.
      file: the name of its file in messages; '' if it has none of its own.
      notes: what the user should know of it, such as that objects overlap; the example is kept,
        and listed with these sentences.
      kinds: the words under which such an example is counted.
    """

    values: np.ndarray
    file: str = ''
    notes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pair:
    """A picture of a source and its mask.

    Attributes:
      file: the name of the picture's file in messages to the user.
      name: the name that is stored as file_name.
      cursor: any JSON value; `pairs(split, cursor)` continues after this pair.
      size: the bytes of the source that it takes up, for the progress bar.
      picture: the contents of the picture's file; None if there is a fault.
      draw: makes the mask, called in a thread; raises MaskFaultError. None if there is a fault.
      fault: why there is no example, or ''.
      defective: whether the fault counts as a defect of the source.
    """

    file: str
    name: str
    cursor: Any
    size: int
    picture: bytes | None = None
    draw: Callable[[], Drawn] | None = None
    fault: str = ''
    defective: bool = True


class MaskSource(Protocol):
    """Where pictures with masks come from; `splits` and `stamp` are as in sharded_writer.Source.

    Attributes:
      instances: whether masks hold objects; otherwise they hold classes.
      class_names: of the classes 0, 1, ...; None: the numbers themselves, up to the largest that
        occurs. Of no meaning with `instances`.
    """

    name: str
    version: str
    description: str
    homepage: str
    citation: str
    splits: Mapping[str, int]
    instances: bool
    class_names: tuple[str, ...] | None

    def identity(self) -> dict[str, Any]:
        """Returns as JSON what defines the examples."""

    def stamp(self) -> Any:
        """Returns JSON that changes when the source changes."""

    def pairs(self, split: str, cursor: Any) -> Iterator[Pair]:
        """Yields the pairs of a split after `cursor`, or all of them for None; a generator."""


class MaskSet:
    """A `sharded_writer.Source` of pictures with masks, each of which is decoded once.

    Args:
      source: where they come from.
      stretch: the percentile by which pictures are stretched (data_sources/stretching.py) and then
        stored as PNG; None: they are not.
    """

    def __init__(self, source: MaskSource, stretch: float | None = None):
        self._source = source
        self._stretch = stretch
        self.name = source.name
        self.version = source.version
        self.splits = source.splits
        self.shard_bytes = sharded_writer.SHARD_BYTES

    def identity(self) -> dict[str, Any]:
        """Returns the identity of the source, and what is done with it here."""
        names = self._source.class_names
        return {
            **self._source.identity(),
            'target': _WHERE[self._source.instances],
            'class_names': None if names is None else list(names),
            'stretch': self._stretch,
        }

    def stamp(self) -> Any:
        """Returns the stamp of the source."""
        return self._source.stamp()

    def items(self, split: str, cursor: Any) -> Iterator[Item]:
        """Yields the examples in the order of the source; several threads check and serialise."""
        to_item = functools.partial(
            _to_item,
            instances=self._source.instances,
            class_names=self._source.class_names,
            stretch=self._stretch,
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow warns about unusual metadata
            threads = min(os.cpu_count() or 1, 16)
            yield from picture_check.in_order(to_item, self._source.pairs(split, cursor), threads)

    def describe(self, folder: Path, splits: Mapping[str, Totals]) -> None:
        """Writes tfds's files; builder.info.metadata says 'upright', 'stretch' and 'kinds'.

        Raises:
          UserError: masks that should hold classes hold 0 and 255 alone.
        """
        target = _WHERE[self._source.instances]
        kinds = {
            split: {k: n for k, n in total.kinds.items() if not k.startswith(_CLASS)}
            for split, total in splits.items()
        }
        description = self._source.description
        if self._stretch is not None:
            description += (
                f' The values of each picture at the percentiles {self._stretch:g} and '
                f'{100 - self._stretch:g} became black and white.'
            )
        tfds_files.describe(
            folder,
            {
                'image': tfds.features.Image(
                    shape=(None, None, 3), dtype=np.uint8, encoding_format='png'
                ),
                target: self._target(splits),
                'file_name': tfds.features.Text(),
            },
            splits,
            metadata={
                'upright': True,
                'stretch': self._stretch,
                'kinds': kinds,
                'rejected': {split: total.defective for split, total in splits.items()},
            },
            supervised_keys=('image', target),
            version=self.version,
            description=description,
            homepage=self._source.homepage,
            citation=self._source.citation,
        )

    def _target(self, splits: Mapping[str, Totals]) -> tfds.features.FeatureConnector:
        """Returns the feature that the masks are."""
        shape = (None, None, 1)
        if self._source.instances:
            return tfds.features.Tensor(shape=shape, dtype=np.uint16, encoding='zlib')
        found = [
            int(kind.removeprefix(_CLASS))
            for total in splits.values()
            for kind in total.kinds
            if kind.startswith(_CLASS)
        ]
        if max(found, default=0) == 0:
            raise UserError(
                f'The masks of "{self.name}" hold no class but 0; 255 means that the class is not '
                'known. If 255 stands for an object, write 1 in its place, or give --instances if '
                'objects are to be told apart.'
            )
        names = self._source.class_names
        return tfds.features.LabeledImage(
            labels=list(map(str, range(max(found) + 1)) if names is None else names),
            shape=shape,
            dtype=np.uint8,
            encoding_format='png',
        )


def _to_item(
    pair: Pair, instances: bool, class_names: tuple[str, ...] | None, stretch: float | None
) -> Item:
    """Checks one pair and serialises it; called from several threads. Never raises."""
    rejected = functools.partial(Item, pair.cursor, pair.size)
    if pair.picture is None or pair.draw is None:
        return rejected(file=pair.file, fault=pair.fault, defective=pair.defective)
    checked = picture_check.check(pair.picture)
    if checked.fault:
        return rejected(file=pair.file, fault=checked.fault)
    try:
        drawn = pair.draw()
        turn = _may_be_turned(checked.data, drawn)
        _check_values(drawn, instances, class_names)
        image, kinds = stored_pictures.stored(checked.data, stretch, turn)
    except MaskFaultError as fault:
        return rejected(file=fault.file or pair.file, fault=fault.reason)
    except Exception as error:  # Pillow's decoders have no common error
        return rejected(file=pair.file, fault=f'does not decode: {error}')
    notes = drawn.notes
    if not turn:
        notes += (
            'kept as it is stored, because its mask fits only the picture before EXIF turns it',
        )
        kinds += (UNTURNED,)
    if not instances:
        kinds += tuple(f'{_CLASS}{number}' for number in np.unique(drawn.values) if number != 255)
    name = pair.name.encode('utf-8', 'replace')
    record = tfds_files.serialized(
        {'image': image, **_stored_mask(drawn.values, instances), 'file_name': name}
    )
    kinds = (*checked.kinds, *drawn.kinds, *kinds)
    return Item(pair.cursor, pair.size, record, kinds, pair.file, '; '.join(notes), defective=False)


def _may_be_turned(encoded: bytes, drawn: Drawn) -> bool:
    """Returns whether a picture may be turned upright: its mask fits it then.

    Raises:
      MaskFaultError: the mask fits neither then nor before.
    """
    with picture_files.opened(encoded) as picture:
        number, (width, height) = orientation.of(picture), picture.size
    stored = (height, width)
    upright = stored[::-1] if orientation.exchanges_sides(number) else stored
    if drawn.values.shape not in (upright, stored):
        mask, picture = (f'{shape[1]}x{shape[0]}' for shape in (drawn.values.shape, upright))
        raise MaskFaultError(drawn.file, f'the mask has {mask} pixels, the picture {picture}')
    return drawn.values.shape == upright


def _check_values(drawn: Drawn, instances: bool, class_names: tuple[str, ...] | None) -> None:
    """Raises MaskFaultError if a pixel has no class, or no number that an object can have."""
    kind, names = _KINDS[instances], class_names or range(_CLASSES)
    if not kind.valid(drawn.values[None], names)[0]:
        raise MaskFaultError(drawn.file, f'a mask {kind.fault(drawn.values, names)}')


def _stored_mask(values: np.ndarray, instances: bool) -> dict[str, bytes | tuple[int, ...]]:
    """Returns the features of a record that hold a mask, as tfds stores them."""
    where = _WHERE[instances]
    if not instances:
        return {where: stored_pictures.png(values.astype(np.uint8))}
    packed = zlib.compress(np.ascontiguousarray(values, '<u2').tobytes())
    return {f'{where}/value': packed, f'{where}/shape': (*values.shape, 1)}
