"""The one way from any picture to opaque 8-bit RGB or grey, for storing, decoding and predicting.

Deep pictures are scaled to 8 bits, and transparent ones are laid on black or white, whichever sets
their visible part off. Both are done in strips of rows, so that they take little more memory than
the picture and its result. Label maps are never converted.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

BRIGHT = 127  # the brightest level that counts as dark
_STRIP = 1 << 20  # pixels that are converted at once
_SCALES = {'L;2': 85, 'L;4': 17}  # what Pillow multiplies the grey levels of such a PNG by
# Modes that Pillow does not convert to every other: colors multiplied by alpha, CIELAB.
_PLAIN = {'La': 'LA', 'RGBa': 'RGBA', 'LAB': 'RGB'}

Strip = Callable[[Image.Image], Image.Image]


def to_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Returns a whole picture as opaque 8-bit 'L' or 'RGB'; itself, if it is that already.

    Args:
      picture: of any mode, loaded or not; its pixels are loaded.
      mode: 'L' or 'RGB'.

    Raises:
      OSError, SyntaxError, ValueError, ...: it is damaged; Pillow's decoders have no common error.
    """
    convert = _converter(picture, mode)
    if picture.mode == mode and not picture.has_transparency_data:
        return picture
    whole = Image.new(mode, picture.size)
    for top, strip in _strips(picture):
        whole.paste(convert(strip), (0, top))
    return whole


def to_rgb(picture: Image.Image) -> np.ndarray:
    """Returns a whole picture as uint8 [height, width, 3]; otherwise as `to_mode`."""
    convert = _converter(picture, 'RGB')
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for top, strip in _strips(picture):
        pixels[top : top + strip.height] = np.asarray(convert(strip))
    return pixels


def flat_mode(picture: Image.Image) -> str:
    """Returns the mode, 'L' or 'RGB', that keeps what an opaque 8-bit picture can keep of one."""
    return 'L' if picture.mode.startswith(('1', 'L', 'I', 'F')) and picture.mode != 'LAB' else 'RGB'


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yields (first row, some rows of the picture) from top to bottom."""
    rows = max(1, _STRIP // picture.width)
    if rows >= picture.height:
        yield 0, picture
        return
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        yield top, picture.crop((0, top, picture.width, bottom))


def _converter(picture: Image.Image, mode: str) -> Strip:
    """Returns what converts strips of a picture, whose pixels are loaded."""
    _correct_transparency(picture)
    picture.load()
    shallow = _to_8_bits(picture) if picture.mode.startswith(('I', 'F')) else _plain
    if not picture.has_transparency_data:
        return lambda strip: shallow(strip).convert(mode)
    ground = _ground(picture, shallow)

    def flatten(strip: Image.Image) -> Image.Image:
        strip = shallow(strip).convert('RGBA')
        below = Image.new('RGBA', strip.size, ground)
        return Image.alpha_composite(below, strip).convert('RGB').convert(mode)

    return flatten


def _correct_transparency(picture: Image.Image) -> None:
    """Brings the transparent color of a PNG of 2, 4 or 16 bits to the scale of Pillow's pixels.

    Pillow keeps it as the file has it, and forgets the depth when the pixels are loaded.
    """
    tiles = getattr(picture, 'tile', None)
    transparent = picture.info.get('transparency')
    if not tiles or transparent is None or picture.format != 'PNG':
        return
    raw = tiles[0][3]
    raw = raw if isinstance(raw, str) else raw[0]
    if raw in _SCALES:
        picture.info['transparency'] = min(transparent * _SCALES[raw], 255)
    elif raw == 'RGB;16B':
        picture.info['transparency'] = tuple(level >> 8 for level in transparent)


def _to_8_bits(picture: Image.Image) -> Strip:
    """Returns what scales strips of a picture of mode I;16, I or F to 8 bits, in mode L or LA.

    White is 65535 where the mode says 16 bits. Modes I and F have no fixed white: it is the
    smallest of 1 (F only), 255 and 65535 that no pixel exceeds, or else the maximum.
    """
    usual = (65535,) if picture.mode.startswith('I;16') else (255, 65535)
    usual = (1, *usual) if picture.mode == 'F' else usual
    most = max(_numbers(strip).max() for _, strip in _strips(picture))
    white = next((top for top in usual if most <= top), most)
    transparent = picture.info.get('transparency')

    def convert(strip: Image.Image) -> Image.Image:
        values = _numbers(strip)
        levels = Image.fromarray(np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8))
        if transparent is not None:
            alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
            levels.putalpha(Image.fromarray(alpha))
        return levels

    return convert


def _numbers(strip: Image.Image) -> np.ndarray:
    """Returns the levels of a strip, float64 [height, width]; 0 for what is no number."""
    return np.nan_to_num(np.asarray(strip).astype(np.float64), posinf=0, neginf=0)


def _plain(strip: Image.Image) -> Image.Image:
    """Returns a strip in a mode that Pillow converts to every other."""
    return strip.convert(_PLAIN[strip.mode]) if strip.mode in _PLAIN else strip


def _ground(picture: Image.Image, shallow: Strip) -> tuple[int, int, int]:
    """Returns white if a picture's visible part is dark, otherwise black."""
    light = weight = 0
    for _, strip in _strips(picture):
        strip = shallow(strip).convert('RGBA')
        grey = np.asarray(strip.convert('RGB').convert('L'), np.uint32)
        alpha = np.asarray(strip.getchannel('A'), np.uint32)
        light, weight = light + int((grey * alpha).sum()), weight + int(alpha.sum())
    return (255, 255, 255) if light <= BRIGHT * weight else (0, 0, 0)
