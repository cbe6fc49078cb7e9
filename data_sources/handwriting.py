"""Makes of a photo of a handwritten character a picture like those that the network learned from.

A person does not notice that the paper is gray, that a shadow lies on it or that the digit stands
in a corner. A network that has only seen bright strokes in the middle of black does. `normalize`
finds the ink (`ink.py`) and lays it into the frame as the makers of the data set did.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from data_sources import digits, images, ink
from data_sources.picture_files import InMemory
from errors import UserError

_LEAST_SIDE = 5  # pixels; in fewer no character can be told from another
_MOST_SIDE = 1500  # pixels; of more, means are taken
# Y. LeCun et al., 1998: fitted into 20x20 of 28x28 pixels, proportions kept, and centered by mass.
_MNIST_BOX = 20 / 28
_MNIST_STROKE = 2.4 / 20  # of the box: nine strokes of ten in MNIST are wider
# The embedded digits: fitted into 32x32 pixels, of which blocks of 4x4 were counted. All are as
# high as the frame; the mean of their widths, over that height, is this. That of their strokes is
# 0.22, but of MNIST's digits and of drawn ones more are read with a little less.
_DIGITS_WIDTH = 0.7
_DIGITS_STROKE = 0.19
_DIGITS_WIDENED = 1.3  # times, at most: a 1 without a flag would become a block
_DIGITS_UPRIGHT = 0.5  # the part of its slant that is taken away: their writers lean little


def read(
    path: str | Path | InMemory, height: int, width: int, invert: str, name: str
) -> np.ndarray:
    """Reads a picture file for a network that was trained on handwriting.

    A picture that has the frame's size is read as `images.read_image` does. Any other is a photo.

    Args:
      path: a file that Pillow reads, or what would stand in one.
      height, width: of the network's input, in pixels.
      invert: 'auto', 'yes' or 'no'; see `normalize` and `images.read_image`.
      name: of the data set.

    Returns:
      uint8 [height, width, 1].

    Raises:
      UserError: as for `images.read_image`; or the picture is too small, or shows no ink.
    """
    picture = images.open_picture(path, 'L')
    try:
        if picture.size != (width, height):
            return normalize(np.asarray(picture), height, width, invert, name)[..., None]
        low, high = picture.getextrema()
        if low == high:
            raise ink.blank()
    except UserError as error:
        raise UserError(f'{path} {error}') from error
    return images.fitted(picture, height, width, invert)


def normalize(
    image: np.ndarray, height: int, width: int, invert: str = 'auto', name: str = 'mnist'
) -> np.ndarray:
    """Returns the character in a photo, bright on black, as the data set would show it.

    Args:
      image: uint8 [h, w], [h, w, 1] or [h, w, 3] (RGB), of any size.
      height, width: of the result, in pixels.
      invert: 'yes' if the ink is darker than its paper, 'no' if it is brighter, or 'auto' to find
        out.
      name: of the data set. The character is laid into the frame as in 'digits' or, for any other
        name, as in MNIST.

    Returns:
      uint8 [height, width]: strokes up to 255 on 0.

    Raises:
      UserError: the picture is too small to show a character, or shows no ink. The sentence is one
        to follow the name of the picture.
    """
    picture = Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image).convert('L')
    if min(picture.size) < _LEAST_SIDE:
        raise UserError(
            f'is {picture.width}x{picture.height} pixels, too small to show a character: give a '
            'larger picture.'
        )
    picture = picture.reduce(max(1, max(picture.size) // _MOST_SIDE))
    strokes = ink.find(np.asarray(picture, np.float32), invert)
    if name == 'digits':
        return _as_digits(strokes)
    return _as_mnist(strokes, height, width)


def _as_mnist(strokes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fits ink into the middle of a frame, as MNIST was made; returns uint8 [height, width]."""
    strokes = _cut(_thickened(strokes, _MNIST_STROKE))
    scale = _MNIST_BOX * min(height / strokes.shape[0], width / strokes.shape[1])
    shape = tuple(max(1, round(side * scale)) for side in strokes.shape)
    small = np.clip(ink.resized(strokes, *shape), 0, 1)
    small /= small.max()
    frame = np.zeros((height, width), np.uint8)
    top, left = (
        min(max(round(side / 2 - middle), 0), side - length)
        for side, middle, length in zip(
            frame.shape, ndimage.center_of_mass(small), shape, strict=True
        )
    )
    frame[top : top + shape[0], left : left + shape[1]] = np.rint(small * 255)
    return frame


def _as_digits(strokes: np.ndarray) -> np.ndarray:
    """Counts ink in 8x8 blocks, as the embedded digits were made; returns uint8 [28, 28]."""
    strokes = _cut(_less_slanted(_thickened(strokes, _DIGITS_STROKE), _DIGITS_UPRIGHT))
    proportional = strokes.shape[1] / strokes.shape[0]
    width = max(1, round(32 * min(_DIGITS_WIDTH, _DIGITS_WIDENED * proportional)))
    left = (32 - width) // 2
    bitmap = np.zeros((32, 32))
    bitmap[:, left : left + width] = np.clip(ink.resized(strokes, 32, width), 0, 1)
    counts = np.rint(16 * bitmap.reshape(8, 4, 8, 4).mean((1, 3))).astype(np.int64)
    return digits.enlarge(counts[None])[0, ..., 0]


def _cut(strokes: np.ndarray) -> np.ndarray:
    """Returns the part of a picture in which there is ink."""
    rows, columns = np.flatnonzero(strokes.max(1) > 0.5), np.flatnonzero(strokes.max(0) > 0.5)
    return strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _less_slanted(strokes: np.ndarray, part: float) -> np.ndarray:
    """Returns ink without a part of its slant, which is that of the axis of its inertia."""
    rows, columns = np.indices(strokes.shape)
    middle = ndimage.center_of_mass(strokes)
    down, across = rows - middle[0], columns - middle[1]
    slant = (strokes * down * across).sum() / (strokes * down**2).sum()
    shear = part * np.clip(slant, -1, 1)  # beyond 45 degrees it is a dash, and not its slant
    margin = int(abs(shear) * strokes.shape[0]) + 1  # a part of the height is the most it moves
    padded = np.pad(strokes, ((0, 0), (margin, margin)))
    return ndimage.affine_transform(
        padded, np.array([[1, 0], [shear, 1]]), (0, -shear * middle[0]), order=1
    )


def _thickened(strokes: np.ndarray, least: float) -> np.ndarray:
    """Returns ink of which the strokes are no thinner than `least` of the longer side.

    A pen is thin beside a large digit, and vanishes when the digit is made small.
    """
    inside = ndimage.distance_transform_edt(strokes > 0.5)
    # Over a stroke of width w the distance to its edges is w / 4 in the mean.
    width = 4 * inside[inside > 0].mean()
    radius = round((least * max(_cut(strokes).shape) - width) / 2)
    if radius < 1:
        return strokes
    return ndimage.grey_dilation(np.pad(strokes, radius), footprint=ink.disc(radius))
