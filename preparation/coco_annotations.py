"""Reads annotations in COCO's format (cocodataset.org, "Data format", object detection).

A file lists pictures, categories and objects. What a task makes of an object (its mask, its box) is
no matter of this module.
"""

import collections
import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import Any

import files
from errors import UserError
from preparation import splits

MOST = 1 << 29  # bytes of a file; COCO's own largest one has 450 MB
_REMEDY = 'Export the annotations again in the format of COCO.'
_LISTS = {'images': [dict], 'categories': [dict], 'annotations': [dict]}


@dataclasses.dataclass(frozen=True)
class Object:
    """An annotated object.

    Attributes:
      number: its id in the file.
      category: the id of its category.
      segmentation: as in the file: polygons, or a mask in run lengths; None if there is none.
      box: as in the file: [x, y, width, height]; None if there is none.
      crowd: whether it stands for a group of objects.
    """

    number: int
    category: int
    segmentation: Any
    box: Any
    crowd: bool


@dataclasses.dataclass(frozen=True)
class Photo:
    """An annotated picture.

    Attributes:
      file: its path below the folder of pictures.
      height, width: in pixels.
      objects: in it, in the order of the file.
    """

    file: PurePosixPath
    height: int
    width: int
    objects: tuple[Object, ...]


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The contents of a file.

    Attributes:
      path: of the file.
      photos: in the order of their paths.
      categories: {id: name}, in the order of the ids.
    """

    path: Path
    photos: tuple[Photo, ...]
    categories: dict[int, str]


def read(path: Path) -> Annotations:
    """Returns the contents of a file.

    Raises:
      UserError: it is no such file, or its parts do not belong together; names the first fault.
    """
    found = files.read_json(path, _LISTS, _REMEDY, MOST)

    def fail(what: str) -> UserError:
        return UserError(f'{path} cannot be used: {what}. {_REMEDY}')

    categories = {}
    for entry in found['categories']:
        number, name = entry.get('id'), entry.get('name')
        if not _is_whole(number) or not isinstance(name, str) or not name.strip():
            raise fail(f'a category has not "id" and "name": {_short(entry)}')
        if not name.isprintable():  # tfds keeps the names in a file, one on each line
            raise fail(f'the name of category {number} is no line of text: {_short(name)}')
        if number in categories or name in categories.values():
            raise fail(f'category {number} "{name}" is there twice')
        categories[number] = name
    if not categories:
        raise fail('it has no categories')
    photos, objects = {}, {}
    for entry in found['images']:
        number, (height, width) = entry.get('id'), (entry.get('height'), entry.get('width'))
        if not _is_whole(number) or not all(_is_whole(n) and n > 0 for n in (height, width)):
            raise fail(f'an image has not "id", "height" and "width": {_short(entry)}')
        if number in photos:
            raise fail(f'image {number} is there twice')
        photos[number] = (_path(entry.get('file_name'), fail), height, width)
        objects[number] = []
    known = set()
    for entry in found['annotations']:
        numbers = [entry.get(name) for name in ('id', 'image_id', 'category_id')]
        if not all(map(_is_whole, numbers)):
            raise fail(f'an annotation has not "id", "image_id", "category_id": {_short(entry)}')
        number, image, category = numbers
        if image not in objects:
            raise fail(f'annotation {number} belongs to image {image}, which is not there')
        if number in known:
            raise fail(f'annotation {number} is there twice')
        known.add(number)
        crowd = entry.get('iscrowd', 0)
        if crowd not in (0, 1):
            raise fail(f'annotation {number} has "iscrowd": {_short(crowd)}, which is not 0 or 1')
        parts = entry.get('segmentation'), entry.get('bbox')
        objects[image].append(Object(number, category, *parts, bool(crowd)))
    listed = [Photo(*photos[number], tuple(objects[number])) for number in photos]
    twice = [name for name, n in collections.Counter(p.file for p in listed).items() if n > 1]
    if twice:
        raise fail(f'two images have the file_name {twice[0]}')
    listed.sort(key=lambda photo: photo.file.as_posix())
    return Annotations(path, tuple(listed), dict(sorted(categories.items())))


def split_of(path: Path) -> str | None:
    """Returns the split that the name of a file speaks of, or that its folder is named after.

    Such as train for instances_train2017.json and train/labels.json; None for neither.
    """
    words = re.findall('[a-z]+', path.stem.lower())
    found = {splits.NAMES[word] for word in words if word in splits.NAMES}
    return found.pop() if len(found) == 1 else splits.NAMES.get(path.parent.name.lower())


def _path(name: Any, fail: Any) -> PurePosixPath:
    """Returns the path of a picture, which may not lead out of the folder."""
    if not isinstance(name, str) or not name or '\0' in name:
        raise fail(f'an image has no "file_name": {_short(name)}')
    path = PurePosixPath(name.replace('\\', '/'))
    if path.is_absolute() or '..' in path.parts:
        raise fail(f'the file_name {_short(name)} leads out of the folder of pictures')
    try:
        longest = max(len(part.encode()) for part in path.parts)
    except (UnicodeEncodeError, ValueError) as error:
        raise fail(f'the file_name {_short(name)} is that of no file') from error
    if longest > 255 or len(name) > 2000:
        raise fail(f'the file_name {_short(name)} is too long')
    return path


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f'{text[:117]}...'
