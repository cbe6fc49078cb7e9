"""How good found boxes are: COCO's average precision, and what is right at a threshold.

All on the host, in NumPy. Boxes are (y0, x0, y1, x1) in edges of pixels (data_sources/targets.py).
A detection is right if it overlaps an object of its class enough that no detection of a higher
score has taken. One that lies in a crowd (a box around objects that nobody told apart) is neither
right nor wrong, and nobody misses a crowd. Those are the rules of COCO (Lin et al. 2014, "Microsoft
COCO: Common Objects in Context", and its evaluation code).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# From how many pixels to how many a box is of which size, as COCO has it.
SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, 1e10)}
_WRONG, _IN_CROWD = -1, -2


class Found(NamedTuple):
    """What was found in a picture.

    Attributes:
      boxes: [n, 4], in the picture's own pixels.
      scores: [n].
      classes: int [n], from 0.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Truth(NamedTuple):
    """The objects of a picture.

    Attributes:
      boxes: [n, 4], in the picture's own pixels.
      classes: int [n], from 0.
      crowd: bool [n], whether the box is that of many objects which nobody told apart.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


@dataclasses.dataclass(frozen=True)
class Precision:
    """COCO's average precision (AP), as fractions. A crowd is no object.

    Attributes:
      ap: mean over classes and over the ten IoU thresholds from 0.5 to 0.95; None without objects.
      ap50: mean over classes at IoU 0.5; None without objects.
      ap75: at 0.75.
      small: as `ap`, for objects of less than 32 x 32 pixels; None if there is none.
      medium: from there to 96 x 96 pixels.
      large: beyond.
      class_ap: float64 [classes], mean over the thresholds; NaN for a class without objects.
      class_ap50: float64 [classes], at IoU 0.5; NaN likewise.
      objects: int64 [classes], how many there are.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    class_ap: np.ndarray
    class_ap50: np.ndarray
    objects: np.ndarray


def evaluate(
    found: Sequence[Found], truth: Sequence[Truth], num_classes: int, most: int = 100
) -> Precision:
    """Returns COCO's average precision over pictures.

    Args:
      found: of each picture.
      truth: of each picture.
      num_classes: how many classes there are.
      most: so many detections count of each picture and class, those of the highest scores.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    objects = sum((_counted(t.classes[~_crowd(t)], num_classes) for t in truth), _none(num_classes))
    names = ('ap', 'ap50', 'ap75', *SIZES)
    if not objects.any():
        nan = np.full(num_classes, np.nan)
        return Precision(**dict.fromkeys(names), class_ap=nan, class_ap50=nan, objects=objects)
    sets = {
        'images': [{'id': i} for i in range(1, len(truth) + 1)],
        'categories': [{'id': c} for c in range(num_classes)],
    }
    true = COCO({**sets, 'annotations': _annotations(truth)})
    answered = COCO({**sets, 'annotations': _annotations(found)})
    judge = COCOeval_faster(true, answered, iouType='bbox', print_function=_silent)
    judge.params.maxDets = [most]
    judge.params.areaRngLbl = ['all', *SIZES]
    judge.params.areaRng = [[0, 1e10], *map(list, SIZES.values())]
    judge.evaluate()
    judge.accumulate()
    # [IoU thresholds, recalls, classes, sizes, 1]; -1 where there are no objects
    values = np.asarray(judge.eval['precision'])[..., 0]
    values = np.where(values < 0, np.nan, values)
    everywhere = values[..., 0]
    parts = (everywhere, everywhere[0], everywhere[5], *np.moveaxis(values, -1, 0)[1:])
    return Precision(
        **{name: _mean(part) for name, part in zip(names, parts, strict=True)},
        class_ap=_means(everywhere),
        class_ap50=_means(everywhere[:1]),
        objects=objects,
    )


class Matches(NamedTuple):
    """What is right of the detections of a picture.

    Attributes:
      right: bool [found].
      wrong: bool [found]. What lies in a crowd, or is below the threshold, is neither.
      missed: bool [objects].
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


def matched(
    found: Sequence[Found], truth: Sequence[Truth], threshold: float, iou: float = 0.5
) -> list[Matches]:
    """Returns what is right of each picture's detections with a score of `threshold` or more."""
    matches = []
    for picture, objects in zip(found, truth, strict=True):
        shown = np.asarray(picture.scores, np.float64) >= threshold
        partner = _partners(picture, objects, iou)
        right = shown & (partner >= 0)
        missed = ~_crowd(objects)
        missed[partner[right]] = False
        matches.append(Matches(right, shown & (partner == _WRONG), missed))
    return matches


class Quality(NamedTuple):
    """Precision, recall and their harmonic mean; NaN where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """What is right at each threshold of the score.

    Attributes:
      scores: float64 [n], those that occur, from the highest.
      right: int64 [n], how many of the detections with that score or more are right.
      wrong: int64 [n], how many of them are wrong.
      objects: how many there are to find.
    """

    scores: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    objects: int

    @property
    def precision(self) -> np.ndarray:
        """The part of the detections that is right, float64 [n]."""
        return _ratio(self.right, self.right + self.wrong)

    @property
    def recall(self) -> np.ndarray:
        """The part of the objects that is found, float64 [n]; NaN without objects."""
        return _ratio(self.right, np.full(len(self.right), self.objects))

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall, float64 [n]."""
        return _ratio(2 * self.right, self.right + self.wrong + self.objects)

    def at(self, threshold: float) -> Quality:
        """Returns the values of the detections with a score of `threshold` or more."""
        count = np.searchsorted(-self.scores, -threshold, side='right')
        right = np.append(0, self.right)[count : count + 1]
        wrong = np.append(0, self.wrong)[count : count + 1]
        there = Curve(self.scores[:1], right, wrong, self.objects)
        return Quality(*(float(v[0]) for v in (there.precision, there.recall, there.f1)))


class Curves(NamedTuple):
    """The curve of each class, and that of all detections together."""

    per_class: Sequence[Curve]
    together: Curve


def curves(
    found: Sequence[Found], truth: Sequence[Truth], num_classes: int, iou: float = 0.5
) -> Curves:
    """Returns what is right at each threshold; arguments as for `evaluate` and `matched`."""
    parts = [
        (np.asarray(f.scores, np.float64), np.asarray(f.classes), _partners(f, t, iou))
        for f, t in zip(found, truth, strict=True)
    ]
    scores, classes, partner = (
        np.concatenate(values) if parts else np.zeros(0)
        for values in (zip(*parts, strict=True) if parts else [()] * 3)
    )
    objects = sum((_counted(t.classes[~_crowd(t)], num_classes) for t in truth), _none(num_classes))
    each = [
        _curve(scores[classes == c], partner[classes == c], int(objects[c]))
        for c in range(num_classes)
    ]
    return Curves(each, _curve(scores, partner, int(objects.sum())))


class Best(NamedTuple):
    """A threshold of the score, and the values of the detections that reach it."""

    threshold: float
    precision: float
    recall: float
    f1: float


def best_threshold(found: Curves) -> Best:
    """Returns the threshold of the best F1 of all classes together; of equal ones the highest.

    It lies in the middle between the least score that counts and the best that does not, so that an
    object which is found with a slightly lower score than any of these is not lost. Without any
    detection that is right nothing can be chosen, and it is 0.5: so it is with splits that have no
    objects.
    """
    together = found.together
    chosen = bool(together.right.any())
    best = int(np.argmax(together.f1)) if chosen else 0
    threshold = float(together.scores[best : best + 2].mean()) if chosen else 0.5
    return Best(threshold, *together.at(threshold))


class Counts(NamedTuple):
    """Numbers of objects in a picture, float64 [classes] each; NaN if no picture can tell.

    Attributes:
      true: the mean of the true ones.
      found: the mean of those found.
      error: the mean of the absolute differences.
    """

    true: np.ndarray
    found: np.ndarray
    error: np.ndarray


def count_errors(
    found: Sequence[Found], truth: Sequence[Truth], threshold: float, num_classes: int
) -> Counts:
    """Returns how well objects are counted by the detections of a score of `threshold` or more.

    A picture with a crowd of a class does not count for it, because its true number is not known.
    """
    if not truth:
        return Counts(*np.full((3, num_classes), np.nan))
    true = np.array([_counted(t.classes, num_classes) for t in truth], np.float64)
    crowds = np.array([_counted(t.classes[_crowd(t)], num_classes) for t in truth])
    shown = [np.asarray(f.classes)[np.asarray(f.scores, np.float64) >= threshold] for f in found]
    given = np.array([_counted(classes, num_classes) for classes in shown], np.float64)
    true[crowds > 0] = given[crowds > 0] = np.nan
    return Counts(*(_means(values) for values in (true, given, np.abs(true - given))))


# --- matching -------------------------------------------------------------------------------------


def _partners(found: Found, truth: Truth, iou: float) -> np.ndarray:
    """Returns the object that each detection has found, int64 [found]; or _WRONG or _IN_CROWD.

    It depends on detections of higher scores alone, so that the same holds at any threshold.
    """
    partner = np.full(len(found.scores), _WRONG)
    if not len(found.scores) or not len(truth.classes):
        return partner
    crowd = _crowd(truth)
    overlap = _overlaps(
        np.asarray(found.boxes, np.float64), np.asarray(truth.boxes, np.float64), crowd
    )
    overlap[np.asarray(found.classes)[:, None] != np.asarray(truth.classes)] = 0
    enough = overlap >= iou
    partner[(enough & crowd).any(axis=1)] = _IN_CROWD
    free = np.where(enough & ~crowd, overlap, 0.0)
    for row in np.argsort(-np.asarray(found.scores, np.float64), kind='stable'):
        # Of objects that it overlaps as much it takes the last one, as COCO's code does.
        column = free.shape[1] - 1 - int(free[row, ::-1].argmax())
        if free[row, column]:
            partner[row] = column
            free[:, column] = 0
    return partner


def _overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the IoU [n, m] of boxes [n, 4] and [m, 4]; with a crowd, the part that lies in it."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    both = np.maximum(high - low, 0).prod(axis=-1)
    own, area = ((b[:, 2:] - b[:, :2]).prod(axis=-1) for b in (boxes, others))
    whole = np.where(crowd, own[:, None], own[:, None] + area - both)
    return _ratio(both, whole, missing=0.0)


def _curve(scores: np.ndarray, partner: np.ndarray, objects: int) -> Curve:
    counted = partner != _IN_CROWD
    scores, right = scores[counted], partner[counted] >= 0
    order = np.argsort(-scores, kind='stable')
    scores, right = scores[order], right[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    rights, wrongs = (np.cumsum(values)[last] for values in (right, ~right))
    return Curve(scores[last], rights, wrongs, objects)


# --- for COCO's code ------------------------------------------------------------------------------


def _annotations(pictures: Sequence[Found] | Sequence[Truth]) -> list[dict[str, Any]]:
    """Returns boxes as COCO has them, with numbers from 1: its code takes 0 for no box."""
    rows = []
    for number, picture in enumerate(pictures, start=1):
        boxes = np.asarray(picture.boxes, np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        columns = (boxes[:, 1], boxes[:, 0], sides[:, 1], sides[:, 0])
        plain = np.stack(columns, axis=-1).tolist()
        crowd = _crowd(picture) if isinstance(picture, Truth) else np.zeros(len(boxes), bool)
        scores = picture.scores if isinstance(picture, Found) else np.ones(len(boxes))
        of_each = zip(plain, picture.classes, scores, crowd, strict=True)
        for box, label, score, is_crowd in of_each:
            rows.append(
                {
                    'id': len(rows) + 1,
                    'image_id': number,
                    'category_id': int(label),
                    'bbox': box,
                    'area': box[2] * box[3],
                    'score': float(score),
                    'iscrowd': int(is_crowd),
                }
            )
    return rows


def _silent(*texts: Any) -> None:
    del texts


# --- numbers --------------------------------------------------------------------------------------


def _crowd(truth: Truth) -> np.ndarray:
    return np.asarray(truth.crowd, bool)


def _none(num_classes: int) -> np.ndarray:
    return np.zeros(num_classes, np.int64)


def _counted(classes: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(np.asarray(classes, np.int64), minlength=num_classes)


def _ratio(part: np.ndarray, whole: np.ndarray, missing: float = np.nan) -> np.ndarray:
    """Returns part / whole, float64; `missing` where the whole is 0."""
    out = np.full(np.broadcast_shapes(part.shape, whole.shape), missing)
    return np.divide(part, whole, out=out, where=whole > 0)


def _mean(values: np.ndarray) -> float | None:
    """Returns the mean of those that are not NaN; None if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _means(values: np.ndarray) -> np.ndarray:
    """Returns the means [classes] over all axes but the last, of those that are not NaN."""
    flat = values.reshape(-1, values.shape[-1])
    known = ~np.isnan(flat)
    return _ratio(np.where(known, flat, 0.0).sum(axis=0), known.sum(axis=0))
