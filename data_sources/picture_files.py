"""The one way to open a picture: formats of ours only, and a limit on what it unpacks to.

Pictures come from outside. Pillow, left to itself, starts Ghostscript on a PostScript file that is
called .png, and allocates what a header says. So no other module calls Image.open; a test checks
it. What is opened here is not converted: that is for others, and label maps are used as they are.
"""

import contextlib
import dataclasses
import importlib.util
import io
import math
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from data_sources import jpeg
from errors import UserError

SUFFIXES = frozenset(
    {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp'}
    | {'.pgm', '.ppm', '.avif', '.heic', '.heif'}
)
# What systems and programs leave beside the user's files, in lower case: macOS, Windows, Synology,
# QNAP, Linux, Picasa.
_SYSTEM = frozenset(
    {'__macosx', 'icon\r', 'thumbs.db', 'ehthumbs.db', 'ehthumbs_vista.db', 'desktop.ini'}
    | {'$recycle.bin', 'recycler', 'system volume information', 'found.000'}
    | {'@eadir', '#recycle', '#snapshot', '@recycle', '@recently-snapshot', '@tmp'}
    | {'lost+found', 'picasa.ini', '__pycache__'}
)
MAX_BYTES = 256 << 20  # of a file
MAX_PIXELS = 100_000_000  # 300 MB as RGB; a small file can unpack to far more
# Of formats whose decoders hold several copies, so that none takes more than a gigabyte.
_MAX_PIXELS = {'WEBP': MAX_PIXELS // 2, 'AVIF': MAX_PIXELS // 2, 'HEIF': MAX_PIXELS // 2}
_MAX_TILE = 1 << 24  # pixels of a tile of a TIFF, which is unpacked whole
_TILE_SIDES = (322, 323)  # TIFF 6.0, section 15
_HEIC = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
_AVIF = (b'avif', b'avis')


class TooLargeError(ValueError):
    """A picture has too many pixels."""


def _known_formats() -> tuple[str, ...]:
    """Returns those of our formats that this Pillow reads, in the order in which it tries them."""
    Image.init()  # otherwise Pillow does not know all of them yet
    if importlib.util.find_spec('pillow_heif'):  # requirements-heif.txt
        import pillow_heif

        pillow_heif.register_heif_opener()
    wanted = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM', 'AVIF', 'HEIF')
    return tuple(name for name in wanted if name in Image.OPEN)


_FORMATS = _known_formats()


@contextlib.contextmanager
def opened(encoded: bytes) -> Iterator[Image.Image]:
    """Opens an encoded picture; its pixels are read, and may turn out to be damaged, at `load`.

    Args:
      encoded: the bytes of a file.

    Raises:
      TooLargeError: it has more than MAX_PIXELS, or half of them in WebP, AVIF or HEIC.
      PIL.UnidentifiedImageError: it is no picture of a format that is read here; the sentence says
        so, or what has to be installed.
      OSError, SyntaxError, ValueError, ...: it is damaged; Pillow's decoders have no common error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, on odd metadata and sizes; errors still raise
        try:
            picture = Image.open(io.BytesIO(encoded), formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise TooLargeError(str(error)) from error
        except Image.UnidentifiedImageError as error:
            raise Image.UnidentifiedImageError(_unidentified(encoded)) from error
        with picture:
            _check_size(picture)
            yield picture


def system_kind(name: str) -> str:
    """Returns what a file or folder that is not the user's own is counted as; '' for others."""
    if name.startswith('._'):
        return '._* (of macOS)'
    if name.lower() in _SYSTEM or name == '.DS_Store':
        return name.strip()
    return 'hidden' if name.startswith('.') else ''


def _check_size(picture: Image.Image) -> None:
    """Raises TooLargeError if a picture's header asks for too much."""
    most = _MAX_PIXELS.get(picture.format, MAX_PIXELS)
    if picture.width * picture.height > most:
        size = f'{picture.width}x{picture.height} pixels'
        raise TooLargeError(f'{size}; the limit is {most:,} pixels')
    if picture.format == 'TIFF':
        tile = [picture.tag_v2.get(tag, 0) for tag in _TILE_SIDES]
        if math.prod(tile) > max(_MAX_TILE, picture.width * picture.height):
            raise TooLargeError(f'it is stored in tiles of {tile[0]}x{tile[1]} pixels')


@dataclasses.dataclass(frozen=True)
class InMemory:
    """An encoded picture that is in no file; it stands wherever the path of one does.

    Attributes:
      encoded: the bytes that a file of it would have.
      name: what errors call it, where they name a file.
    """

    encoded: bytes
    name: str

    def __str__(self) -> str:
        return self.name


def read(path: str | Path | InMemory) -> bytes:
    """Returns the bytes of a picture file, or of a picture in memory.

    Raises:
      UserError: there is no such file, it is no regular file, empty, larger than MAX_BYTES, or
        cannot be read.
    """
    if isinstance(path, InMemory):
        if not path.encoded:
            raise UserError(f'{path} is empty (zero bytes).')
        return path.encoded
    path = Path(path)
    try:
        status = path.stat()  # before it is opened: opening a pipe would wait for its other end
        if not stat.S_ISREG(status.st_mode):
            kind = 'directory' if stat.S_ISDIR(status.st_mode) else 'pipe or device'
            raise UserError(f'{path} cannot be read as a picture: it is a {kind}.')
        if not status.st_size:
            raise UserError(f'{path} is empty (zero bytes).')
        if status.st_size > MAX_BYTES:
            raise UserError(
                f'{path} is too large to be read safely (more than {MAX_BYTES >> 20} MiB): scale '
                'it down first.'
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f'{path} does not exist.') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error


def _unidentified(encoded: bytes) -> str:
    """Returns why no format fits."""
    brand = encoded[8:12] if encoded[4:8] == b'ftyp' else b''
    if brand in _HEIC and 'HEIF' not in _FORMATS:
        return 'it is a HEIC picture: "pip install -r requirements-heif.txt" installs its decoder'
    if brand in _AVIF and 'AVIF' not in _FORMATS:
        return 'it is an AVIF picture, which this Pillow does not decode: install a newer one'
    if brand in (*_HEIC, *_AVIF):
        return 'a damaged HEIC or AVIF picture'
    if kind := jpeg.kind(encoded):
        return f'a JPEG of a kind that is not decoded here ({kind})'
    return 'not a picture'
