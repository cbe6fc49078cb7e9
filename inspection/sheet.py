"""Sheets of pictures with frames and lines of text, placed by the pixel."""

import io
import math
import textwrap

import numpy as np
from PIL import Image, ImageDraw

import fonts
from inspection.drawing import INK
from inspection.shown import sized

MARGIN = 16  # pixels around a sheet
GAP = 10  # between its pictures
TEXT, LINE = 13, 18  # height of letters, and from one line of text to the next
CHARACTER = 7.3  # pixels of one on average
LARGE = 136  # pixels of the longer side of a picture, about
WIDTH = 960  # of a sheet without its margins, unless something in it is wider


class Sheet:
    """A white sheet that pictures and texts are put on. Places are in pixels, from its corner.

    Args:
      width, height: of the sheet.
    """

    def __init__(self, width: int, height: int):
        self._image = Image.new('RGB', (width, height), 'white')
        self._pen = ImageDraw.Draw(self._image)

    def picture(self, pixels: np.ndarray, left: int, top: int, width: int, height: int) -> None:
        """Puts a picture, uint8 [h, w, 1 or 3], in a place of this size.

        Where it is enlarged by a whole factor, its pixels become squares.
        """
        self._image.paste(Image.fromarray(sized(pixels, height, width)), (left, top))

    def frame(
        self, left: float, top: float, width: float, height: float, color: str, within: tuple
    ) -> None:
        """Draws a frame of two pixels around a rectangle.

        Args:
          left, top, width, height: the rectangle, which may reach beyond `within`.
          color: of the frame.
          within: (left, top, width, height) of the picture, beyond which nothing is drawn.
        """
        first_x, first_y = max(left, within[0]), max(top, within[1])
        last_x = min(left + width, within[0] + within[2]) - 1
        last_y = min(top + height, within[1] + within[3]) - 1
        if first_x <= last_x and first_y <= last_y:
            corners = (first_x, first_y, last_x, last_y)
            self._pen.rectangle(corners, outline=color, width=2)

    def dot(self, x: float, y: float, color: str, within: tuple) -> None:
        """Draws a small disk with a white rim, on the edge of `within` where it lies beyond."""
        x = min(max(x, within[0]), within[0] + within[2])
        y = min(max(y, within[1]), within[1] + within[3])
        for radius, fill in ((6, 'white'), (4, color)):
            self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def text(self, text: str, left: int, top: int, width: int, color: str = INK) -> None:
        """Writes a line of text of any script; what is wider than `width` pixels is cut."""
        text, font = fonts.fitted(text, width, TEXT)
        self._pen.text((left, top), text, color, font)

    def png(self) -> bytes:
        """Returns the sheet as a PNG file."""
        file = io.BytesIO()
        self._image.save(file, 'PNG')
        return file.getvalue()


def text_width(text: str) -> int:
    """Returns how many pixels wide a line of text is."""
    text, font = fonts.fitted(text, math.inf, TEXT)
    return math.ceil(font.getlength(text))


def wrapped(text: str, width: int) -> list[str]:
    """Returns a text in lines of about this many pixels."""
    return textwrap.wrap(text, int(width / CHARACTER))


def shown_size(height: int, width: int, large: int = LARGE) -> tuple[int, int]:
    """Returns the (height, width) in which a picture is shown, with `large` pixels at most.

    A small picture is enlarged by a whole factor, so that each pixel becomes a square.
    """
    longer = max(height, width)
    factor = large / longer if longer > large // 2 else large // longer
    return max(1, round(height * factor)), max(1, round(width * factor))
