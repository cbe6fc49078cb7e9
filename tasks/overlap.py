"""How well the pixels of an answer agree with the truth: numbers of a confusion matrix.

A confusion matrix is int64 [classes, classes]: rows true, columns predicted. A class that occurs in
neither truth nor answer has no IoU and no Dice coefficient, and does not count in their means.
"""

import numpy as np


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns the confusion matrix of pixels, int [n] each with classes 0 .. classes - 1."""
    pairs = true.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(matrix: np.ndarray) -> np.ndarray:
    """Returns each class's intersection over union, float64 [classes]; NaN where there is none."""
    both = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - both
    return np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)


def class_dice(matrix: np.ndarray) -> np.ndarray:
    """Returns each class's Dice coefficient, float64 [classes]; NaN where there is none."""
    both = np.diag(matrix).astype(np.float64)
    areas = (matrix.sum(0) + matrix.sum(1)).astype(np.float64)
    return np.divide(2 * both, areas, out=np.full(len(both), np.nan), where=areas > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Returns the mean of the classes' IoU; 0 where no pixel counts."""
    return _mean(iou(matrix))


def mean_dice(matrix: np.ndarray) -> float:
    """Returns the mean of the classes' Dice coefficients; 0 where no pixel counts."""
    return _mean(class_dice(matrix))


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Returns the fraction of pixels whose class is right; 0 where no pixel counts."""
    return float(np.trace(matrix)) / max(int(matrix.sum()), 1)


def dice(both: float, true: float, predicted: float) -> float:
    """Returns the Dice coefficient of two areas; 1 where both are empty.

    Args:
      both: pixels that are in both.
      true, predicted: pixels of each.
    """
    areas = float(true) + float(predicted)
    return 2 * float(both) / areas if areas else 1.0


def _mean(values: np.ndarray) -> float:
    found = values[~np.isnan(values)]
    return float(found.mean()) if len(found) else 0.0
