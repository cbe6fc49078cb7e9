"""scikit-learn's 1,797 real handwritten digits, in a frame like that of MNIST. No download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (its test part), as shipped with scikit-learn: 8x8 pixels, 0 (paper) to 16 (ink).
All arithmetic here is on integers, so that every machine and version sees the same bytes.
"""

import functools

import numpy as np

from data_sources import scikit_learn
from data_sources.arrays import ArraySource

_SIDE = 20  # MNIST's digits fill a box of 20x20 ...
_MARGIN = 4  # ... in a frame of 28x28.
_SPLIT_KEY = 1998  # any constant will do, but another one changes every published number


def load(split: str) -> ArraySource:
    """Returns one split: images uint8 [n, 28, 28, 1], strokes bright on black; ten classes.

    1,295 examples are for training, 143 for validation and 359 for test, the same ones on every
    machine and in every version (see `split_indices`).
    """
    images, labels = _read()
    chosen = split_indices(labels)[split]
    return ArraySource(
        name='digits',
        split=split,
        images=enlarge(images[chosen]),
        targets={'label': labels[chosen]},
        class_names=tuple('0123456789'),
        handwriting=True,
    )


def source_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a split's digits as they are stored: int64 [n, 8, 8] of 0 to 16, and labels int32."""
    images, labels = _read()
    chosen = split_indices(labels)[split]
    return images[chosen], labels[chosen]


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Returns images int64 [1797, 8, 8] and labels int32 [1797], as scikit-learn ships them.

    They are read from the file itself: importing scikit-learn for its `load_digits` takes seconds.
    """
    file = scikit_learn.shipped('data/digits.csv.gz', 'The digits are')
    rows = np.loadtxt(file, np.int64, delimiter=',')
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int32)


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the indices of each split, ascending: stratified, fixed, disjoint, complete.

    Every example draws a 64-bit number from the raw stream of the Philox generator, which NumPy
    promises never to change. In each class, by ascending number, the first fifth (rounded) is for
    test, the next tenth of the rest (rounded) for validation, and the others are for training.

    Args:
      labels: int [n].
    """
    draws = np.random.Philox(key=_SPLIT_KEY).random_raw(len(labels))
    parts = {'train': [], 'validation': [], 'test': []}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(draws[members], kind='stable')]
        test = round(len(members) / 5)
        validation = round((len(members) - test) / 10)
        parts['test'].append(members[:test])
        parts['validation'].append(members[test : test + validation])
        parts['train'].append(members[test + validation :])
    return {split: np.sort(np.concatenate(members)) for split, members in parts.items()}


def enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarges by cubic interpolation to 20x20 and pads with black to 28x28.

    Args:
      images: int64 [n, 8, 8], 0 to 16.

    Returns:
      uint8 [n, 28, 28, 1], 0 to 255, rounded to nearest and clipped (cubics overshoot).
    """
    pixels = scaled(images, _SIDE).astype(np.uint8)
    margin = (_MARGIN, _MARGIN)
    return np.pad(pixels, ((0, 0), margin, margin))[..., None]


def scaled(images: np.ndarray, side: int) -> np.ndarray:
    """Returns int64 [..., side, side], 0 to 255, of int64 [..., 8, 8], 0 to 16; as `enlarge`."""
    weights, one = _cubic_weights(images.shape[-1], side)
    sums = weights @ images @ weights.T * 255
    whole = 16 * one * one
    return np.clip((sums + whole // 2) // whole, 0, 255)


@functools.cache
def _cubic_weights(old: int, new: int) -> tuple[np.ndarray, int]:
    """Returns int64 [new, old] interpolation weights and the integer that stands for one.

    The kernel is the cubic convolution of R. Keys with a = -1/2 (IEEE Trans. ASSP 29(6), 1981), the
    "bicubic" of most image libraries; pixels are areas, and the edge is continued outwards.
    """
    unit = 2 * new  # distances, in pixels of the old grid, are multiples of 1 / unit
    weights = np.zeros((new, old), np.int64)
    for row in range(new):
        centre = (2 * row + 1) * old - new  # of the new pixel, in units, from the first old one
        base = centre // unit
        for column in range(base - 1, base + 3):
            weights[row, min(max(column, 0), old - 1)] += _keys(abs(centre - column * unit), unit)
    return weights, 2 * unit**3


def _keys(distance: int, unit: int) -> int:
    """Returns Keys' kernel at distance / unit, times 2 unit^3: exact in integers."""
    d, u = distance, unit
    if d < u:
        return 3 * d**3 - 5 * d**2 * u + 2 * u**3
    if d < 2 * u:
        return -(d**3) + 5 * d**2 * u - 8 * d * u**2 + 4 * u**3
    return 0
