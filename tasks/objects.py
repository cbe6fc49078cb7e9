"""Objects in a picture: told apart in class probabilities, compared with the true ones, listed.

An instance map, int [h, w], holds the number of an object for each pixel: 0 for background, -1
(`InstanceMap.UNKNOWN`) where nothing is known. The numbers may have gaps.

All of this runs on the host, on whole pictures, and gives the same for the same input. SciPy and
scikit-image are imported where they are used.
"""

from typing import NamedTuple

import numpy as np

# An object is found if an answer overlaps it by more than such an IoU: 0.50, 0.55, ... 0.95, the
# thresholds of the Data Science Bowl 2018 (Caicedo et al. 2019, "Nucleus segmentation across
# imaging experiments", methods).
THRESHOLDS = tuple(k / 20 for k in range(10, 20))
# Pixels. In fluorescence and stained tissue what is smaller is dirt or noise more often than a
# nucleus.
LEAST_AREA = 30


def separated(
    probabilities: np.ndarray,
    least_area: int = LEAST_AREA,
    inside: float = 0.5,
    foreground: float = 0.5,
) -> np.ndarray:
    """Returns the objects of a picture as an instance map, by a watershed.

    Connected pixels (by their edges) that are inside are the marker of an object. From the markers
    the watershed (Meyer 1994, as scikit-image has it) floods the foreground, inside and border, in
    the order of falling probability of the inside. A connected part of the foreground without any
    marker is one object. A marker whose object is too small is taken away, and its pixels are
    flooded again: they go to its neighbours, or are background if there are none.

    Args:
      probabilities: float [h, w, 3], of background, border and inside; they add up to 1.
      least_area: pixels of the smallest object.
      inside: a pixel is inside if that is more probable than this.
      foreground: a pixel is foreground if inside and border together are more probable than this.

    Returns:
      int32 [h, w], the objects numbered from 1 without gaps, by their first pixels in reading
      order; zeros if there are none.

    Raises:
      ValueError: the probabilities have another shape.
    """
    from scipy import ndimage

    if probabilities.ndim != 3 or probabilities.shape[-1] != 3:
        raise ValueError(f'probabilities [h, w, 3] are needed, not {list(probabilities.shape)}')
    certainty = probabilities[..., 2]
    covered = probabilities[..., 1] + certainty > foreground
    markers, count = ndimage.label((certainty > inside) & covered)
    markers = _with_missing(markers, count, covered)
    flooded = _flooded(certainty, markers, covered)
    small = _areas(flooded) < least_area
    small[0] = False
    if small.any():
        markers = np.where(small[markers], 0, markers)
        markers = _with_missing(markers, len(small) - 1, covered)
        flooded = _flooded(certainty, markers, covered)
        flooded[(_areas(flooded) < least_area)[flooded]] = 0
    return numbered(flooded)


def _with_missing(markers: np.ndarray, count: int, covered: np.ndarray) -> np.ndarray:
    """Returns the markers, and each connected part of the foreground without any as one."""
    from scipy import ndimage

    parts, number = ndimage.label(covered)
    has = np.zeros(number + 1, bool)
    has[parts[markers > 0]] = True
    return np.where(has[parts] | (parts == 0), markers, parts + count)


def _flooded(certainty: np.ndarray, markers: np.ndarray, covered: np.ndarray) -> np.ndarray:
    from skimage.segmentation import watershed

    return watershed(-certainty, markers, mask=covered)


def _areas(instances: np.ndarray) -> np.ndarray:
    """Returns the number of pixels of 0, 1, ... up to the largest number in an instance map."""
    return np.bincount(instances.ravel(), minlength=1)


def numbered(instances: np.ndarray) -> np.ndarray:
    """Returns an instance map, int32 [h, w], with the objects 1, 2, ... in reading order.

    Each number is replaced by another; what is 0 or less stays as it is.
    """
    values, first, inverse = np.unique(instances, return_index=True, return_inverse=True)
    objects = np.flatnonzero(values > 0)
    new = values.astype(np.int32)
    new[objects[np.argsort(first[objects])]] = np.arange(1, len(objects) + 1)
    return new[inverse].reshape(instances.shape)


class Overlaps(NamedTuple):
    """The objects of two instance maps, and the pairs of them that share pixels.

    Attributes:
      answers, truths: how many objects each map has.
      shared: int64 [pairs], pixels that both objects of a pair have.
      united: int64 [pairs], pixels that at least one of them has.
    """

    answers: int
    truths: int
    shared: np.ndarray
    united: np.ndarray


def overlaps(answer: np.ndarray, truth: np.ndarray) -> Overlaps:
    """Returns how the objects of two instance maps overlap, counted in one pass.

    Pixels that are unknown in one of the maps are left out of both; an object that has no other
    pixels is none.

    Args:
      answer, truth: int [h, w].

    Raises:
      ValueError: the maps differ in shape.
    """
    if answer.shape != truth.shape:
        raise ValueError(f'maps of shapes {list(answer.shape)} and {list(truth.shape)}')
    known = (answer >= 0) & (truth >= 0)
    answer, truth = answer[known], truth[known]
    answer_areas, truth_areas = np.bincount(answer, minlength=1), np.bincount(truth, minlength=1)
    both = (answer > 0) & (truth > 0)
    # Of the pairs only those with pixels are kept: a dense matrix of the thousands of specks that
    # an untrained network finds would not fit into memory.
    pairs, shared = np.unique(
        truth[both].astype(np.int64) * len(answer_areas) + answer[both], return_counts=True
    )
    of_truth, of_answer = np.divmod(pairs, len(answer_areas))
    united = truth_areas[of_truth] + answer_areas[of_answer] - shared
    counts = (int(np.count_nonzero(areas[1:])) for areas in (answer_areas, truth_areas))
    return Overlaps(*counts, shared.astype(np.int64), united.astype(np.int64))


def matched(answer: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns how many objects were found at each of the `THRESHOLDS`.

    An object is found if an answer's IoU with it is above the threshold. As no threshold is below
    1/2, both then share more than half of either, so that no object has two such answers and no
    answer two such objects: nothing has to be assigned. The comparison is one of whole numbers.

    Args:
      answer, truth: instance maps, int [h, w]; unknown pixels are left out.

    Returns:
      int64 [10, 3]: objects found (TP), answers that are no object (FP), objects not found (FN).
    """
    found = overlaps(answer, truth)
    parts = np.arange(10, 20)[:, None]  # of 20
    hits = (20 * found.shared > parts * found.united).sum(axis=1)
    return np.stack([hits, found.answers - hits, found.truths - hits], axis=1).astype(np.int64)


def precision(counts: np.ndarray) -> np.ndarray:
    """Returns TP / (TP + FP + FN), as the Data Science Bowl 2018 counted it.

    A picture without any object and without any answer is answered rightly: it has precision 1.
    One in which only the answer or only the truth has objects has 0.

    Args:
      counts: int [..., 3], as `matched` gives them for one picture.

    Returns:
      float64 [...].
    """
    total = counts.sum(axis=-1)
    return np.where(total > 0, counts[..., 0] / np.maximum(total, 1), 1.0)
