"""How a picture of the user's own is stored: in its bytes where they are plain, or as grey or RGB.

A picture keeps its bytes if stock tfds makes of them what is read here. Others (palettes,
transparency, more than 8 bits, CMYK, formats other than JPEG, PNG, WebP and BMP) are stored as grey
or RGB in PNG, as data_sources/conversion.py converts them; so an alpha channel that carries nothing
is dropped.
"""

import io

import numpy as np
from PIL import Image

from data_sources import conversion, jpeg, orientation, picture_files, stretching
from preparation import picture_check

CONVERTED = 'stored anew as grey or RGB'
STRETCHED = 'stretched'
_KEPT = ('JPEG', 'MPO', 'PNG', 'WEBP', 'BMP')
_PNG_DEPTH = 24  # where a PNG has the bits of a channel


def stored(encoded: bytes, stretch: float | None, turn: bool) -> tuple[bytes, tuple[str, ...]]:
    """Returns the bytes to store of a sound picture, and the kinds under which it is counted.

    Args:
      encoded: the picture.
      stretch: the percentile by which it is stretched (data_sources/stretching.py), or None.
      turn: whether it may be turned upright as its EXIF data say; otherwise they are dropped.
    """
    with picture_files.opened(jpeg.examined(encoded).data) as picture:
        number = orientation.of(picture)
        turned = turn and number != orientation.UPRIGHT
        if (
            _is_plain(picture, encoded)
            and stretch is None
            and (turn or number == orientation.UPRIGHT)
        ):
            return encoded, ()
        turned_kind = (picture_check.TURNED,) * turned
        if stretch is not None:
            return stretching.encoded(encoded, stretch, turn), (STRETCHED, *turned_kind)
        result = conversion.to_mode(picture, conversion.flat_mode(picture))
        result = orientation.turned(result, number) if turned else result
        return png(np.asarray(result)), (CONVERTED, *turned_kind)


def _is_plain(picture: Image.Image, encoded: bytes) -> bool:
    """Returns whether Pillow and OpenCV, by which tfds decodes, read 8-bit grey or RGB."""
    deep = picture.format == 'PNG' and encoded[_PNG_DEPTH] > 8
    return (
        picture.format in _KEPT
        and picture.mode in ('L', 'RGB')
        and not picture.has_transparency_data
        and not deep
    )


def png(pixels: np.ndarray) -> bytes:
    """Returns the PNG file of pixels, uint8 [h, w] or [h, w, 3]."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, 'PNG')
    return file.getvalue()
