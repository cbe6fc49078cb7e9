"""Boxes of objects annotated in COCO's format, as a `box_sets.BoxSource`.

A box is [x, y, width, height] in pixels; (0, 0) is the corner of the picture.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError, did_you_mean, shown
from preparation import folder_listing
from preparation.box_sets import Boxed, BoxFaultError, Marked
from preparation.coco_annotations import Photo
from preparation.coco_pictures import CocoPictures

CROWDS = 'with boxes around several objects'


class CocoBoxes(CocoPictures):
    """A `box_sets.BoxSource` of pictures whose objects are annotated in COCO's format.

    Args:
      folder, name, paths: as in CocoPictures.
      class_names: names of categories, in the order of the classes; None: all categories, in the
        order of their ids.

    Raises:
      UserError: a file cannot be used, or files do not belong together.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        paths: Sequence[Path],
        class_names: tuple[str, ...] | None = None,
    ):
        super().__init__(folder, name, paths)
        for wanted in class_names or ():
            if wanted not in self.categories.values():
                known = did_you_mean(wanted, self.categories.values())
                raise UserError(f'{paths[0]} has no category {shown(wanted)}.{known}')
        self.class_names = class_names or tuple(self.categories.values())
        self._numbers = {
            category: self.class_names.index(name)
            for category, name in self.categories.items()
            if name in self.class_names
        }

    def about_left_out(self) -> list[str]:
        """Returns no sentences: pictures without annotations are no part of the source."""
        return []

    def boxed(self, split: str, cursor: Any) -> Iterator[Boxed]:
        """Yields the pictures by path; a cursor is how many of the split were done."""
        for number, size, path, photo in self._of_split(split, cursor):
            file = folder_listing.printable(photo.file.as_posix())
            picture, fault = folder_listing.contents(path)
            mark = functools.partial(marked, photo, self._numbers, self.categories)
            yield Boxed(file, photo.file.name, number, size, picture, mark, fault=fault)


def marked(photo: Photo, numbers: Mapping[int, int], categories: Mapping[int, str]) -> Marked:
    """Returns the objects of a picture.

    Args:
      photo: the picture.
      numbers: {category id: class}.
      categories: {category id: name}.

    Raises:
      BoxFaultError: an object is of another class, or has no box.
    """
    names, boxes = [], []
    for thing in photo.objects:
        called = f'annotation {thing.number}'
        if thing.category not in numbers:
            name = categories.get(thing.category)
            what = f'category {thing.category}, which is not there'
            raise BoxFaultError(
                f'{called} is of ' + (what if name is None else f'{shown(name)}, not a class given')
            )
        box = thing.box
        sound = isinstance(box, list) and len(box) == 4
        if not sound or not all(_is_number(side) for side in box):
            raise BoxFaultError(f'{called} has {shown(box)} for "bbox", not [x, y, width, height]')
        x, y, width, height = (float(side) for side in box)
        names.append(called)
        boxes.append((y, x, y + height, x + width))
    crowd = tuple(thing.crowd for thing in photo.objects)
    return Marked(
        np.array(boxes, np.float64).reshape(-1, 4),
        tuple(numbers[thing.category] for thing in photo.objects),
        tuple(names),
        crowd,
        size=(photo.height, photo.width),
        kinds=(CROWDS,) * any(crowd),
    )


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
