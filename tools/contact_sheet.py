"""Draws pictures in rows on one PNG, with a line or two of text below each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import fonts
from errors import UserError

MARGIN = 8  # pixels around the sheet and between tiles
LINE = 14  # height of a line of text in pixels
LEAST = 112  # small pictures are enlarged by a whole factor to about this many pixels
_BACKGROUND, _INK = (255, 255, 255), (0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Tile:
    """A picture and the lines of text below it.

    Attributes:
      image: uint8 [height, width, 1 or 3].
      lines: the lines of text.
    """

    image: np.ndarray
    lines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Rows of tiles below a title; all pictures have the same size.

    Attributes:
      title: one line of text.
      rows: the tiles; rows may have different lengths.
    """

    title: str
    rows: Sequence[Sequence[Tile]]

    @property
    def factor(self) -> int:
        """The factor by which pictures are enlarged; each pixel becomes a square."""
        return max(1, LEAST // max(self.rows[0][0].image.shape[:2]))

    @property
    def step(self) -> tuple[int, int]:
        """The distance (down, right) in pixels from one tile to the next."""
        height, width = (side * self.factor for side in self.rows[0][0].image.shape[:2])
        lines = max(len(tile.lines) for row in self.rows for tile in row)
        return height + lines * LINE + MARGIN, width + MARGIN

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Returns (top, left) of a tile's picture, in pixels of the sheet."""
        down, right = self.step
        return 2 * MARGIN + LINE + row * down, MARGIN + column * right

    def draw(self) -> Image.Image:
        """Returns the sheet as an RGB image. Text that is wider than its tile is truncated."""
        height, _ = self.corner(len(self.rows), 0)
        _, width = self.corner(0, max(map(len, self.rows)))
        sheet = Image.new('RGB', (width, height), _BACKGROUND)
        pen = ImageDraw.Draw(sheet)
        _write(pen, (MARGIN, MARGIN), self.title, width - 2 * MARGIN)
        for number, row in enumerate(self.rows):
            for column, tile in enumerate(row):
                top, left = self.corner(number, column)
                picture = self._enlarged(tile.image)
                sheet.paste(picture, (left, top))
                for line_number, line in enumerate(tile.lines):
                    corner = (left, top + picture.height + line_number * LINE)
                    _write(pen, corner, line, picture.width)
        return sheet

    def _enlarged(self, image: np.ndarray) -> Image.Image:
        pixels = image.repeat(self.factor, 0).repeat(self.factor, 1)
        return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())


def _write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, width: int) -> None:
    """Writes a line of text of any script, truncated to `width` pixels."""
    text, font = fonts.fitted(text, width, LINE - 3)
    pen.text(corner, text, _INK, font)


def check_free(path: Path) -> None:
    """Checks that a file does not exist yet.

    Raises:
      UserError: it exists.
    """
    if path.exists():
        raise UserError(f'{path} already exists: remove it, or choose another --out.')


def write(sheet: Sheet, path: Path) -> None:
    """Writes a sheet as PNG to a file that must not exist yet.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('xb') as file:
            sheet.draw().save(file, 'PNG')
    except OSError as error:
        raise UserError(
            f'Cannot write {path}: {error.strerror or error}. Free some space, or choose another '
            '--out.'
        ) from error
