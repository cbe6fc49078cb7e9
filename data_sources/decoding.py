"""From an encoded picture, or a part of it, to pixels.

This takes most of the time of a streamed epoch. libjpeg-turbo (simplejpeg) decodes baseline JPEG,
no further down than the crop reaches and no finer than it needs. Pillow decodes everything else
(PNG, CMYK, whatever it reads), and decides about what libjpeg-turbo refuses.

EXIF orientation is not applied, as in torchvision and tf.data.
"""

from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from data_sources import images, picture_files, region_decoder

_BASELINE = (0xC0, 0xC1)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_END = b'\xff\xd9'
_BLOCK = 16  # rows of the largest unit that JPEG codes together


class DecodeError(ValueError):
    """Bytes are no picture, or not a whole one."""


class Box(NamedTuple):
    """A part of a picture, in pixels from its upper left corner."""

    top: int
    left: int
    height: int
    width: int


class Frame(NamedTuple):
    """The header of a picture.

    Attributes:
      height, width: in pixels.
      channels: how many there are.
      position: where the frame header of a JPEG starts; 0 for other formats.
      baseline: whether it is a baseline JPEG.
    """

    height: int
    width: int
    channels: int
    position: int
    baseline: bool


def read_frame(encoded: bytes) -> Frame:
    """Returns size and kind of an encoded picture; its pixels are not read.

    Raises:
      DecodeError: it is no picture, or has more than picture_files.MAX_PIXELS.
    """
    frame = _jpeg_frame(encoded) or _pillow_frame(encoded)
    if not 0 < frame.height * frame.width <= picture_files.MAX_PIXELS:
        raise DecodeError(f'its size is {frame.width}x{frame.height} pixels')
    return frame


def decode(encoded: bytes) -> np.ndarray:
    """Returns the whole picture, uint8 [height, width, 3], RGB.

    Raises:
      DecodeError: it is no picture, is truncated, or has more than picture_files.MAX_PIXELS.
    """
    frame = read_frame(encoded)
    return decode_box(encoded, frame, Box(0, 0, frame.height, frame.width))


def decode_box(encoded: bytes, frame: Frame, box: Box, shrink: int = 1) -> np.ndarray:
    """Returns a part of a picture, uint8 [height / shrink, width / shrink, 3], RGB.

    Args:
      encoded: the file's bytes.
      frame: its header, from `read_frame`.
      box: the part; its four numbers are multiples of `shrink`.
      shrink: 1, 2, 4 or 8. JPEG is decoded at that fraction of its size, each pixel from the low
        frequencies of its block, which is fast; other formats are averaged.

    Raises:
      DecodeError: it is no picture, or is truncated.
    """
    pixels = _turbo(encoded, frame, box, shrink)
    if pixels is not None:
        return pixels
    pixels = _pillow(encoded)[box.top : box.top + box.height, box.left : box.left + box.width]
    if shrink == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(shrink))


def _turbo(encoded: bytes, frame: Frame, box: Box, shrink: int) -> np.ndarray | None:
    """Returns the part as libjpeg-turbo decodes it; None where Pillow has to decide."""
    if not frame.position or frame.channels not in (1, 3):
        return None
    # Decoding below is not strict, since real files have many harmless oddities; so it does not
    # report a missing end.
    if encoded.rfind(_END) < frame.position:
        return None
    if shrink == 1 and (pixels := region_decoder.decode(encoded, *box)) is not None:
        return pixels
    height, data = frame.height, encoded
    bottom = min(-(-(box.top + box.height + shrink) // _BLOCK) * _BLOCK, height)
    if frame.baseline and bottom < height:
        # A header that says that the picture ends after the crop saves a seventh of the work.
        data, height = bytearray(encoded), bottom
        data[frame.position + 3 : frame.position + 5] = height.to_bytes(2)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            'RGB',
            min_height=-(-height // shrink),
            min_width=-(-frame.width // shrink),
            min_factor=1,
            strict=False,
        )
    except ValueError:
        return None
    top, left = box.top // shrink, box.left // shrink
    return pixels[top : top + box.height // shrink, left : left + box.width // shrink]


def _pillow(encoded: bytes) -> np.ndarray:
    """Returns the whole picture as Pillow decodes it."""
    try:
        with picture_files.opened(encoded) as picture:
            picture.load()
            return np.asarray(images.to_mode(picture, 'RGB'))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise DecodeError(f'it cannot be decoded ({error})') from error


def _pillow_frame(encoded: bytes) -> Frame:
    """Returns the header as Pillow reads it."""
    try:
        with picture_files.opened(encoded) as picture:
            return Frame(picture.height, picture.width, len(picture.getbands()), 0, False)
    except picture_files.TooLargeError as error:
        raise DecodeError(f'it is too large ({error})') from error
    except Image.UnidentifiedImageError as error:
        raise DecodeError(str(error)) from error
    except Exception as error:
        raise DecodeError('it is not a picture') from error


def _jpeg_frame(encoded: bytes) -> Frame | None:
    """Returns a JPEG's frame header (ITU-T T.81, B.2.2), behind the segments before it."""
    if encoded[:2] != b'\xff\xd8':
        return None
    offset, last = 2, len(encoded) - 10
    while offset < last and encoded[offset] == 0xFF:
        marker = encoded[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
            continue
        if marker in _FRAMES:
            height = int.from_bytes(encoded[offset + 5 : offset + 7])
            width = int.from_bytes(encoded[offset + 7 : offset + 9])
            # simplejpeg reads 8 bits; where the height is 0, a later segment gives it.
            readable = height and encoded[offset + 4] == 8 and marker in (*_BASELINE, 0xC2)
            channels, baseline = encoded[offset + 9], marker in _BASELINE
            return Frame(height, width, channels, offset + 2, baseline) if readable else None
        offset += 2 + int.from_bytes(encoded[offset + 2 : offset + 4])
    return None
