"""Turns pictures with boxes around objects into checked examples to be written.

A source of such pictures (`BoxSource`) says of each example where its picture is and how its boxes
are read; `BoxSet` checks both, brings them together, and is what `sharded_writer.prepare` writes:

    source = MyBoxes(...)               # has `boxed(split, cursor)`, a generator of `Boxed`
    sharded_writer.prepare(box_sets.BoxSet(source, stretch=None), data_dir, max_rejected)

An example has `image`, `file_name` and `objects`, a sequence of
  `bbox`        (ymin, xmin, ymax, xmax) as fractions of the upright picture's sides, float32
  `label`       the class
  `is_crowd`    whether the box holds several objects
  `difficult`   whether who drew the box found the object hard to recognize

How a picture is stored is said in stored_pictures.py. Boxes belong to the picture as EXIF turns it
upright. Where the annotation has the size of the picture before that, the boxes are turned with it,
and the picture is listed.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from data_sources import orientation, picture_files
from preparation import picture_check, sharded_writer, stored_pictures, tfds_files
from preparation.sharded_writer import Item, Totals

TURNED = 'with boxes turned upright'
UNSIZED = 'whose size the annotations do not say'
DROPPED, CLIPPED = 'without area, dropped', 'clipped to the picture'
_BOX = 'box '  # + one of these two: a kind under which boxes are counted, and not pictures
# Of a side: what a box may reach out of a picture by the rounding of a few decimals.
_ROUNDING = 1e-4


class BoxFaultError(Exception):
    """The boxes of a picture cannot be used; its text says why, after the name of their file."""


@dataclasses.dataclass(frozen=True)
class Marked:
    """The objects of a picture, as its annotation has them.

    Attributes:
      boxes: float64 [n, 4], (y0, x0, y1, x1) in edges of pixels, or in fractions of the sides.
      labels: the number of each box's class.
      names: what each box is called in messages, such as 'object 3 (dog)'.
      crowd: which boxes hold several objects; () for none.
      difficult: which objects are hard to recognize; () for none.
      size: (height, width) of the picture that the annotation is of; None if it does not say.
      fractions: whether boxes are in fractions of the sides.
      notes: what the user should know of it; the example is kept, and listed with these sentences.
      kinds: the words under which such a picture is counted.
    """

    boxes: np.ndarray
    labels: tuple[int, ...]
    names: tuple[str, ...]
    crowd: tuple[bool, ...] = ()
    difficult: tuple[bool, ...] = ()
    size: tuple[int, int] | None = None
    fractions: bool = False
    notes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Boxed:
    """A picture of a source and its boxes.

    Attributes:
      file: the name of the picture's file in messages to the user.
      name: the name that is stored as file_name.
      cursor: any JSON value; `boxed(split, cursor)` continues after this picture.
      size: the bytes of the source that it takes up, for the progress bar.
      picture: the contents of the picture's file; None if there is a fault.
      mark: reads the boxes, called in a thread; raises BoxFaultError. None if there is a fault.
      annotation: the name of the file with the boxes in messages; '' for that of the picture.
      fault: why there is no example, or ''.
      defective: whether the fault counts as a defect of the source.
    """

    file: str
    name: str
    cursor: Any
    size: int
    picture: bytes | None = None
    mark: Callable[[], Marked] | None = None
    annotation: str = ''
    fault: str = ''
    defective: bool = True


class BoxSource(Protocol):
    """Where pictures with boxes come from; `splits` and `stamp` are as in sharded_writer.Source.

    Attributes:
      class_names: of the classes 0, 1, ...
    """

    name: str
    version: str
    description: str
    homepage: str
    citation: str
    splits: Mapping[str, int]
    class_names: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Returns as JSON what defines the examples."""

    def stamp(self) -> Any:
        """Returns JSON that changes when the source changes."""

    def boxed(self, split: str, cursor: Any) -> Iterator[Boxed]:
        """Yields the pictures of a split after `cursor`, or all of them for None; a generator."""


class BoxSet:
    """A `sharded_writer.Source` of pictures with boxes, each of which is decoded once.

    Args:
      source: where they come from.
      stretch: the percentile by which pictures are stretched (data_sources/stretching.py) and then
        stored as PNG; None: they are not.
    """

    def __init__(self, source: BoxSource, stretch: float | None = None):
        self._source = source
        self._stretch = stretch
        self.name = source.name
        self.version = source.version
        self.splits = source.splits
        self.shard_bytes = sharded_writer.SHARD_BYTES

    def identity(self) -> dict[str, Any]:
        """Returns the identity of the source, and what is done with it here."""
        return {
            **self._source.identity(),
            'target': 'objects',
            'class_names': list(self._source.class_names),
            'stretch': self._stretch,
        }

    def stamp(self) -> Any:
        """Returns the stamp of the source."""
        return self._source.stamp()

    def items(self, split: str, cursor: Any) -> Iterator[Item]:
        """Yields the examples in the order of the source; several threads check and serialise."""
        to_item = functools.partial(_to_item, stretch=self._stretch)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow warns about unusual metadata
            threads = min(os.cpu_count() or 1, 16)
            yield from picture_check.in_order(to_item, self._source.boxed(split, cursor), threads)

    def describe(self, folder: Path, splits: Mapping[str, Totals]) -> None:
        """Writes tfds's files.

        builder.info.metadata says 'upright', 'stretch', 'kinds' of pictures, and of 'boxes' how
        many were dropped or clipped: {split: {what was done: boxes}}.
        """
        kinds, boxes = {}, {}
        for split, total in splits.items():
            named = {k: n for k, n in total.kinds.items() if k.startswith(_BOX)}
            boxes[split] = {k.removeprefix(_BOX): n for k, n in named.items()}
            kinds[split] = {k: n for k, n in total.kinds.items() if k not in named}
        parts = {
            'bbox': tfds.features.BBoxFeature(),
            'label': tfds.features.ClassLabel(names=list(self._source.class_names)),
            'is_crowd': np.bool_,
            'difficult': np.bool_,
        }
        tfds_files.describe(
            folder,
            {
                'image': tfds.features.Image(
                    shape=(None, None, 3), dtype=np.uint8, encoding_format='png'
                ),
                'objects': tfds.features.Sequence(parts),
                'file_name': tfds.features.Text(),
            },
            splits,
            metadata={
                'upright': True,
                'stretch': self._stretch,
                'kinds': kinds,
                'boxes': boxes,
                'rejected': {split: total.defective for split, total in splits.items()},
            },
            supervised_keys=('image', 'objects'),
            version=self.version,
            description=self._source.description,
            homepage=self._source.homepage,
            citation=self._source.citation,
        )


def _to_item(boxed: Boxed, stretch: float | None) -> Item:
    """Checks the boxes of one picture and serialises both; called from threads. Never raises."""
    rejected = functools.partial(Item, boxed.cursor, boxed.size)
    if boxed.picture is None or boxed.mark is None:
        return rejected(file=boxed.file, fault=boxed.fault, defective=boxed.defective)
    checked = picture_check.check(boxed.picture)
    if checked.fault:
        return rejected(file=boxed.file, fault=checked.fault)
    try:
        marked = boxed.mark()
        fractions, notes, kinds = _upright(checked.data, marked)
        sound, more, counted = _inside(fractions, marked.names)
        image, stored_as = stored_pictures.stored(checked.data, stretch, turn=True)
    except BoxFaultError as fault:
        return rejected(file=boxed.annotation or boxed.file, fault=str(fault))
    except Exception as error:  # Pillow's decoders have no common error
        return rejected(file=boxed.file, fault=f'does not decode: {error}')
    record = tfds_files.serialized(
        {
            'image': image,
            **_stored_objects(sound, marked),
            'file_name': boxed.name.encode('utf-8', 'replace'),
        }
    )
    notes = '; '.join((*marked.notes, *notes, *more))
    kinds = (*checked.kinds, *marked.kinds, *kinds, *stored_as, *counted)
    return Item(boxed.cursor, boxed.size, record, kinds, boxed.file, notes, defective=False)


def _upright(encoded: bytes, marked: Marked) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Returns boxes as fractions of the upright picture's sides, notes, and kinds.

    Raises:
      BoxFaultError: the annotation is of a picture of another size.
    """
    with picture_files.opened(encoded) as picture:
        number, (width, height) = orientation.of(picture), picture.size
    stored = (height, width)
    upright = stored[::-1] if orientation.exchanges_sides(number) else stored
    boxes = marked.boxes.reshape(-1, 4)
    if marked.size not in (None, upright, stored):
        sizes = [f'{shape[1]}x{shape[0]}' for shape in (marked.size, upright)]
        raise BoxFaultError(f'is of a picture of {sizes[0]} pixels, and the picture has {sizes[1]}')
    # A number that is not finite is named later.
    with np.errstate(all='ignore'):
        boxes = boxes if marked.fractions else boxes / (2 * (marked.size or upright))
        if marked.size in (None, upright):
            kinds = () if marked.size or marked.fractions else (UNSIZED,)
            return boxes, (), kinds
        note = 'its boxes fit the picture before EXIF turns it, and were turned with it'
        return orientation.turned_boxes(boxes, number), (note,), (TURNED,)


def _inside(
    boxes: np.ndarray, names: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Clips boxes to the picture.

    Args:
      boxes: float64 [n, 4], fractions of the sides.
      names: of the boxes, for messages.

    Returns:
      float32 [n, 4], in which a box without area is to be dropped; notes; and a kind for each box
      that was changed.

    Raises:
      BoxFaultError: a box is not finite, reversed or outside.
    """
    for faulty, what in (
        (~np.isfinite(boxes).all(1), 'has a number that is not finite'),
        ((boxes[:, 2:] < boxes[:, :2]).any(1), 'has a box that ends before it starts'),
    ):
        _refuse(faulty, names, what)
    # As it is stored, so that none is stored that rounding leaves without area.
    clipped = np.clip(boxes, 0, 1).astype(np.float32)
    empty = (boxes[:, 2:] == boxes[:, :2]).any(1)
    outside = ((boxes[:, :2] >= 1) | (boxes[:, 2:] <= 0)).any(1)
    _refuse(outside & ~empty, names, 'has a box outside the picture')
    empty |= (clipped[:, 2:] <= clipped[:, :2]).any(1)
    reaching = ((boxes < -_ROUNDING) | (boxes > 1 + _ROUNDING)).any(1) & ~empty
    clipped[empty] = 0
    notes = ()
    for found, what in ((empty, DROPPED), (reaching, CLIPPED)):
        if found.any():
            notes += (f'boxes {what}: {_some(found, names)}',)
    kinds = (_BOX + DROPPED,) * int(empty.sum()) + (_BOX + CLIPPED,) * int(reaching.sum())
    return clipped, notes, kinds


def _refuse(faulty: np.ndarray, names: tuple[str, ...], what: str) -> None:
    if faulty.any():
        others = int(faulty.sum()) - 1
        more = f' (and {others} more)' * bool(others)
        raise BoxFaultError(f'{names[int(faulty.argmax())]} {what}{more}')


def _some(found: np.ndarray, names: tuple[str, ...]) -> str:
    """Returns the name of the first box that was found, and how many more there are."""
    others = int(found.sum()) - 1
    return names[int(found.argmax())] + f' and {others} more' * bool(others)


def _stored_objects(boxes: np.ndarray, marked: Marked) -> dict[str, np.ndarray | list[int]]:
    """Returns the features of a record that hold the objects, as tfds stores them."""
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    crowd, difficult = (
        flags or (False,) * len(boxes) for flags in (marked.crowd, marked.difficult)
    )
    return {
        'objects/bbox': boxes[kept],
        'objects/label': [int(marked.labels[n]) for n in kept],
        'objects/is_crowd': [int(crowd[n]) for n in kept],
        'objects/difficult': [int(difficult[n]) for n in kept],
    }
