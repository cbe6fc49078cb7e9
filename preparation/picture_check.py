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

from data_sources import conversion, jpeg, orientation, picture_files
from data_sources.picture_files import MAX_BYTES

_JPEG = ('JPEG', 'MPO')  # MPO: a JPEG followed by others, which some cameras write
_QUALITY = 95
TURNED = 'turned upright'  # when it was scaled; others keep the orientation in their EXIF data

Argument = TypeVar('Argument')
Result = TypeVar('Result')


@dataclasses.dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
      data: the bytes to store, which are the original ones or a resized picture; b'' if defective.
      fault: why the picture cannot be used, or ''.
      kinds: words under which it is counted: 'CMYK', a format other than JPEG, 'resized', `TURNED`.
    """

    data: bytes
    fault: str = ''
    kinds: tuple[str, ...] = ()


def check(data: bytes, shorter_side: int | None = None, upright: bool = False) -> Checked:
    """Decodes one picture, and resizes it if it is larger than `shorter_side`. Never raises.

    A JPEG is decoded at an eighth of its size. This takes half of the time and still reads all of
    the entropy-coded data, so that missing data are detected. A few garbled bytes in the middle are
    not, and decode to garbled pixels.

    Args:
      data: the contents of the file.
      shorter_side: pictures whose shorter side has more pixels are scaled down to it (bicubic,
        antialiased) and stored as JPEG of quality 95, 4:2:0, in grey or RGB; others are stored
        unchanged. None: all are stored unchanged.
      upright: whether pictures that are scaled are turned upright, by their EXIF orientation.
    """
    if not data:
        return Checked(b'', 'empty (zero bytes)')
    if len(data) > MAX_BYTES:
        return Checked(b'', f'larger than {MAX_BYTES >> 20} MiB')
    try:
        return _checked(data, shorter_side, upright)
    except picture_files.TooLargeError as error:
        return Checked(b'', f'too large to be decoded safely ({error})')
    except Image.UnidentifiedImageError as error:
        return Checked(b'', str(error))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        return Checked(b'', f'does not decode: {error}')


def _checked(data: bytes, shorter_side: int | None, upright: bool) -> Checked:
    """Does what `check` does, for a file of any size; raises what its decoder does."""
    with picture_files.opened(data) as picture:
        size, form, mode = picture.size, picture.format, picture.mode
    kinds = () if form in _JPEG else (form,)
    if mode == 'CMYK':
        kinds = ('CMYK',)
    whole, clean = jpeg.examined(data)
    if shorter_side and min(size) > shorter_side:
        smaller, number = _resized(whole, shorter_side, upright)
        turned = () if number == orientation.UPRIGHT else (TURNED,)
        return Checked(smaller, kinds=(*kinds, 'resized', *turned))
    if not clean:
        with picture_files.opened(whole) as picture:
            conversion.to_mode(picture, 'RGB')
    return Checked(data, kinds=kinds)


def _resized(data: bytes, shorter_side: int, upright: bool) -> tuple[bytes, int]:
    """Returns a JPEG of a picture scaled down to a shorter side, and the orientation applied."""
    with picture_files.opened(data) as picture:
        number = orientation.of(picture) if upright else orientation.UPRIGHT
        mode = 'L' if picture.mode in ('1', 'L', 'LA') else 'RGB'
        picture = orientation.turned(conversion.to_mode(picture, mode), number)
    scale = shorter_side / min(picture.size)
    size = tuple(max(shorter_side, round(side * scale)) for side in picture.size)
    smaller = picture.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smaller.save(file, 'JPEG', quality=_QUALITY, subsampling='4:2:0')
    return file.getvalue(), number


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
