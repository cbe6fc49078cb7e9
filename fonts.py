"""Fonts for class names in any script, in pictures of Pillow and of matplotlib."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import ImageFont


class Drawable(NamedTuple):
    """A text and the font file that draws it.

    Attributes:
      text: the text; a character that no font of this machine has is written as its escape, such as
        \\u732b.
      font: a TrueType or OpenType file.
    """

    text: str
    font: Path


@functools.lru_cache(maxsize=4096)
def for_text(text: str) -> Drawable:
    """Returns the text with a font that has all its characters.

    DejaVu Sans, which matplotlib brings along, has Latin, Greek, Cyrillic, Arabic and more. For
    other scripts the fonts of the system are searched. A text may have several lines.
    """
    import matplotlib

    default = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    needed = frozenset(map(ord, text)) - {ord('\n')}
    if needed <= _characters(default):
        return Drawable(text, default)
    for path in _system_fonts():
        if needed <= _characters(path):
            return Drawable(text, path)
    there = _characters(default) | {ord('\n')}
    escaped = (c if ord(c) in there else c.encode('unicode_escape').decode() for c in text)
    return Drawable(''.join(escaped), default)


def fitted(text: str, width: float, size: int) -> 'tuple[str, ImageFont.FreeTypeFont]':
    """Returns a line of text with Pillow's font for it. One that is too wide is cut, with '...'.

    Args:
      text: of any script.
      width: in pixels.
      size: of the letters, in pixels.
    """
    text, path = for_text(text)
    font = _loaded(path, size)
    if font.getlength(text) <= width:
        return text, font
    while text and font.getlength(text + '...') > width:
        text = text[:-1]
    return text + '...', font


@functools.cache
def _loaded(font: Path, size: int) -> 'ImageFont.FreeTypeFont':
    from PIL import ImageFont

    return ImageFont.truetype(font, size)


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
    """Returns the font files of the system, sorted, so that the choice is the same every time."""
    from matplotlib import font_manager

    return tuple(sorted(map(Path, font_manager.findSystemFonts())))


@functools.cache
def _characters(font: Path) -> frozenset[int]:
    """Returns the code points that a font has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(font)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
