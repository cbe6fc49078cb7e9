"""Objects and detections in some pictures by a formula: the same everywhere."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).with_name('average_precision.json')
GOLDEN = 12  # the first cases, of which the file has the answers
KEYS = ('ap', 'ap50', 'ap75', 'small', 'medium', 'large')


class Picture(NamedTuple):
    """Objects and detections; boxes float64 [n, 4] are (y0, x0, y1, x1) in quarters of pixels."""

    true_boxes: np.ndarray
    true_classes: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Case(NamedTuple):
    """Pictures, how many classes there are, and how many detections count."""

    pictures: list[Picture]
    num_classes: int
    most: int


def case(seed: int) -> Case:
    """Returns a case. Most detections are near an object; scores occur twice and more often.

    Some pictures have no object or no detection, the last class has no object, and a few objects
    are crowds. Case 3 has no detection at all, case 7 no object.
    """
    num_classes = (4, 2, 7)[seed % 3]
    pictures = [_picture(100 * seed + i, num_classes, seed) for i in range(6 + seed % 5)]
    return Case(pictures, num_classes, (100, 3)[seed % 2])


def mixed(seed: int, count: int) -> np.ndarray:
    """Returns numbers int64 [count] below 2^15, without a generator that may change."""
    values, state = np.empty(count, np.int64), seed * 7919 + 12345
    for i in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        values[i] = state >> 16
    return values


def _picture(seed: int, num_classes: int, number: int) -> Picture:
    draws = mixed(seed, 8 * 12).reshape(8, 12)
    true, spurious = (int(v) for v in (draws[0, 0] % 7, draws[0, 1] % 5))
    true *= number != 7 and draws[0, 2] % 6 != 0
    low = draws[1:3] % 1200 / 4
    side = np.stack([draws[3] % 40 + 8, draws[4] % 40 + 8]) * (1, 1, 4, 8)[seed % 4] / 2
    boxes = np.concatenate([low, low + side]).T
    classes = draws[5] % max(num_classes - 1, 1)
    shifts = (mixed(seed + 7, 4 * 12).reshape(12, 4) % 17 - 8) / 4
    near = np.sort((boxes + shifts).reshape(12, 2, 2), axis=1).reshape(12, 4)
    twice = near[:true] + 0.25 * (number % 2)
    found = np.concatenate([near[:true], twice, boxes[true : true + spurious]])
    labels = np.concatenate([classes[:true], classes[:true], draws[6, :spurious] % num_classes])
    scores = (mixed(seed + 13, len(found)) % 20 + 1) / 32
    if number == 3 or draws[0, 3] % 6 == 0:
        found, labels, scores = found[:0], labels[:0], scores[:0]
    crowd = draws[7, :true] % 8 == 0
    return Picture(boxes[:true], classes[:true], crowd, found, scores, labels)
