"""How good a detector's answers are over a split: COCO's average precision, and curves by score.

COCO's figures (cocodataset.org, "Detection evaluation") come from faster-coco-eval. What depends on
a threshold, and the threshold itself, is at an IoU of 0.5.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks import box_losses

IOU = 0.5


class Found(NamedTuple):
    """A picture's answer.

    Attributes:
      boxes: float [n, 4], (y0, x0, y1, x1) in edges of pixels, the best first.
      scores: float [n].
      classes: int [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Truth(NamedTuple):
    """What is in a picture.

    Attributes:
      boxes: float [n, 4], as for `Found`.
      classes: int [n].
      crowd: bool [n], whether a box holds several objects.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


@dataclasses.dataclass(frozen=True)
class Precision:
    """COCO's figures of a split; None where there is no such object.

    Attributes:
      ap: the mean over classes and over ten IoU from 0.5 to 0.95.
      ap50, ap75: at an IoU of 0.5 and 0.75.
      small, medium, large: `ap` of objects below 32x32 pixels, up to 96x96, and above.
      per_class: (ap, ap50) of each class.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    per_class: tuple[tuple[float | None, float | None], ...]


def evaluate(
    found: Sequence[Found], truth: Sequence[Truth], num_classes: int, most: int = 100
) -> Precision:
    """Returns COCO's figures.

    Args:
      found, truth: for each picture.
      num_classes: how many classes there are.
      most: answers of a picture that count, the best first; COCO takes 100.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(_annotations(truth, num_classes))
    answers = [
        {'image_id': number, 'category_id': int(label) + 1, 'bbox': box, 'score': float(score)}
        for number, picture in enumerate(found, 1)
        for box, score, label in zip(
            _corners_and_sides(picture.boxes), picture.scores, picture.classes, strict=True
        )
    ]
    if not answers or not coco.dataset['annotations']:
        return _without_answers(truth, num_classes)
    evaluation = COCOeval_faster(coco, coco.loadRes(answers), 'bbox')
    evaluation.params.maxDets = [most]
    evaluation.evaluate()
    evaluation.accumulate()
    # [IoU, recall, class, size, number of answers]; -1 where there is no such object.
    precision = evaluation.eval['precision'][..., -1]
    rows = [
        (_mean(precision[:, :, k, 0]), _mean(precision[0, :, k, 0])) for k in range(num_classes)
    ]
    means = [
        _mean(values) for values in (precision[..., 0], precision[0, ..., 0], precision[5, ..., 0])
    ]
    sizes = [_mean(precision[..., size]) for size in (1, 2, 3)]
    return Precision(*means, *sizes, tuple(rows))


def _annotations(truth: Sequence[Truth], num_classes: int) -> dict:
    """Returns what is there in COCO's format."""
    annotations = []
    for number, picture in enumerate(truth, 1):
        for box, label, crowd in zip(
            _corners_and_sides(picture.boxes), picture.classes, picture.crowd, strict=True
        ):
            about = {'id': len(annotations) + 1, 'image_id': number, 'category_id': int(label) + 1}
            about |= {'bbox': box, 'area': box[2] * box[3], 'iscrowd': int(crowd)}
            annotations.append(about)
    return {
        'images': [{'id': number} for number in range(1, len(truth) + 1)],
        'categories': [{'id': k + 1, 'name': str(k)} for k in range(num_classes)],
        'annotations': annotations,
    }


def _corners_and_sides(boxes: np.ndarray) -> list[list[float]]:
    """Returns boxes as COCO has them: left, top, width, height."""
    y0, x0, y1, x1 = np.asarray(boxes, np.float64).T
    return np.stack([x0, y0, x1 - x0, y1 - y0], -1).tolist()


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _mean(precision: np.ndarray) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _without_answers(truth: Sequence[Truth], num_classes: int) -> Precision:
    """Returns 0 for each kind of object that is there, where nothing was found."""
    boxes = np.concatenate([t.boxes[~t.crowd] for t in truth] or [np.zeros((0, 4))])
    labels = np.concatenate([t.classes[~t.crowd] for t in truth] or [np.zeros(0)])
    areas = _area(boxes)

    def zero(there: np.ndarray) -> float | None:
        return 0.0 if there.any() else None

    whole = zero(np.ones(len(boxes), bool))
    small, large = areas < 32**2, areas > 96**2
    sizes = (zero(small), zero(~small & ~large), zero(large))
    rows = tuple((zero(labels == k),) * 2 for k in range(num_classes))
    return Precision(whole, whole, whole, *sizes, rows)


class Matched(NamedTuple):
    """A picture's answer beside what is there, at a threshold.

    Attributes:
      right: bool [n], answers that are an object; the rest of `wrong` and `right` is below the
        threshold, or in a crowd.
      wrong: bool [n], false alarms.
      missed: bool [m], objects that were not found.
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


def matched(
    found: Sequence[Found], truth: Sequence[Truth], threshold: float = 0.0, iou: float = IOU
) -> list[Matched]:
    """Returns which answers of each picture are right, and which objects are missed.

    The best answer chooses first, among the objects of its class that are left, the one with the
    largest IoU.

    Args:
      found, truth: for each picture.
      threshold: answers with lower scores do not count.
      iou: the least IoU of an answer that is right.
    """
    return [_matched(*pair, threshold, iou) for pair in zip(found, truth, strict=True)]


def _matched(found: Found, truth: Truth, threshold: float, iou: float) -> Matched:
    right, wrong = np.zeros((2, len(found.scores)), bool)
    free = ~truth.crowd
    overlap = box_losses.iou(found.boxes, truth.boxes)
    inside = _covered(found.boxes, truth.boxes)
    for i in np.argsort(-found.scores, kind='stable'):
        if found.scores[i] < threshold:
            continue
        own = truth.classes == found.classes[i]
        values = np.where(own & free, overlap[i], -1.0)
        if values.size and values.max() >= iou:
            right[i], free[values.argmax()] = True, False
        elif not (own & truth.crowd & (inside[i] >= iou)).any():
            wrong[i] = True
    return Matched(right, wrong, free)


def _covered(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Returns the fraction [n, m] of each box's area that lies in each of some others."""
    sides = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    sides = np.maximum(sides - np.maximum(boxes[:, None, :2], crowds[None, :, :2]), 0)
    return sides.prod(-1) / np.maximum(_area(boxes), 1e-9)[:, None]


class Curve(NamedTuple):
    """Precision and recall as the threshold goes down.

    Attributes:
      scores: float [n], falling: the threshold of each point.
      precision, recall: float [n].
      objects: how many there are.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    objects: int


@dataclasses.dataclass(frozen=True)
class Curves:
    """Curves at an IoU of 0.5.

    Attributes:
      together: of all classes as one.
      per_class: of each.
    """

    together: Curve
    per_class: tuple[Curve, ...]


def curves(found: Sequence[Found], truth: Sequence[Truth], num_classes: int) -> Curves:
    """Returns precision and recall by score."""
    scores, labels, right, objects = [], [], [], np.zeros(num_classes, np.int64)
    for answer, there, match in zip(found, truth, matched(found, truth), strict=True):
        counts = match.right | match.wrong
        scores.append(answer.scores[counts])
        labels.append(answer.classes[counts])
        right.append(match.right[counts])
        objects += np.bincount(there.classes[~there.crowd].astype(int), minlength=num_classes)
    scores, labels, right = (np.concatenate(parts) for parts in (scores, labels, right))
    each = [
        _curve(scores[labels == k], right[labels == k], int(objects[k])) for k in range(num_classes)
    ]
    return Curves(_curve(scores, right, int(objects.sum())), tuple(each))


def _curve(scores: np.ndarray, right: np.ndarray, objects: int) -> Curve:
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], right[order].cumsum()
    # Answers with one score come together.
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    hits, count = hits[last], np.arange(1, len(scores) + 1)[last]
    return Curve(scores[last], hits / count, hits / max(objects, 1), objects)


class Threshold(NamedTuple):
    """A threshold, and what answers with this score or more are worth.

    Attributes:
      threshold: a score.
      precision, recall, f1: there.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


def at(curve: Curve, threshold: float) -> Threshold:
    """Returns what answers with a score of `threshold` or more are worth."""
    above = int((curve.scores >= threshold).sum())
    if not above:
        return Threshold(threshold, 0.0, 0.0, 0.0)
    precision, recall = float(curve.precision[above - 1]), float(curve.recall[above - 1])
    return Threshold(threshold, precision, recall, float(_f1(precision, recall)))


def _f1(precision: Any, recall: Any) -> Any:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def best_threshold(found: Curves) -> Threshold:
    """Returns the threshold of the best F1 of all classes together; the highest of equal ones.

    0.5 where nothing was found.
    """
    curve = found.together
    if not len(curve.scores):
        return Threshold(0.5, 0.0, 0.0, 0.0)
    f1 = _f1(curve.precision, curve.recall)
    best = int(f1.argmax())
    values = (curve.scores[best], curve.precision[best], curve.recall[best], f1[best])
    return Threshold(*map(float, values))


class Counts(NamedTuple):
    """Numbers of objects of a class in a picture: mean absolute error, and mean of the truth."""

    error: float
    mean: float


def count_errors(
    found: Sequence[Found], truth: Sequence[Truth], threshold: float, num_classes: int
) -> tuple[Counts, ...]:
    """Returns by how much the number of each class's objects is wrong, over pictures.

    Crowds are not counted.
    """
    predicted, true = (np.zeros((len(truth), num_classes), np.int64) for _ in range(2))
    for row, (answer, there) in enumerate(zip(found, truth, strict=True)):
        kept = answer.classes[answer.scores >= threshold].astype(int)
        predicted[row] = np.bincount(kept, minlength=num_classes)
        true[row] = np.bincount(there.classes[~there.crowd].astype(int), minlength=num_classes)
    errors, means = abs(predicted - true).mean(0), true.mean(0)
    return tuple(Counts(float(e), float(m)) for e, m in zip(errors, means, strict=True))
