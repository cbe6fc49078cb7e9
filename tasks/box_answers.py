"""A detector's answers on the host: beside the truth, in words, and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_sources import geometry
from data_sources.box_targets import CLASS, CROWD
from tasks.average_precision import Found, Truth

# Of a score in what is counted. What is less comes from the order in which numbers were added,
# which depends on the number of devices and of pictures that are looked at together.
GRAIN = 2.0**-20


def there(objects: np.ndarray) -> np.ndarray:
    """Returns the rows [n, 6] of objects that are there."""
    return objects[(objects[:, 2] > objects[:, 0]) & (objects[:, 3] > objects[:, 1])]


def taken_back(prediction: Mapping[str, np.ndarray], matrix: np.ndarray) -> np.ndarray:
    """Returns the boxes [..., n, 4] of a prediction where its image was taken from."""
    boxes = geometry.taken_back(prediction['boxes'].astype(np.float64), matrix)
    return boxes * (prediction['scores'] > 0)[..., None]


def collected(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns rows of a batch with boxes in the pixels of their own pictures.

    Rounding in the network must not decide what is counted. Scores are multiples of GRAIN, not
    above what the network says, so that one that is chosen as a threshold is reached again. Boxes
    are multiples of 0.001 pixels. True ones are of 0.01: whole pixels, as most are, went through
    fractions and the frame in float32, and come back as whole pixels. The size of an object at the
    border of 32 x 32 pixels depends on it.
    """
    objects, matrix = rows['objects'].astype(np.float64), rows['placement']
    present = objects[..., 2] > objects[..., 0]
    edges = np.round(geometry.taken_back(objects[..., :4], matrix), 2)
    objects[..., :4] = edges * present[..., None]
    scores = rows['scores'].astype(np.float64)
    grains = np.where(scores > 0, np.maximum(np.floor(scores / GRAIN), 1), 0)
    boxes = np.round(taken_back(rows, matrix), 3)
    return {**rows, 'objects': objects, 'boxes': boxes, 'scores': grains * GRAIN}


def compared(rows: Mapping[str, np.ndarray]) -> tuple[list[Found], list[Truth]]:
    """Returns what was found in each picture, and what is there."""
    found, truth = [], []
    for row, objects in enumerate(rows['objects']):
        kept = rows['scores'][row] > 0
        found.append(Found(*(rows[name][row][kept] for name in ('boxes', 'scores', 'classes'))))
        own = there(objects)
        labels, crowd = own[:, CLASS].astype(np.int64), own[:, CROWD] > 0
        truth.append(Truth(own[:, :4], labels, crowd))
    return found, truth


def as_rows(prediction: Mapping[str, np.ndarray], objects: np.ndarray) -> dict[str, np.ndarray]:
    """Returns one example's prediction and targets as rows."""
    rows = {name: prediction[name][None] for name in ('boxes', 'scores', 'classes')}
    return {**rows, 'objects': objects[None]}


def counts(objects: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    """Returns the number of objects of each class."""
    numbers = np.bincount(objects[:, CLASS].astype(int), minlength=len(class_names))
    return {name: int(number) for name, number in zip(class_names, numbers, strict=True)}


def counted(numbers: Mapping[str, int]) -> str:
    """Returns the numbers of objects in words, such as 'RBC: 12, WBC: 1'."""
    named = [f'{name}: {number:,}' for name, number in numbers.items() if number]
    return ', '.join(named) or 'no objects'


def listed(answer: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a row for each object of an answer, the surest first; edges in pixels."""
    rows = []
    for number, (row, score) in enumerate(zip(answer['objects'], answer['scores'], strict=True), 1):
        edges = dict(zip(('top', 'left', 'bottom', 'right'), row[:4], strict=True))
        about = {'id': number, 'class': class_names[int(row[CLASS])], 'score': float(score)}
        rows.append(about | {name: round(float(edge), 2) for name, edge in edges.items()})
    return rows
