"""Boxes with scores and classes by a formula: the same everywhere."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).with_name('suppression.json')
GOLDEN = 12  # the first cases, of which the file has the answers
SIDE = 128  # of the image


class Case(NamedTuple):
    """Boxes [n, 4] (left, top, right, bottom), scores float32 [n], classes int64 [n], threshold."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    iou: float


def mixed(seed: int, count: int) -> np.ndarray:
    """Returns numbers int64 [count] below 2^15, without a generator that may change."""
    values, state = np.empty(count, np.int64), seed * 7919 + 12345
    for i in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        values[i] = state >> 16
    return values


def case(seed: int) -> Case:
    """Returns a case: boxes around a few centres, in quarters of pixels.

    Float32 has all their areas as they are, so that IoU is the same however it is added up. Every
    score occurs once. Some cases have a threshold that IoU of whole numbers often equals.
    """
    count = (1, 5, 40, 200)[seed % 4]
    draws = mixed(seed, 8 * count).reshape(8, count)
    centre = draws[:2] % 4 * 25 + 16 + draws[2:4] % 24 / 4
    side = 8 + draws[4:6] % 8 * 4
    ends = np.stack([centre - side / 2, centre + side / 2]).reshape(4, count)
    boxes = np.clip(ends.T, 0, SIDE).astype(np.float32)
    order = np.argsort(draws[6], kind='stable')
    scores = ((order + 1) / (count + 1)).astype(np.float32)
    iou = (0.5, 0.25, float(np.float32(0.6)), 0.75)[seed // 4 % 4]
    return Case(boxes, scores, draws[7] % (1, 2, 3, 7)[seed % 3], iou)
