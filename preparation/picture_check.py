"""Looks whether encoded pictures decode, before they are stored; makes them smaller if asked to."""

import collections
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from data_sources.images import FORMATS, MAX_PIXELS

MAX_BYTES = 256 << 20
_JPEG = ('JPEG', 'MPO')  # MPO: a JPEG with others behind it, as some cameras make them
_QUALITY = 95

Given = TypeVar('Given')
Result = TypeVar('Result')


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
      data: the picture to store: the original bytes, or its smaller version; b'' if defective.
      fault: why it cannot be used, or ''.
      kinds: what is to be counted of it: 'CMYK', a format other than JPEG, 'resized'.
    """

    data: bytes
    fault: str = ''
    kinds: tuple[str, ...] = ()


def check(data: bytes, shorter_side: int | None = None) -> Checked:
    """Decodes one picture, and resizes it if it is larger than wanted. Never raises.

    A JPEG is decoded at an eighth of its size, which reads all of its entropy-coded data (so a cut
    is found) in half of the time. What libjpeg passes over with a warning, Pillow does not tell:
    a few garbled bytes in the middle stay unnoticed, and decode to garbled pixels.

    Args:
      data: the file.
      shorter_side: pictures whose shorter side has more pixels are scaled to it (bicubic,
        antialiased) and stored as JPEG of quality 95, 4:2:0, in grey or RGB; others stay as they
        are. None: all stay as they are.
    """
    if not data:
        return Checked(b'', 'empty (zero bytes)')
    if len(data) > MAX_BYTES:
        return Checked(b'', f'larger than {MAX_BYTES >> 20} MiB')
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return Checked(b'', _too_large(f'{picture.width}x{picture.height}'))
            kinds = () if picture.format in _JPEG else (picture.format,)
            if picture.mode == 'CMYK':
                kinds = ('CMYK',)
            if shorter_side and min(picture.size) > shorter_side:
                return Checked(_resize(picture, shorter_side), kinds=(*kinds, 'resized'))
            picture.draft(None, (1, 1))
            picture.load()
            if picture.format not in _JPEG:
                picture.convert('RGB')
    except Image.DecompressionBombError as error:
        return Checked(b'', _too_large(str(error)))
    except Image.UnidentifiedImageError:
        return Checked(b'', 'not a picture')
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        return Checked(b'', f'does not decode: {error}')
    return Checked(data, kinds=kinds)


def _too_large(what: str) -> str:
    return f'too large to be decoded safely ({what}; the limit is {MAX_PIXELS:,} pixels)'


def _resize(picture: Image.Image, shorter_side: int) -> bytes:
    scale = shorter_side / min(picture.size)
    size = tuple(max(shorter_side, round(side * scale)) for side in picture.size)
    mode = 'L' if picture.mode in ('1', 'L', 'LA') else 'RGB'
    smaller = picture.convert(mode).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smaller.save(file, 'JPEG', quality=_QUALITY, subsampling='4:2:0')
    return file.getvalue()


def in_order(
    function: Callable[[Given], Result], given: Iterable[Given], threads: int
) -> Iterator[Result]:
    """Yields function(x) for each x, in order, computed by a few threads a little ahead."""
    waiting = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for one in given:
                waiting.append(pool.submit(function, one))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
