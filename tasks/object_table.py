"""The objects of an answer as rows of a table: predict.py writes them as objects.csv."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def parts(labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Returns the connected parts of each class of a label map but class 0.

    Pixels are connected by their edges.

    Args:
      labels: uint8 [h, w].

    Returns:
      (the number of its part for each pixel, int32 [h, w], 0 for class 0; the class of each part).
    """
    from scipy import ndimage  # takes a while to import

    found, classes = np.zeros(labels.shape, np.int32), []
    for number in np.unique(labels[labels > 0]):
        own, count = ndimage.label(labels == number)
        found += np.where(own, own + len(classes), 0).astype(np.int32)
        classes += [int(number)] * count
    return found, classes


def rows(instances: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a row for each object, in the order of their numbers.

    Args:
      instances: int [h, w], objects 1, 2, ... without a gap.
      names: the class of each.

    Returns:
      'id'; 'class'; 'area' in pixels; 'center_y', 'center_x', the mean place of the pixels, where
      (0, 0) is the center of the first one; 'top', 'left', 'bottom', 'right', the box around it in
      edges of pixels.
    """
    from scipy import ndimage

    boxes = ndimage.find_objects(instances)
    table = []
    for number, (box, name) in enumerate(zip(boxes, names, strict=True), start=1):
        y, x = np.nonzero(instances[box] == number)
        top, left = box[0].start, box[1].start
        table.append(
            {
                'id': number,
                'class': name,
                'area': len(y),
                'center_y': round(float(y.mean()) + top, 2),
                'center_x': round(float(x.mean()) + left, 2),
                'top': top,
                'left': left,
                'bottom': box[0].stop,
                'right': box[1].stop,
            }
        )
    return table
