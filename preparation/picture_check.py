"""Checks that encoded pictures can be decoded before they are stored, and optionally resizes them.

The check runs in several threads.
"""

import collections
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from data_sources import picture_files
from data_sources.picture_files import MAX_BYTES, MAX_PIXELS

_JPEG = ('JPEG', 'MPO')  # MPO: a JPEG followed by others, which some cameras write
_QUALITY = 95

Argument = TypeVar('Argument')
Result = TypeVar('Result')


@dataclasses.dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
      data: the bytes to store, which are the original ones or a resized picture; b'' if defective.
      fault: why the picture cannot be used, or ''.
      kinds: words under which it is counted: 'CMYK', a format other than JPEG, 'resized'.
    """

    data: bytes
    fault: str = ''
    kinds: tuple[str, ...] = ()


def check(data: bytes, shorter_side: int | None = None) -> Checked:
    """Decodes one picture, and resizes it if it is larger than `shorter_side`. Never raises.

    A JPEG is decoded at an eighth of its size. This takes half of the time and still reads all of
    the entropy-coded data, so that truncation is detected. Pillow does not pass on the warnings of
    libjpeg: a few garbled bytes in the middle are not detected, and decode to garbled pixels.

    Args:
      data: the contents of the file.
      shorter_side: pictures whose shorter side has more pixels are scaled down to it (bicubic,
        antialiased) and stored as JPEG of quality 95, 4:2:0, in grey or RGB; others are stored
        unchanged. None: all are stored unchanged.
    """
    if not data:
        return Checked(b'', 'empty (zero bytes)')
    if len(data) > MAX_BYTES:
        return Checked(b'', f'larger than {MAX_BYTES >> 20} MiB')
    try:
        with picture_files.opened(data) as picture:
            kinds = () if picture.format in _JPEG else (picture.format,)
            if picture.mode == 'CMYK':
                kinds = ('CMYK',)
            if shorter_side and min(picture.size) > shorter_side:
                return Checked(_resize(picture, shorter_side), kinds=(*kinds, 'resized'))
            picture.draft(None, (1, 1))
            picture.load()
            if picture.format not in _JPEG:
                picture.convert('RGB')
    except picture_files.TooLargeError as error:
        reason = f'{error}; the limit is {MAX_PIXELS:,} pixels'
        return Checked(b'', f'too large to be decoded safely ({reason})')
    except Image.UnidentifiedImageError as error:
        return Checked(b'', str(error))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        return Checked(b'', f'does not decode: {error}')
    return Checked(data, kinds=kinds)


def _resize(picture: Image.Image, shorter_side: int) -> bytes:
    scale = shorter_side / min(picture.size)
    size = tuple(max(shorter_side, round(side * scale)) for side in picture.size)
    mode = 'L' if picture.mode in ('1', 'L', 'LA') else 'RGB'
    smaller = picture.convert(mode).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smaller.save(file, 'JPEG', quality=_QUALITY, subsampling='4:2:0')
    return file.getvalue()


def in_order(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], threads: int
) -> Iterator[Result]:
    """Yields function(x) for each argument, in order; threads compute a few results ahead."""
    waiting = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for argument in arguments:
                waiting.append(pool.submit(function, argument))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
