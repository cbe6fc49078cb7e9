"""Crops of pictures: where they lie, and their pixels at the size that a network takes.

`crop_matrix` and `centre_matrix` say where in the picture the pixels were, for targets that move.
"""

import math
import threading

import numpy as np
from cykooz_resizer import (
    CropBox,
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)

from data_sources import decoding, geometry
from data_sources.decoding import Box
from data_sources.draws import Draws

# One a thread: it keeps buffers.
_local = threading.local()
_BILINEAR = ResizeAlg.convolution(FilterType.bilinear)


def resize(
    pixels: np.ndarray, shape: tuple[int, int], box: tuple[float, ...] | None = None
) -> np.ndarray:
    """Returns uint8 [*shape, 3]: bilinear, antialiased where pixels get fewer.

    As Pillow's, but for rounding (at most 1 of 255), in a third of its time.

    Args:
      pixels: uint8 [height, width, 3].
      shape: (height, width) of the result.
      box: (left, top, width, height) in pixels, if only that part is to be scaled.
    """
    if not hasattr(_local, 'resizer'):
        _local.resizer = Resizer()
    height, width = pixels.shape[:2]
    options = ResizeOptions(
        resize_alg=_BILINEAR, crop_box=CropBox(*box) if box else None, use_alpha=False
    )
    target = ImageData(shape[1], shape[0], PixelType.U8x3)
    _local.resizer.resize(
        ImageData(width, height, PixelType.U8x3, pixels.tobytes()), target, options
    )
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*shape, 3)


def centre(encoded: bytes, size: int, shorter: int, upright: bool = False) -> np.ndarray:
    """Returns the middle, uint8 [size, size, 3], of the picture scaled to a shorter side.

    The same as torchvision's Resize(shorter) and CenterCrop(size) of a Pillow image, but for
    rounding: bilinear, antialiased; only the part that is kept is computed.

    Args:
      encoded: the file's bytes.
      size: side of the result.
      shorter: the shorter side, at least `size`; the longer one follows, rounded down.
      upright: whether the picture's EXIF orientation is applied.

    Raises:
      DecodeError: no picture, truncated, or of more than MAX_PIXELS.
    """
    pixels = decoding.decode(encoded, upright)
    height, width = pixels.shape[:2]
    box = centre_box(height, width, size, shorter)
    return resize(pixels, (size, size), box)


def centre_box(height: int, width: int, size: int, shorter: int) -> tuple[float, ...]:
    """Returns (left, top, width, height) of the centre crop in pixels of the original."""
    if height <= width:
        scaled = (shorter, int(shorter * width / height))
    else:
        scaled = (int(shorter * height / width), shorter)
    # Python rounds halves to even here, as torchvision does.
    top, left = (round((side - size) / 2) for side in scaled)
    y, x = height / scaled[0], width / scaled[1]
    # Rounding may not lead beyond the picture's own size.
    return (left * x, top * y, min(size * x, width - left * x), min(size * y, height - top * y))


def centre_matrix(height: int, width: int, size: int, shorter: int) -> np.ndarray:
    """Returns the matrix of the centre crop of a picture of this height and width.

    Args:
      height, width: of the picture, in pixels.
      size, shorter: as in `centre`.
    """
    left, top, box_width, box_height = centre_box(height, width, size, shorter)
    return geometry.resized(top, left, box_height, box_width, (size, size))


def crop_matrix(box: Box, size: int) -> np.ndarray:
    """Returns the matrix of a crop that was resized to `size`."""
    return geometry.resized(*box, (size, size))


def crop_box(
    draws: Draws,
    height: int,
    width: int,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Draws the box of a random-resized crop (Szegedy et al. 2015, section 6).

    Its fraction of the area is uniform in `scale`, the logarithm of width over height uniform in
    that of `ratio`, its position uniform. After ten boxes that do not fit it is the largest centred
    one of an allowed ratio, as in torchvision. A box of twice the size or more is trimmed to where
    it can be decoded at a fraction of its resolution: by less than a pixel of the result.

    Args:
      draws: this example's random numbers.
      height, width: of the picture, in pixels.
      size: side that the crop will get.
      scale, ratio: (low, high).
    """
    for _ in range(10):
        area = height * width * draws.uniform(*scale)
        aspect = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = draws.integer(height - box_height + 1)
            left = draws.integer(width - box_width + 1)
            return _trimmed(Box(top, left, box_height, box_width), size)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_width = min(width, max(1, round(height * aspect)))
    box_height = min(height, max(1, round(width / aspect)))
    box = Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
    return _trimmed(box, size)


def _trimmed(box: Box, size: int) -> Box:
    """Returns the box with its sides moved inwards to multiples of the factor of shrinking."""
    for shrink in (8, 4, 2):
        top, left = (-(-start // shrink) * shrink for start in box[:2])
        bottom = (box.top + box.height) // shrink * shrink
        right = (box.left + box.width) // shrink * shrink
        if min(bottom - top, right - left) >= shrink * size:
            return Box(top, left, bottom - top, right - left)
    return box


def window_box(draws: Draws, height: int, width: int, size: int, zoom: tuple[float, float]) -> Box:
    """Draws the box of a crop at the picture's own scale, of `size` pixels times a factor.

    The factor's logarithm is uniform in that of `zoom`, its position uniform among those inside the
    picture. Where the picture is smaller than the box, it lies anywhere in it.

    Args:
      draws: this example's random numbers.
      height, width: of the picture, in pixels.
      size: side that the crop will get.
      zoom: (low, high).
    """
    side = max(1, round(size * math.exp(draws.uniform(math.log(zoom[0]), math.log(zoom[1])))))
    corner = []
    for length in (height, width):
        first, last = min(0, length - side), max(0, length - side)
        corner.append(first + draws.integer(last - first + 1))
    return Box(*corner, side, side)


def decode_window(encoded: bytes, frame: decoding.Frame, box: Box, size: int) -> np.ndarray:
    """Returns a box, which may reach beyond the picture, resized to uint8 [size, size, 3].

    Pixels outside the picture are 0, as targets that move with it know nothing of them.

    Raises:
      DecodeError: no picture, or truncated.
    """
    top, left = max(box.top, 0), max(box.left, 0)
    bottom = min(box.top + box.height, frame.height)
    right = min(box.left + box.width, frame.width)
    inside = Box(top, left, bottom - top, right - left)
    pixels = decoding.decode_box(encoded, frame, inside, 1)
    if inside != box:
        whole = np.zeros((box.height, box.width, 3), np.uint8)
        place = top - box.top, left - box.left
        whole[place[0] : place[0] + inside.height, place[1] : place[1] + inside.width] = pixels
        pixels = whole
    return pixels if pixels.shape[:2] == (size, size) else resize(pixels, (size, size))


def decode_crop(encoded: bytes, frame: decoding.Frame, box: Box, size: int) -> np.ndarray:
    """Returns a part of a picture resized to uint8 [size, size, 3].

    Decoded at a half, a quarter or an eighth where the box allows and is still large enough.

    Raises:
      DecodeError: no picture, or truncated.
    """
    side = min(box.height, box.width)
    fits = (f for f in (8, 4, 2) if side >= f * size and not any(start % f for start in box))
    shrink = next(fits, 1)
    return resize(decoding.decode_box(encoded, frame, box, shrink), (size, size))
