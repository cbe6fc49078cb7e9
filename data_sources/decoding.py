"""From an encoded picture, or a part of it, to pixels.

This takes most of the time of a streamed epoch. libjpeg-turbo (simplejpeg) decodes baseline JPEG,
no further down than the crop reaches and no finer than it needs. Pillow decodes everything else
(PNG, CMYK, whatever it reads), and decides about what libjpeg-turbo refuses.

EXIF orientation is applied where the data set asks for it; otherwise it is not, as in torchvision
and tf.data.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from data_sources import conversion, jpeg, orientation, picture_files, region_decoder

_BLOCK = 16  # rows of the largest unit that JPEG codes together
# What a header that ends after the crop brings about.
_SURPLUS = 'extraneous bytes before marker 0xd9'


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
      height, width: in pixels, of the upright picture.
      channels: how many there are.
      position: where the frame header of a JPEG starts; 0 for other formats.
      baseline: whether it is a baseline JPEG.
      orientation: how it has to be turned; 1 where orientation is not applied.
    """

    height: int
    width: int
    channels: int
    position: int
    baseline: bool
    orientation: int = orientation.UPRIGHT


def read_frame(encoded: bytes, upright: bool = False) -> Frame:
    """Returns size and kind of an encoded picture; its pixels are not read.

    Args:
      encoded: the file's bytes.
      upright: whether its EXIF orientation is applied.

    Raises:
      DecodeError: it is no picture, or has more than picture_files.MAX_PIXELS.
    """
    frame = _jpeg_frame(encoded) or _pillow_frame(encoded)
    if upright and orientation.may_be_turned(encoded, frame.position):
        frame = _turned(frame, encoded)
    if not 0 < frame.height * frame.width <= picture_files.MAX_PIXELS:
        raise DecodeError(f'its size is {frame.width}x{frame.height} pixels')
    return frame


def decode(encoded: bytes, upright: bool = False) -> np.ndarray:
    """Returns the whole picture, uint8 [height, width, 3], RGB.

    Args:
      encoded: the file's bytes.
      upright: whether its EXIF orientation is applied.

    Raises:
      DecodeError: it is no picture, lacks data, or has more than picture_files.MAX_PIXELS.
    """
    frame = read_frame(encoded, upright)
    return decode_box(encoded, frame, Box(0, 0, frame.height, frame.width))


def decode_box(encoded: bytes, frame: Frame, box: Box, shrink: int = 1) -> np.ndarray:
    """Returns a part of a picture, uint8 [height / shrink, width / shrink, 3], RGB.

    Args:
      encoded: the file's bytes.
      frame: its header, from `read_frame`.
      box: the part of the upright picture; its four numbers are multiples of `shrink`.
      shrink: 1, 2, 4 or 8. JPEG is decoded at that fraction of its size, each pixel from the low
        frequencies of its block, which is fast; other formats are averaged.

    Raises:
      DecodeError: it is no picture, or lacks data.
    """
    if frame.orientation != orientation.UPRIGHT:
        return _turned_box(encoded, frame, box, shrink)
    pixels = _turbo(encoded, frame, box, shrink)
    if pixels is not None:
        return pixels
    pixels = _pillow(encoded)[box.top : box.top + box.height, box.left : box.left + box.width]
    return _reduced(pixels, shrink)


def _turned_box(encoded: bytes, frame: Frame, box: Box, shrink: int) -> np.ndarray:
    """Does what `decode_box` does, for a picture that has to be turned."""
    number = frame.orientation
    stored = Box(*orientation.stored_box(box, number, frame.height, frame.width))
    height, width = frame.height, frame.width
    if orientation.exchanges_sides(number):
        height, width = width, height
    frame = frame._replace(height=height, width=width, orientation=orientation.UPRIGHT)
    # Seen from the other side, a box may begin between the pixels of the smaller picture.
    fits = not any(start % shrink for start in stored)
    pixels = decode_box(encoded, frame, stored, shrink if fits else 1)
    pixels = np.ascontiguousarray(orientation.turned_pixels(pixels, number))
    return pixels if fits else _reduced(pixels, shrink)


def _reduced(pixels: np.ndarray, shrink: int) -> np.ndarray:
    """Returns pixels averaged in squares."""
    return pixels if shrink == 1 else np.asarray(Image.fromarray(pixels).reduce(shrink))


def _turbo(encoded: bytes, frame: Frame, box: Box, shrink: int) -> np.ndarray | None:
    """Returns the part as libjpeg-turbo decodes it; None where Pillow has to decide.

    Missing data are found wherever they are, except below the part by simplejpeg.

    Raises:
      DecodeError: it lacks data.
    """
    if not frame.position or frame.channels not in (1, 3):
        return None
    found = region_decoder.decode(encoded, *box) if shrink == 1 else None
    found = found or _simplejpeg(encoded, frame, box, shrink)
    if found is None:
        return None
    pixels, odd = found
    suspicious = odd or jpeg.looks_cut(encoded, frame.position)
    if (suspicious and jpeg.lacks_data(encoded)) or not (
        frame.baseline or jpeg.has_all_scans(encoded)
    ):
        raise DecodeError(f'it cannot be decoded ({jpeg.MISSING})')
    return pixels


def _simplejpeg(
    encoded: bytes, frame: Frame, box: Box, shrink: int
) -> tuple[np.ndarray, bool] | None:
    """Returns the part as simplejpeg decodes it, and whether there was an unexpected warning."""
    height, data = frame.height, encoded
    bottom = min(-(-(box.top + box.height + shrink) // _BLOCK) * _BLOCK, height)
    if frame.baseline and bottom < height:
        # A header that says that the picture ends after the crop saves a seventh of the work.
        data, height = bytearray(encoded), bottom
        data[frame.position + 3 : frame.position + 5] = height.to_bytes(2)
    sides = (-(-height // shrink), -(-frame.width // shrink))
    options = {'colorspace': 'RGB', 'min_height': sides[0], 'min_width': sides[1]}
    pixels, odd = np.empty((*sides, 3), np.uint8), False
    try:
        pixels = simplejpeg.decode_jpeg(data, buffer=pixels, strict=True, **options)
    except ValueError as error:
        # Of the surplus it complains when it has written the pixels; of a header before.
        odd = height == frame.height or _SURPLUS not in str(error)
    if odd:
        try:
            pixels = simplejpeg.decode_jpeg(data, strict=False, **options)
        except ValueError:
            return None
    top, left = box.top // shrink, box.left // shrink
    return pixels[top : top + box.height // shrink, left : left + box.width // shrink], odd


def _pillow(encoded: bytes) -> np.ndarray:
    """Returns the whole picture, as stored, as Pillow decodes it."""
    try:
        with picture_files.opened(jpeg.examined(encoded).data) as picture:
            return conversion.to_rgb(picture)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise DecodeError(f'it cannot be decoded ({error})') from error


def _pillow_frame(encoded: bytes) -> Frame:
    """Returns the header as Pillow reads it."""
    with _opened(encoded) as picture:
        return Frame(picture.height, picture.width, len(picture.getbands()), 0, False)


def _turned(frame: Frame, encoded: bytes) -> Frame:
    """Returns the header of the picture turned upright."""
    with _opened(encoded) as picture:
        number = orientation.of(picture)
    height, width = frame.height, frame.width
    if orientation.exchanges_sides(number):
        height, width = width, height
    return frame._replace(height=height, width=width, orientation=number)


@contextlib.contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
    """Opens a picture for its header."""
    try:
        with picture_files.opened(encoded) as picture:
            yield picture
    except picture_files.TooLargeError as error:
        raise DecodeError(f'it is too large ({error})') from error
    except Image.UnidentifiedImageError as error:
        raise DecodeError(str(error)) from error
    except Exception as error:
        raise DecodeError(f'it is not a picture that can be read ({error})') from error


def _jpeg_frame(encoded: bytes) -> Frame | None:
    """Returns a JPEG's frame header (ITU-T T.81, B.2.2), behind the segments before it.

    None stands for what simplejpeg does not read, or what looks odd: Pillow decides about it.
    """
    if encoded[:2] != b'\xff\xd8':
        return None
    offset, last = 2, len(encoded) - 10
    while offset < last and encoded[offset] == 0xFF:
        marker = encoded[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
            continue
        if marker in jpeg.ALONE:
            return None
        if marker in jpeg.FRAMES:
            height = int.from_bytes(encoded[offset + 5 : offset + 7])
            width = int.from_bytes(encoded[offset + 7 : offset + 9])
            # simplejpeg reads 8 bits; where the height is 0, a later segment gives it.
            readable = height and encoded[offset + 4] == 8 and marker in (*jpeg.BASELINE, 0xC2)
            channels, baseline = encoded[offset + 9], marker in jpeg.BASELINE
            return Frame(height, width, channels, offset + 2, baseline) if readable else None
        offset += 2 + int.from_bytes(encoded[offset + 2 : offset + 4])
    return None
