"""EXIF orientation: how a stored picture has to be turned to stand upright.

Cameras store what the sensor saw, and a number from 1 to 8 that says how it was held (EXIF 2.3,
section 4.6.4, tag 0x0112). Whether it is applied is a matter of the data set: its info says so.
"""

import numpy as np
from PIL import ExifTags, Image

# number -> whether the stored rows, then the stored columns, are reversed, and are then exchanged.
_STEPS = {
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UPRIGHT = 1


def may_be_turned(encoded: bytes, position: int) -> bool:
    """Returns whether a picture may have an orientation; takes a microsecond for a JPEG.

    Args:
      encoded: the file.
      position: of its frame header, if it is a JPEG: EXIF stands before the data, which follow.
    """
    if position:
        stop = encoded.find(b'\xff\xda', position)
        return any(encoded.find(name, 0, stop) >= 0 for name in (b'Exif\0\0', b'tiff:Orientation'))
    if encoded.startswith(b'\x89PNG'):
        return any(name in encoded for name in (b'eXIf', b'Raw profile', b'XML:com.adobe.xmp'))
    return True


def of(picture: Image.Image) -> int:
    """Returns the orientation of a picture as it was opened; 1 where there is no valid one.

    Damaged EXIF is ignored: the pixels are sound. Pillow turns TIFF upright on its own.
    """
    if picture.format == 'TIFF':
        return UPRIGHT
    if picture.format == 'PNG':
        picture.load()  # EXIF may stand behind the pixels, whose damage must not pass unnoticed
    try:
        number = picture.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
        return int(number) if number in _STEPS else UPRIGHT
    except Exception:  # it parses bytes from outside: struct.error, SyntaxError, TypeError, ...
        return UPRIGHT


def exchanges_sides(number: int) -> bool:
    """Returns whether height and width are exchanged when the picture is turned."""
    return number in _STEPS and _STEPS[number][2]


def turned(picture: Image.Image, number: int) -> Image.Image:
    """Returns a picture turned upright."""
    return picture.transpose(_METHODS[number]) if number in _METHODS else picture


def turned_pixels(pixels: np.ndarray, number: int) -> np.ndarray:
    """Returns [height, width, channels] turned upright; a view."""
    if number not in _STEPS:
        return pixels
    rows, columns, exchanged = _STEPS[number]
    pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    return pixels.swapaxes(0, 1) if exchanged else pixels


def turned_boxes(boxes: np.ndarray, number: int) -> np.ndarray:
    """Returns boxes of a stored picture as they lie in the upright one.

    Args:
      boxes: [n, 4], (y0, x0, y1, x1) as fractions of the sides.
      number: the orientation.
    """
    if number not in _STEPS:
        return boxes
    rows, columns, exchanged = _STEPS[number]
    y0, x0, y1, x1 = boxes.T
    y0, y1 = (1 - y1, 1 - y0) if rows else (y0, y1)
    x0, x1 = (1 - x1, 1 - x0) if columns else (x0, x1)
    return np.stack([x0, y0, x1, y1] if exchanged else [y0, x0, y1, x1], axis=1)


def stored_box(
    box: tuple[int, int, int, int], number: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """Returns where a part of the upright picture lies in the stored one.

    Args:
      box: (top, left, height, width) in pixels of the upright picture.
      number: the orientation.
      height, width: of the upright picture.
    """
    if number not in _STEPS:
        return box
    rows, columns, exchanged = _STEPS[number]
    top, left, box_height, box_width = box
    if exchanged:
        top, left, box_height, box_width = left, top, box_width, box_height
        height, width = width, height
    top = height - top - box_height if rows else top
    left = width - left - box_width if columns else left
    return top, left, box_height, box_width
