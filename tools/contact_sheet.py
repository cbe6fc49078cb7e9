"""Pictures in rows on one PNG, with a line or two of text under each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from errors import UserError

MARGIN = 8  # pixels around everything and between tiles
LINE = 14  # pixels of a line of text
LEAST = 112  # small pictures are enlarged, by a whole factor, to about as many pixels
_GROUND, _INK = (255, 255, 255), (0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Tile:
    """A picture, uint8 [height, width, 1 or 3], and the lines of text below it."""

    image: np.ndarray
    lines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Rows of tiles under a title; all pictures have one size.

    Attributes:
      title: one line.
      rows: of any lengths.
    """

    title: str
    rows: Sequence[Sequence[Tile]]

    @property
    def factor(self) -> int:
        """What the pictures are enlarged by, each pixel to a square."""
        return max(1, LEAST // max(self.rows[0][0].image.shape[:2]))

    @property
    def step(self) -> tuple[int, int]:
        """Rows and columns of pixels from one tile to the next."""
        height, width = (side * self.factor for side in self.rows[0][0].image.shape[:2])
        lines = max(len(tile.lines) for row in self.rows for tile in row)
        return height + lines * LINE + MARGIN, width + MARGIN

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Returns (top, left) of a tile's picture, in pixels of the sheet."""
        down, right = self.step
        return 2 * MARGIN + LINE + row * down, MARGIN + column * right

    def draw(self) -> Image.Image:
        """Returns the sheet, RGB. Text that is wider than its tile is cut short."""
        top, _ = self.corner(len(self.rows), 0)
        _, left = self.corner(0, max(map(len, self.rows)))
        sheet = Image.new('RGB', (left, top), _GROUND)
        pen = ImageDraw.Draw(sheet)
        font = ImageFont.load_default(LINE - 3)
        pen.text((MARGIN, MARGIN), _fitting(self.title, left - 2 * MARGIN, font), _INK, font)
        for number, row in enumerate(self.rows):
            for column, tile in enumerate(row):
                top, left = self.corner(number, column)
                picture = self._enlarged(tile.image)
                sheet.paste(picture, (left, top))
                for place, line in enumerate(tile.lines):
                    at = (left, top + picture.height + place * LINE)
                    pen.text(at, _fitting(line, picture.width, font), _INK, font)
        return sheet

    def _enlarged(self, image: np.ndarray) -> Image.Image:
        pixels = image.repeat(self.factor, 0).repeat(self.factor, 1)
        return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def _fitting(text: str, width: int, font) -> str:
    """The text, or as much of its start as fits into the width, and dots."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + '...') > width:
        text = text[:-1]
    return text + '...'


def check_free(path: Path) -> None:
    """Checks that there is no such file yet.

    Raises:
      UserError: there is.
    """
    if path.exists():
        raise UserError(f'{path} exists already: remove it, or choose another --out.')


def write(sheet: Sheet, path: Path) -> None:
    """Writes a sheet as PNG; `path` must be free.

    Raises:
      UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('xb') as file:
            sheet.draw().save(file, 'PNG')
    except OSError as error:
        raise UserError(f'Cannot write {path}: {error.strerror or error}.') from error
