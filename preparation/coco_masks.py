"""Masks of objects annotated in COCO's format, as a `mask_sets.MaskSource`.

A pixel belongs to a polygon if its centre lies inside, where (0, 0) is the corner of the first
pixel. pycocotools draws outlines at five times the resolution instead, and covers up to a pixel
more at the edge: the mean IoU of 200 random outlines of 16 to 80 pixels was 0.99, and that of
outlines of 4 to 10 pixels 0.96. Masks in run lengths are the same as pycocotools', pixel for pixel.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_sources import picture_files
from data_sources.label_maps import InstanceMap, LabelMap
from errors import UserError
from preparation import folder_listing
from preparation.coco_annotations import Object, Photo
from preparation.coco_pictures import CocoPictures
from preparation.mask_files import MaskFaultError
from preparation.mask_sets import Drawn, Pair

CROWDS = 'with crowds'
HIDDEN = 'with objects that smaller ones hide'
_MOST_CLASSES = 254  # beside the background


class CocoMasks(CocoPictures):
    """A `mask_sets.MaskSource` of pictures whose objects are annotated in COCO's format.

    With classes, a pixel has that of the smallest object that covers it, and is void where only a
    crowd does. With objects, the k-th annotation of a picture is object k; smaller ones lie on top,
    and crowds are left out.

    Args:
      folder, name, paths: as in CocoPictures.
      instances: whether masks hold objects; otherwise they hold classes.

    Raises:
      UserError: a file cannot be used, or files do not belong together.
    """

    def __init__(self, folder: Path, name: str, paths: Sequence[Path], instances: bool = False):
        super().__init__(folder, name, paths)
        if len(self.categories) > _MOST_CLASSES:
            raise UserError(
                f'{paths[0]} has {len(self.categories)} categories, and a mask has room for '
                f'{_MOST_CLASSES} beside the background.'
            )
        self.instances = instances
        self.class_names = None if instances else ('background', *self.categories.values())
        self._numbers = {category: i for i, category in enumerate(self.categories, start=1)}

    def pairs(self, split: str, cursor: Any) -> Iterator[Pair]:
        """Yields the pairs by path; a cursor is how many of the split were done."""
        for number, size, path, photo in self._of_split(split, cursor):
            file = folder_listing.printable(photo.file.as_posix())
            picture, fault = folder_listing.contents(path)
            draw = functools.partial(drawn, photo, file, self._numbers, self.instances)
            yield Pair(file, photo.file.name, number, size, picture, draw, fault)


# --- one picture ------------------------------------------------------------------------------


def drawn(photo: Photo, file: str, numbers: dict[int, int], instances: bool) -> Drawn:
    """Returns the mask of a picture.

    Args:
      photo: the picture and its objects.
      file: what it is called in messages.
      numbers: {category id: class}.
      instances: whether objects are numbered; otherwise pixels get classes.

    Raises:
      MaskFaultError: an object is damaged, or there are too many.
    """
    if instances and len(photo.objects) > InstanceMap.MOST:
        raise MaskFaultError(file, f'has more than {InstanceMap.MOST:,} objects')
    _check_size(photo, file)
    values = np.zeros((photo.height, photo.width), np.int32)
    crowds, areas = 0, {}
    # Masks are made twice, and not kept: a thousand of them may be larger than the memory.
    for place, thing in enumerate(photo.objects):
        if thing.category not in numbers:
            raise MaskFaultError(file, f'has annotation {thing.number} of an unknown category')
        mask = covered(thing, file, photo.height, photo.width)
        if not thing.crowd:
            areas[place] = int(mask.sum())
            continue
        crowds += 1
        if not instances:
            values[mask] = LabelMap().fill
    for place in sorted(areas, key=lambda place: -areas[place]):
        thing = photo.objects[place]
        mask = covered(thing, file, photo.height, photo.width)
        values[mask] = place + 1 if instances else numbers[thing.category]
    notes, kinds = (), ()
    if crowds:
        what = 'left out' if instances else 'made void'
        notes, kinds = (f'{crowds} crowd(s) were {what}',), (CROWDS,)
    if instances:
        hidden = len(areas) - len(np.unique(values[values > 0]))
        if hidden:
            notes += (f'{hidden} object(s) are without a pixel, or smaller ones hide them',)
            kinds += (HIDDEN,)
    return Drawn(values, notes=notes, kinds=kinds)


def _check_size(photo: Photo, file: str) -> None:
    """Raises a MaskFaultError where the annotations say that a picture is larger than any is."""
    if photo.height * photo.width > picture_files.MAX_PIXELS:
        raise MaskFaultError(file, f'has {photo.width}x{photo.height} pixels in the annotations')


def covered(thing: Object, file: str, height: int, width: int) -> np.ndarray:
    """Returns which pixels an object covers, bool [height, width].

    Raises:
      MaskFaultError: its segmentation is neither polygons nor run lengths that fit the picture.
    """
    outline = thing.segmentation
    try:
        if isinstance(outline, list) and outline:
            return _polygons(outline, height, width)
        if isinstance(outline, dict):
            return _run_lengths(outline, height, width)
        raise ValueError('no polygons and no run lengths')
    except (ValueError, OverflowError) as error:
        raise MaskFaultError(file, f'has annotation {thing.number} with {error}') from error


def _polygons(polygons: list[Any], height: int, width: int) -> np.ndarray:
    from skimage import draw  # takes a while to import

    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(
            isinstance(n, int | float) and not isinstance(n, bool) for n in polygon
        )
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError('a polygon that is not a list of three or more places x, y')
        x, y = np.array(polygon, np.float64).reshape(-1, 2).T
        if not np.isfinite([x, y]).all():
            raise ValueError('a place that is not finite')
        if x.min() < -1 or y.min() < -1 or x.max() > width + 1 or y.max() > height + 1:
            raise ValueError(f'a place outside the picture of {width}x{height} pixels')
        mask[draw.polygon(y - 0.5, x - 0.5, (height, width))] = True
    return mask


def _run_lengths(found: dict[str, Any], height: int, width: int) -> np.ndarray:
    if found.get('size') != [height, width]:
        raise ValueError(f'run lengths of size {found.get("size")}, not {[height, width]}')
    counts = found.get('counts')
    if isinstance(counts, str):
        counts = uncompressed(counts)
    whole = isinstance(counts, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts
    )
    if not whole or sum(counts) != height * width:
        raise ValueError('run lengths that do not add up to the picture')
    # Runs go down the columns, and the first one is outside.
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def uncompressed(text: str) -> list[int]:
    """Returns the run lengths in COCO's compressed text.

    Each character holds five bits, lowest first, and whether more follow. From the fourth run on a
    number is the difference to the one before the last.

    Raises:
      ValueError: the text ends too early, or has a character that does not occur in such texts.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f'the character {character!r} in its run lengths')
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError('a run length with too many digits')
        if bits & 32:
            continue
        if bits & 16:  # negative, in two's complement
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError('run lengths that end too early')
    return counts
