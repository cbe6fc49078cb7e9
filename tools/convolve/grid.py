"""Numbers as a grid of colored cells, and text that fits into them, by Pillow."""

import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import fonts
from tools.convolve import colors
from tools.convolve.text import number

LEAST_NUMBERED = 22  # pixels of a cell from which on cells have lines between them, and numbers
LEAST_LETTERS, MOST_LETTERS = 9, 26  # pixels of a letter's height in cells


def draw(
    values: np.ndarray, cell: int, shades: np.ndarray, muted: np.ndarray | None = None
) -> Image.Image:
    """Returns numbers as cells, with the numbers in them if there is room.

    Args:
      values: float [h, w].
      cell: side of a cell in pixels.
      shades: uint8 [h, w, 3], colors of the cells.
      muted: bool [h, w], numbers that are written in a weaker color.
    """
    pixels = shades.repeat(cell, 0).repeat(cell, 1)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    pen = ImageDraw.Draw(picture)
    height, width = values.shape
    if cell >= LEAST_NUMBERED:
        for place in range(0, width * cell + 1, cell):
            x = min(place, width * cell - 1)
            pen.line([(x, 0), (x, height * cell)], colors.LINE)
        for place in range(0, height * cell + 1, cell):
            y = min(place, height * cell - 1)
            pen.line([(0, y), (width * cell, y)], colors.LINE)
    texts = [[number(value) for value in row] for row in values]
    font = fitted([text for row in texts for text in row], cell)
    if font is None:
        return picture
    for row, column in np.ndindex(height, width):
        ink = colors.ink(shades[row, column])
        if muted is not None and muted[row, column]:
            ink = colors.MUTED
        place = ((column + 0.5) * cell, (row + 0.5) * cell)
        pen.text(place, texts[row][column], ink, font, anchor='mm')
    return picture


def fitted(texts: list[str], cell: int) -> ImageFont.FreeTypeFont | None:
    """Returns the font in which all texts fit into cells; None if it could not be read."""
    if cell < LEAST_NUMBERED:
        return None
    longest = max(set(texts), key=lambda text: letters(20).getlength(text))
    for size in range(min(MOST_LETTERS, round(0.46 * cell)), LEAST_LETTERS - 1, -1):
        if letters(size).getlength(longest) <= cell - 8:
            return letters(size)
    return None


def length(text: str, size: int) -> int:
    """Returns how many pixels wide a line of text is."""
    text, path = fonts.for_text(text)
    return math.ceil(letters(size, path).getlength(text))


@functools.cache
def letters(size: int, path: Path | None = None) -> ImageFont.FreeTypeFont:
    """Returns a font of `size` pixels; without a path, the one that has Latin letters."""
    return ImageFont.truetype(path or fonts.for_text('0').font, size)


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    ink: colors.Color = colors.INK,
    anchor: str = 'la',
) -> None:
    """Writes a line of text of any script; `anchor` is Pillow's."""
    text, path = fonts.for_text(text)
    pen.text(place, text, ink, letters(size, path), anchor=anchor)


def border(pen: ImageDraw.ImageDraw, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Draws a fine line around (left, top), of (width, height), outside of it."""
    left, top = corner
    pen.rectangle([left - 1, top - 1, left + size[0], top + size[1]], outline=colors.LINE)


def outline(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], size: tuple[int, int], width: int
) -> None:
    """Draws the frame of a window around (left, top), of (width, height), outside of it."""
    left, top = corner
    box = [left - width, top - width, left + size[0] + width - 1, top + size[1] + width - 1]
    pen.rectangle([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline=colors.BACKGROUND)
    pen.rectangle(box, outline=colors.ACCENT, width=width)
