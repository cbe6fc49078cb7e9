"""Stretching a picture's contrast between two of its own percentiles.

A microscope writes 16 bits and uses a few of them, so that its pictures are nearly black once white
is 65,535. A data set that was prepared with `--stretch` keeps its percentile, and what is predicted
has to be stretched as the pictures of training were.
"""

import io

import numpy as np
from PIL import Image

from data_sources import conversion, jpeg, orientation, picture_files
from data_sources.decoding import DecodeError

_BLOCK = 1 << 20  # values that are looked at at once


def stretched(values: np.ndarray, percentile: float) -> np.ndarray:
    """Returns a picture in 8 bits, black at a percentile of its values and white at another.

    Black is the value of rank floor(p (n - 1)) among the n values of all channels together, white
    the one of rank n - 1 - floor(p (n - 1)), where p is the percentile over 100. What is between
    is scaled linearly and rounded, halves up, in whole numbers where the values are whole. A
    picture whose two values are one has 0 there and below, and 255 above.

    Args:
      values: [height, width] or [height, width, channels], whole or floating-point numbers. What
        is not finite counts as 0.
      percentile: from 0 to below 50; 0 stretches from the smallest value to the largest.

    Returns:
      uint8, of the shape of `values`.
    """
    if not values.size:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
        return _between(values, *_limits(np.sort(values, axis=None), percentile)).astype(np.uint8)
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.int64)
        return _between(values, *_limits(np.sort(values, axis=None), percentile)).astype(np.uint8)
    # A table takes an eighth of the memory, and a tenth of the time.
    levels = np.arange(np.iinfo(values.dtype).max + 1, dtype=np.int64)
    counts = np.zeros(len(levels), np.int64)
    flat = values.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=len(levels))
    behind = _rank(values.size, percentile)
    below = np.cumsum(counts)  # how many values are at most the level
    low, high = np.searchsorted(below, [behind, values.size - 1 - behind], side='right')
    return _between(levels, int(low), int(high)).astype(np.uint8)[values]


def picture(opened: Image.Image, percentile: float) -> Image.Image:
    """Returns a picture in mode 'L' or 'RGB', stretched by `stretched`.

    Deep pictures keep their depth until then. Pillow reads a color of more than 8 bits by its upper
    8. Transparent pictures are laid on a ground first (data_sources/conversion.py).

    Args:
      opened: of any mode, loaded or not; its pixels are loaded.
      percentile: from 0 to below 50.

    Raises:
      OSError, SyntaxError, ValueError, ...: it is damaged; Pillow's decoders have no common error.
    """
    if opened.mode.startswith(('I', 'F')):
        opened.load()
        values = np.asarray(opened)
        return Image.fromarray(stretched(values.astype(values.dtype.newbyteorder('=')), percentile))
    values = np.asarray(conversion.to_mode(opened, conversion.flat_mode(opened)))
    return Image.fromarray(stretched(values, percentile))


def encoded(file: bytes, percentile: float, upright: bool) -> bytes:
    """Returns the PNG file, grey or RGB, of a picture file that is stretched by `picture`.

    What stands in a data set with `stretch`, and what a network trained on it has to get of a new
    picture: stretch the file first, then read it as any other.

    Args:
      file: the bytes of a picture file.
      percentile: from 0 to below 50.
      upright: whether the picture is turned as its EXIF says; nothing turns it afterwards.

    Raises:
      DecodeError: it is no picture, damaged or too large.
    """
    try:
        with picture_files.opened(jpeg.examined(file).data) as opened:
            number = orientation.of(opened) if upright else orientation.UPRIGHT
            result = orientation.turned(picture(opened, percentile), number)
            png = io.BytesIO()
            result.save(png, 'PNG')
            return png.getvalue()
    except picture_files.TooLargeError as error:
        raise DecodeError(f'it is too large ({error})') from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise DecodeError(f'it cannot be decoded ({error})') from error


def _rank(count: int, percentile: float) -> int:
    """Returns how many of `count` sorted values stand before the one at a percentile."""
    return int(percentile / 100 * (count - 1))


def _limits(ordered: np.ndarray, percentile: float) -> tuple:
    """Returns the values that become black and white, of all of a picture's in order."""
    behind = _rank(len(ordered), percentile)
    return ordered[behind], ordered[len(ordered) - 1 - behind]


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns values scaled so that `low` is 0 and `high` is 255, rounded, 0 .. 255."""
    if low == high:
        return np.where(values > high, 255, 0)
    parts = np.clip(values, low, high) - low
    if np.issubdtype(values.dtype, np.integer):
        return (2 * 255 * parts + (high - low)) // (2 * (high - low))
    return np.floor(parts / (high - low) * 255 + 0.5)
