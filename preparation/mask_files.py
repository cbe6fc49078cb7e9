"""Reading the numbers of a mask's pixels: palette indices and grey levels as the file has them.

A mask is no picture: what a viewer shows of it does not matter, and a number that a codec or a
conversion has changed is a wrong one. So what cannot be read exactly is refused.
"""

import numpy as np
from PIL import Image

from data_sources import orientation, picture_files

# They keep each pixel; who writes GIF orders the palette anew.
_FORMATS = ('PNG', 'TIFF', 'BMP')
_TIFF_LOSSY = ('jpeg', 'tiff_jpeg', 'webp')
_WHITE_IS_ZERO = (262, 0)  # TIFF 6.0, section 8: Pillow turns the levels round
_SCALES = {'L;2': 85, 'L;4': 17}  # what Pillow multiplies the grey levels of such files by
_ALPHA = ('LA', 'RGBA', 'PA')


class MaskFaultError(Exception):
    """A mask cannot be used.

    Attributes:
      file: its name in messages to the user; '' for that of the picture.
      reason: why.
    """

    def __init__(self, file: str, reason: str):
        super().__init__(f'{file}: {reason}')
        self.file = file
        self.reason = reason


def numbers(encoded: bytes, file: str) -> np.ndarray:
    """Returns the number of each pixel of a label map or instance map, int32 [height, width].

    A mask's own EXIF orientation is applied; few have one.

    Args:
      encoded: the contents of the file.
      file: its name in messages.

    Raises:
      MaskFaultError: it is damaged, of another format than PNG, TIFF or BMP, stored lossily, an
        animation, in color, or has numbers below 0 or fractions.
    """
    return _read(encoded, file, in_color=False)


def covered(encoded: bytes, file: str) -> np.ndarray:
    """Returns where a mask of a single object is not 0 (black), bool [height, width].

    Args and raises are those of `numbers`, but colors are allowed.
    """
    found = _read(encoded, file, in_color=True) != 0
    return found.any(axis=-1) if found.ndim == 3 else found


def _read(encoded: bytes, file: str, in_color: bool) -> np.ndarray:
    """Returns int32 [height, width], or with channels where `in_color` allows them."""
    if not encoded:
        raise MaskFaultError(file, 'empty (zero bytes)')
    try:
        _check_sums(encoded)
        with picture_files.opened(encoded) as mask:
            if fault := _kind_fault(mask):
                raise MaskFaultError(file, fault)
            scale = _scale(mask)
            number = orientation.of(mask)
            mask.load()
            values = _values(mask, file, in_color)
    except MaskFaultError:
        raise
    except picture_files.TooLargeError as error:
        raise MaskFaultError(file, f'too large to be decoded safely ({error})') from error
    except Image.UnidentifiedImageError as error:
        raise MaskFaultError(file, str(error)) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise MaskFaultError(file, f'does not decode: {error}') from error
    if values.min() < 0:
        raise MaskFaultError(file, f'has a pixel of {values.min()}: numbers start at 0')
    return orientation.turned_pixels(values // scale, number)


def _check_sums(encoded: bytes) -> None:
    """Raises what Pillow does if the checksum of a chunk of a PNG is wrong.

    Decoding alone does not look at those of the pixels, and a wrong number is no garbled pixel that
    anybody would see.
    """
    if encoded.startswith(b'\x89PNG'):
        with picture_files.opened(encoded) as mask:
            mask.verify()


def _kind_fault(mask: Image.Image) -> str:
    """Returns why a mask of this kind is not used, or ''; its pixels are not read."""
    if mask.format in ('JPEG', 'MPO'):
        return 'a JPEG, which does not keep the numbers of pixels: save masks as PNG'
    if mask.format not in _FORMATS:
        return f'a {mask.format} file, which may not keep the numbers of pixels: save masks as PNG'
    if getattr(mask, 'n_frames', 1) > 1:
        return f'it holds {mask.n_frames} pictures: a mask is a single one'
    if mask.format == 'TIFF':
        if mask.info.get('compression') in _TIFF_LOSSY:
            return 'a TIFF that is compressed as JPEG or WebP, which do not keep numbers'
        tag, white_is_zero = _WHITE_IS_ZERO
        if mask.tag_v2.get(tag) == white_is_zero:
            return 'a TIFF in which 0 is white: save masks as PNG'
    if mask.mode.startswith('F'):
        return 'it holds fractions: masks are whole numbers'
    return ''


def _scale(mask: Image.Image) -> int:
    """Returns what Pillow multiplies the numbers of an opened mask by."""
    raw = mask.tile[0][3] if mask.tile else ''
    return _SCALES.get(raw if isinstance(raw, str) else raw[0], 1)


def _values(mask: Image.Image, file: str, in_color: bool) -> np.ndarray:
    """Returns the numbers of a loaded mask, int32, without an alpha channel that says nothing."""
    values = np.asarray(mask)
    if mask.mode in _ALPHA:
        alpha = values[..., -1]
        if alpha.min() != alpha.max():
            raise MaskFaultError(file, 'parts of it are transparent: save masks without alpha')
        values = values[..., :-1]
        values = values[..., 0] if values.shape[-1] == 1 else values
    if values.ndim != 2 and not in_color:
        raise MaskFaultError(
            file, f'in color (mode {mask.mode}): a mask has one number for each pixel'
        )
    return values.astype(np.int32)
