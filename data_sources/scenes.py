"""Small scenes of handwritten digits on a textured ground, for segmentation and detection.

A scene has one to six of the real digits of data_sources/digits.py, 14 to 28 pixels large, anywhere
in 64x64 pixels. Later digits lie on top of earlier ones; the boxes of two overlap by an IoU of 0.1
at most. Scenes of a split have digits of that split only. Each is a function of its split and
number, and all arithmetic is on integers, so that every machine and version sees the same bytes.
"""

import functools
from collections.abc import Mapping

import numpy as np

from data_sources import digits
from data_sources.arrays import ArraySource, empty_images
from data_sources.box_targets import CLASS, Objects
from data_sources.draws import Draws
from data_sources.label_maps import InstanceMap, LabelMap
from data_sources.targets import Kind

SIDE = 64
MOST = 6  # digits in a scene
SIZES = {'train': 2000, 'validation': 200, 'test': 400}
DIGITS = tuple('0123456789')
CLASS_NAMES = ('background', *DIGITS)
KINDS: Mapping[str, Kind] = {
    'segmentation_mask': LabelMap(),
    'instance_map': InstanceMap(),
    'objects': Objects(MOST),
}

_SEED = 2015  # any constant will do, but another one changes every published number
_SMALLEST, _LARGEST = 14, 28  # pixels of a digit's frame
_INK = 128  # the least cover, of 255, of a pixel that belongs to a digit
_TRIES = 60  # places that are tried for a digit before it is left out
_CELLS = 4  # squares along a side of the coarse part of the texture


@functools.lru_cache(maxsize=3)
def load(split: str) -> ArraySource:
    """Returns one split: images uint8 [n, 64, 64, 1], and the targets of `KINDS`.

    'segmentation_mask' is 0 for the ground and 1 + digit for ink; 'instance_map' numbers the digits
    of a scene from 1 in the order in which they were laid; 'objects' have the boxes around all of a
    digit's ink, also where another digit covers it, in the same order, and the digits as classes.

    2,000 scenes are for training, 200 for validation and 400 for test.
    """
    source = digits.source_images(split)
    count = SIZES[split]
    images = empty_images((count, SIDE, SIDE, 1))
    targets = {name: kind.empty(count, images.shape[1:]) for name, kind in KINDS.items()}
    for number in range(count):
        images[number, ..., 0], labels, instances, boxes, found = scene(split, number, *source)
        targets['segmentation_mask'][number] = labels
        targets['instance_map'][number] = instances
        targets['objects'][number, : len(boxes), :CLASS] = boxes
        targets['objects'][number, : len(boxes), CLASS] = found
    for array in (images, *targets.values()):
        array.flags.writeable = False
    names = {'objects': DIGITS}
    return ArraySource('scenes', split, images, targets, CLASS_NAMES, KINDS, names_of=names)


def scene(
    split: str, number: int, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[int, int, int, int]], list[int]]:
    """Returns (pixels uint8, classes uint8, objects int32, each [64, 64], boxes, their digits).

    Args:
      split: its split.
      number: of the scene in its split.
      images, labels: the split's digits, int64 [n, 8, 8] and int32 [n].
    """
    draws = Draws(_SEED, f'scenes {split}', 0, number)
    pixels, base = _ground(draws, split, number)
    classes = np.zeros((SIDE, SIDE), np.uint8)
    instances = np.zeros((SIDE, SIDE), np.int32)
    boxes: list[tuple[int, int, int, int]] = []
    found: list[int] = []
    for _ in range(1 + draws.integer(MOST)):
        digit = draws.integer(len(labels))
        brightness = base + 80 + draws.integer(256 - base - 80)
        placed = _placed(draws, images[digit], boxes)
        if placed is None:
            continue
        cover, top, left, box = placed
        boxes.append(box)
        found.append(int(labels[digit]))
        place = np.s_[top : top + len(cover), left : left + len(cover)]
        pixels[place] = (pixels[place] * (255 - cover) + brightness * cover + 127) // 255
        classes[place][cover >= _INK] = 1 + labels[digit]
        instances[place][cover >= _INK] = len(boxes)
    return pixels.astype(np.uint8), classes, instances, boxes, found


def _ground(draws: Draws, split: str, number: int) -> tuple[np.ndarray, int]:
    """Returns the texture, int64 [64, 64] of 0 to 255, and its mean brightness.

    Cloudy noise, interpolated between the corners of coarse squares, under fine noise.
    """
    base, depth = 30 + draws.integer(80), 4 + draws.integer(28)
    corners = np.array([draws.integer(256) for _ in range((_CELLS + 1) ** 2)])
    weights = _between()
    clouds = weights @ corners.reshape(_CELLS + 1, _CELLS + 1) @ weights.T
    clouds = clouds // (SIDE // _CELLS) ** 2 - 128
    fine = np.frombuffer(Draws(_SEED, f'grain {split}', 0, number).raw(SIDE * SIDE // 8), np.uint8)
    fine = fine.reshape(SIDE, SIDE).astype(np.int64) - 128
    return np.clip(base + (depth * clouds) // 128 + (12 * fine) // 128, 0, 255), base


@functools.cache
def _between() -> np.ndarray:
    """Returns int64 [64, corners], the weights of linear interpolation times the square's side."""
    step = SIDE // _CELLS
    weights = np.zeros((SIDE, _CELLS + 1), np.int64)
    for place in range(SIDE):
        corner, offset = divmod(place, step)
        weights[place, corner], weights[place, corner + 1] = step - offset, offset
    return weights


def _placed(
    draws: Draws, image: np.ndarray, boxes: list[tuple[int, int, int, int]]
) -> tuple[np.ndarray, int, int, tuple[int, int, int, int]] | None:
    """Draws size and place of a digit until its box leaves those of the others free enough.

    Returns:
      (how much of each pixel the ink covers, int64 [side, side] of 0 to 255; top and left of that
      frame; the box), or None if no place was found.
    """
    for _ in range(_TRIES):
        side = _SMALLEST + draws.integer(_LARGEST - _SMALLEST + 1)
        top, left = draws.integer(SIDE - side + 1), draws.integer(SIDE - side + 1)
        cover = digits.scaled(image, side)
        rows, columns = np.nonzero((cover >= _INK).any(1))[0], np.nonzero((cover >= _INK).any(0))[0]
        box = (top + int(rows[0]), left + int(columns[0]),
               top + int(rows[-1]) + 1, left + int(columns[-1]) + 1)  # fmt: skip
        if not any(_overlap(box, other) for other in boxes):
            return cover, top, left, box
    return None


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Returns whether the IoU of two boxes is above 0.1."""
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    if height <= 0 or width <= 0:
        return False
    both = height * width
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return 10 * both > sum(areas) - both
