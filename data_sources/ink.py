"""Finds the ink of one character in a photo, whatever the paper, the light and the place.

The paper is what remains of the photo when everything narrow is taken out of it: a stroke is
narrow, a shadow is not. Ink is what stands out from the paper; the character is the heaviest part
of it, with the parts that lie near.
"""

import dataclasses

import numpy as np
from PIL import Image
from scipy import ndimage

from errors import UserError

_LONG = 320  # pixels of the longer side at which a photo is looked at
_COARSE = 5  # the paper is estimated on a picture that is so many times smaller
_DIM = 24  # of 255: where the paper is darker, noise is not magnified any further
_LEAST_CONTRAST = 0.12  # of ink, in parts of the brightness of its paper
_LEAST_SIZE = 8  # pixels of _LONG: smaller things are dust
_CUT_OFF = 0.03  # weight of a thing that touches the photo's edge, beside one that does not
_MARGIN = 0.3  # of the longer side: of paper, put around a character that has none
# What is narrow, in parts of the shorter side: where the character may be small, and where it is
# known to fill half of the part that is looked at.
_FIRST, _SECOND = 0.2, 0.32
_AROUND = 0.6  # margin of that part, in parts of the character's size


@dataclasses.dataclass(frozen=True)
class _Found:
    """What was found in a picture.

    Attributes:
      ink: float32 [h, w], 0 (paper) to 1, at the size at which the picture was looked at.
      ends: ((top, bottom), (left, right)) of the character in parts of the picture.
      dark: whether the ink is darker than its paper.
    """

    ink: np.ndarray
    ends: tuple[tuple[float, float], tuple[float, float]]
    dark: bool


def find(gray: np.ndarray, invert: str = 'auto') -> np.ndarray:
    """Returns the ink of the character in a photo, float32 [h, w], 0 (paper) to 1 (ink).

    Args:
      gray: float [h, w], 0 to 255.
      invert: 'yes' if the ink is darker than its paper, 'no' if it is brighter, or 'auto' to find
        out.

    Raises:
      UserError: nothing stands out from the paper.
    """
    paper = _drawn_on(gray)
    if paper is not None:
        # Nothing lies on it but the character, which may touch its edge.
        gray = np.pad(gray, round(_MARGIN * max(gray.shape)), constant_values=paper)
    first = _look(gray, invert, _FIRST)
    sides = sum(end < 0.01 or end > 0.99 for pair in first.ends for end in pair)
    if (
        sides >= 3
    ):  # It was cut out along its edges: without paper around it, none can be estimated.
        rim = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
        paper = np.percentile(rim, 90 if first.dark else 10)
        gray = np.pad(gray, round(_MARGIN * max(gray.shape)), constant_values=paper)
        first = _look(gray, invert, _FIRST)
    # The second look is at the part with the character, which so has one size in every photo.
    return _look(gray[_window(first, gray.shape)], invert, _SECOND).ink


def _drawn_on(gray: np.ndarray) -> float | None:
    """Returns the paper of a drawing on a screen, or None for a photo, whose paper has many values.

    Of a drawing, the paper and the ink have one value each; only the edges of strokes have others.
    """
    counts = np.bincount(np.uint8(gray).ravel(), minlength=256)
    paper = int(counts.argmax())
    rim = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    two_values = np.sort(counts)[-2:].sum() >= 0.9 * gray.size
    return paper if two_values and (rim == paper).mean() >= 0.75 else None


def blank() -> UserError:
    """Returns the error of a picture without ink; the sentence is to follow the picture's name."""
    return UserError('shows no ink: nothing on it stands out from the paper.')


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns float32 [height, width] of a picture [h, w]; where it gets smaller, means."""
    image = Image.fromarray(np.asarray(picture, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _window(found: _Found, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Returns the part of a picture of that shape with the character and its surroundings."""
    ends = [[end * side for end in pair] for pair, side in zip(found.ends, shape, strict=True)]
    margin = _AROUND * max(stop - start for start, stop in ends)
    return tuple(
        slice(max(0, int(start - margin)), min(side, int(stop + margin) + 1))
        for (start, stop), side in zip(ends, shape, strict=True)
    )


def _look(gray: np.ndarray, invert: str, narrow: float) -> _Found:
    """Finds the character in a picture, in which strokes are as narrow as that."""
    scale = _LONG / max(gray.shape)
    seen = resized(gray, *(max(_COARSE, round(side * scale)) for side in gray.shape))
    smooth = ndimage.gaussian_filter(seen, 1.0)
    small = resized(smooth, *(max(1, side // _COARSE) for side in seen.shape))
    dark = _is_dark(small) if invert == 'auto' else invert == 'yes'
    if not dark:
        smooth, small = 255 - smooth, 255 - small
    paper = resized(_paper(small, narrow), *seen.shape)
    # Light multiplies what it falls on, so it is the quotient that is free of it.
    contrast = (paper - smooth) / np.maximum(paper, _DIM)
    mask = _character(contrast)
    level = np.percentile(contrast[mask], 75)
    # From a quarter to three quarters of the ink's level, so that edges stay smooth.
    near = ndimage.binary_dilation(mask, iterations=3)
    ink = np.where(near, np.clip(2 * contrast / level - 0.5, 0, 1), 0)
    ends = []
    for axis, side in enumerate(mask.shape):
        places = np.flatnonzero(mask.any(1 - axis))
        ends.append((places[0] / side, (places[-1] + 1) / side))
    return _Found(np.float32(ink), tuple(ends), bool(dark))


def _is_dark(small: np.ndarray) -> bool:
    """Whether ink is darker than paper: there is more paper, so its level is the median."""
    window = max(3, round(0.5 * min(small.shape)) | 1)
    darker = ndimage.median_filter(small, window, mode='nearest') - small
    return (darker.clip(min=0) ** 2).sum() >= (darker.clip(max=0) ** 2).sum()


def _paper(small: np.ndarray, narrow: float) -> np.ndarray:
    """Returns the paper of a picture of dark ink: what has no room for a disc becomes paper."""
    calm = ndimage.median_filter(small, 5, mode='nearest')
    radius = max(1, round(narrow * min(small.shape) / 2))
    paper = ndimage.grey_closing(calm, footprint=disc(radius), mode='nearest')
    # Beside the sharp edge of a shadow or a sheet the darker side counts, or it would be a line.
    return ndimage.grey_erosion(paper, (3, 3), mode='nearest')


def disc(radius: int) -> np.ndarray:
    """Returns the pixels within a radius of the middle one, bool [2 radius + 1, 2 radius + 1]."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius * (radius + 1)


def _character(contrast: np.ndarray) -> np.ndarray:
    """Returns where the ink of the character is, bool [h, w].

    Raises:
      UserError: nothing stands out.
    """
    across = np.abs(contrast[:, 4:] - contrast[:, :-4]) if contrast.shape[1] > 8 else contrast
    noise = np.median(np.abs(across)) / 0.6745 / np.sqrt(2)
    floor = max(_LEAST_CONTRAST, 5 * noise)
    parts, count = ndimage.label(contrast > 0.6 * floor, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    boxes = ndimage.find_objects(parts)
    peaks = np.array(ndimage.maximum(contrast, parts, numbers)) if count else np.array([])
    sizes = np.array([max(along.stop - along.start for along in box) for box in boxes])
    rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    covered = np.bincount(rim, minlength=count + 1)[1:] / len(rim)
    depths = np.array([_depth(box, contrast.shape) for box in boxes])
    # Only a character cut out along its edges reaches from the photo's edge far into it, and only
    # the table under the sheet goes along most of that edge.
    eligible = (peaks > floor) & (sizes >= _LEAST_SIZE) & (depths > 0.2) & (covered < 0.4)
    if not eligible.any():
        raise blank()
    weights = eligible * ndimage.sum_labels(contrast, parts, numbers)
    best = int(np.argmax(weights * np.where(covered > 0, _CUT_OFF, 1)))
    near = np.array([_gap(boxes[best], box) <= 0.25 * sizes[best] for box in boxes])
    chosen = near & (weights > 0.05 * weights[best]) & (covered == 0)
    chosen[best] = True
    level = np.percentile(contrast[parts == best + 1], 75)
    return np.isin(parts, numbers[chosen]) & (contrast > 0.45 * level)


def _depth(box: tuple[slice, slice], shape: tuple[int, int]) -> float:
    """Returns how far a box reaches from the edges that it touches, over the shorter side."""
    depths = [np.inf]
    for along, side in zip(box, shape, strict=True):
        if along.start == 0:
            depths.append(along.stop)
        if along.stop == side:
            depths.append(side - along.start)
    return min(depths) / min(shape)


def _gap(one: tuple[slice, slice], other: tuple[slice, slice]) -> int:
    """Returns the distance between two boxes, the larger of down and across."""
    pairs = zip(one, other, strict=True)
    return max(max(a.start - b.stop, b.start - a.stop, 0) for a, b in pairs)
