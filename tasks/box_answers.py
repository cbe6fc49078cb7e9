"""A detector's answers on the host: beside the truth, in words, and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_sources import geometry
from data_sources.box_targets import CLASS, CROWD
from tasks.answer import Box, Choice
from tasks.average_precision import Found, Truth
from tasks.overlays import color_of

# Of a score in what is counted. What is less comes from the order in which numbers were added,
# which depends on the number of devices and of pictures that are looked at together.
GRAIN = 2.0**-20


def there(objects: np.ndarray) -> np.ndarray:
    """Returns the rows [n, 6] of objects that are there."""
    return objects[(objects[:, 2] > objects[:, 0]) & (objects[:, 3] > objects[:, 1])]


def taken_back(
    prediction: Mapping[str, np.ndarray], matrix: np.ndarray, size: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns predictions with boxes in the pixels of the pictures that images were taken from.

    Boxes are cut off at the picture's edges. What was found beside it, in the black part of the
    image, is not there.

    Args:
      prediction: 'boxes' [..., n, 4] and 'scores' [..., n].
      matrix: [..., 2, 3], by which each image was taken from its picture.
      size: [..., 2], (height, width) of the pictures.
    """
    boxes = geometry.taken_back(prediction['boxes'].astype(np.float64), matrix)
    ends = np.concatenate([size, size], -1)[..., None, :]
    boxes = np.round(np.clip(boxes, 0, ends), 3)
    inside = (boxes[..., 2:] > boxes[..., :2]).all(-1) & (prediction['scores'] > 0)
    scores = prediction['scores'] * inside
    return {**prediction, 'boxes': boxes * inside[..., None], 'scores': scores}


def collected(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns rows of a batch with boxes in the pixels of their own pictures.

    Rounding in the network must not decide what is counted. Scores are multiples of GRAIN, not
    above what the network says, so that one that is chosen as a threshold is reached again. Boxes
    are multiples of 0.001 pixels. True ones are of 0.01: whole pixels, as most are, went through
    fractions and the frame in float32, and come back as whole pixels. The size of an object at the
    border of 32 x 32 pixels depends on it.
    """
    objects, placement = rows['objects'].astype(np.float64), rows['placement']
    matrix, size = placement[..., :3], placement[..., 3]
    present = objects[..., 2] > objects[..., 0]
    edges = np.round(geometry.taken_back(objects[..., :4], matrix), 2)
    objects[..., :4] = edges * present[..., None]
    found = taken_back(rows, matrix, size)
    scores = found['scores'].astype(np.float64)
    grains = np.where(scores > 0, np.maximum(np.floor(scores / GRAIN), 1), 0)
    return {**found, 'objects': objects, 'scores': grains * GRAIN}


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


def scaled(values: Mapping[str, np.ndarray], factors: tuple[float, float]) -> dict[str, np.ndarray]:
    """Returns 'objects' or 'boxes' of a picture that is scaled by factors of height and width."""
    found = dict(values)
    for name in {'objects', 'boxes'} & values.keys():
        edges = values[name][..., :4] * np.tile(np.asarray(factors, values[name].dtype), 2)
        found[name] = np.concatenate([edges, values[name][..., 4:]], axis=-1)
    return found


def choices(
    prediction: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    stages: Mapping[float, str],
    most: int | None = None,
) -> tuple[Choice, ...]:
    """Returns all boxes of a prediction as what can be explained, numbered within their class.

    Args:
      prediction: one example's, in the pixels of its image.
      class_names: of the data set.
      stages: {the largest distance from an object's middle to an edge: the stage for so large
        ones}, ascending.
      most: how many, at most.
    """
    found, numbers = [], [0] * len(class_names)
    for row in np.flatnonzero(prediction['scores'] > 0)[:most]:
        label, box = int(prediction['classes'][row]), prediction['boxes'][row].astype(np.float32)
        score = float(prediction['scores'][row])
        numbers[label] += 1
        name = f'{class_names[label]} #{numbers[label]}'
        reach = max(box[2:] - box[:2]) / 2
        stage = next((stage for end, stage in stages.items() if reach <= end), None)
        values = {'class': np.int32(label), 'box': box}
        found.append(Choice(name, score, f'{name} {score:.1%}', values, stage))
    return tuple(found)


def boxes(choices: Sequence[Choice], class_names: Sequence[str]) -> tuple[Box, ...]:
    """Returns what `choices` are, for whoever draws them."""
    found = []
    for choice in choices:
        label = int(choice.values['class'])
        edges = tuple(map(float, choice.values['box']))
        about = (choice.name, class_names[label], choice.sureness, color_of(label + 1), edges)
        found.append(Box(*about))
    return tuple(found)


def listed(answer: Mapping[str, np.ndarray], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a row for each object of an answer, the surest first; edges in pixels."""
    rows = []
    for number, (row, score) in enumerate(zip(answer['objects'], answer['scores'], strict=True), 1):
        edges = dict(zip(('top', 'left', 'bottom', 'right'), row[:4], strict=True))
        about = {'id': number, 'class': class_names[int(row[CLASS])], 'score': float(score)}
        rows.append(about | {name: round(float(edge), 2) for name, edge in edges.items()})
    return rows
