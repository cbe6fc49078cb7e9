"""Reads the boxes of a picture in YOLO's text: a box on each line, in fractions of the sides.

    0 0.5 0.25 0.1 0.2          class, centre x, centre y, width, height
    0 0.1 0.1 0.9 0.1 0.5 0.8   class, and the places x y of a polygon, of which the enclosing box
                                is taken (labels of segmentation, and boxes that are turned)

Where data.yaml has `kpt_shape`, what follows the box are key points, which are passed over.
"""

import re

import numpy as np

from errors import shown
from preparation.box_sets import BoxFaultError, Marked

MOST = 16 << 20  # bytes of a file
POLYGONS = 'with polygons, whose enclosing boxes were taken'
UNLABELLED = 'without a file of boxes, taken to have none'
_CLASS = re.compile(r'([0-9]{1,6})(\.0*)?')  # some programs write all numbers with a point
_FAR = 2.0  # a fraction of the sides that is none: places were probably written in pixels


def rows(encoded: bytes, keypoints: bool = False) -> list[tuple[int, tuple[int, list[float]]]]:
    """Returns (number of the line, (class, the numbers after it)) of each line.

    Args:
      encoded: the contents of a file.
      keypoints: whether key points follow a box, so that there may be an odd number of numbers.

    Raises:
      BoxFaultError: it is no text, or has a line of another form.
    """
    if len(encoded) > MOST:
        raise BoxFaultError(f'has more than {MOST >> 20} MiB')
    try:
        lines = encoded.decode('utf-8-sig').splitlines()
    except UnicodeDecodeError:
        raise BoxFaultError('is not a text in UTF-8') from None
    return [
        (number, _row(number, line, keypoints))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def read(encoded: bytes, classes: int, keypoints: bool = False) -> Marked:
    """Returns the objects in a file.

    Args:
      encoded: its contents.
      classes: how many there are.
      keypoints: whether key points follow a box.

    Raises:
      BoxFaultError: it is no such file, or an object has no class.
    """
    boxes, labels, names, polygons = [], [], [], False
    for number, (label, values) in rows(encoded, keypoints):
        called = f'line {number}'
        if label >= classes:
            raise BoxFaultError(
                f'{called} has class {label}, out of range for {classes} classes, which are '
                'counted from 0'
            )
        far = [value for value in values if abs(value) > _FAR]
        if far and np.isfinite(far[0]) and not keypoints:
            raise BoxFaultError(
                f'{called} has the place {far[0]:g}: places are fractions of the sides, 0 to 1'
            )
        if len(values) == 4 or keypoints:
            x, y, width, height = values[:4]
            box = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
        else:
            places = np.array(values).reshape(-1, 2)
            (x0, y0), (x1, y1) = places.min(axis=0), places.max(axis=0)
            box, polygons = (y0, x0, y1, x1), True
        boxes.append(box)
        labels.append(label)
        names.append(called)
    return Marked(
        np.array(boxes, np.float64).reshape(-1, 4),
        tuple(labels),
        tuple(names),
        fractions=True,
        kinds=(POLYGONS,) * polygons,
    )


def nothing() -> Marked:
    """Returns what a picture without a file of boxes has: no objects, by YOLO's convention."""
    return Marked(np.zeros((0, 4)), (), (), fractions=True, kinds=(UNLABELLED,))


def _row(number: int, line: str, keypoints: bool) -> tuple[int, list[float]]:
    name, *texts = line.split()
    match = _CLASS.fullmatch(name)
    if not match:
        raise BoxFaultError(f'line {number} starts with {shown(name)}, not the number of a class')
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise BoxFaultError(
            f'line {number} has something else than numbers: {shown(line)}'
        ) from None
    a_polygon = len(values) >= 6 and (keypoints or not len(values) % 2)
    if len(values) != 4 and not a_polygon:
        raise BoxFaultError(
            f'line {number} has {len(values)} numbers after the class: a box has 4 (x, y, width '
            'and height), and a polygon 6, 8 or more'
        )
    return int(match[1]), values
