"""What the colors and lines of drawn answers mean (`Task.legend`), in as many lines as it takes."""

from collections.abc import Sequence

import numpy as np

from inspection.drawing import QUIET
from inspection.sheet import GAP, LINE, TEXT, Sheet, text_width
from tasks.answer import Sample

MOST = 40  # entries
LONGEST = 240  # pixels of a name
_BESIDE = 4  # pixels between a color and its name


class Legend:
    """A legend of a given width.

    Args:
      entries: (name, color or picture) of `Task.legend`; the last ones stay where there are more
        than MOST, because they say what lines mean.
      width: pixels.

    Attributes:
      height: pixels; 0 without entries.
    """

    def __init__(self, entries: Sequence[tuple[str, Sample]], width: int):
        self._lines: list[list[tuple[int, str, np.ndarray | None]]] = []
        self._width, end = width, width + 1
        for name, picture in _shortened(entries):
            beside = 0 if picture is None else picture.shape[1] + _BESIDE
            own = beside + min(text_width(name), LONGEST)
            if end + own > width:
                self._lines.append([])
                end = 0
            self._lines[-1].append((end, name, picture))
            end += own + 2 * GAP
        self.height = LINE * len(self._lines)

    def draw(self, sheet: Sheet, left: int, top: int) -> None:
        """Draws it into a sheet, its corner at a place of it in pixels."""
        for number, line in enumerate(self._lines):
            for start, name, picture in line:
                x, y = left + start, top + number * LINE
                if picture is not None:
                    sheet.picture(picture, x, y + 2, picture.shape[1], picture.shape[0])
                    x += picture.shape[1] + _BESIDE
                sheet.text(name, x, y, LONGEST, QUIET)

    def png(self) -> bytes:
        """Returns it alone, as a PNG file."""
        sheet = Sheet(self._width, self.height)
        self.draw(sheet, 0, 0)
        return sheet.png()


def _shortened(entries: Sequence[tuple[str, Sample]]) -> list[tuple[str, np.ndarray | None]]:
    """Returns (name, picture) of at most MOST entries, and how many are left out."""
    entries = [(name, _picture(sample)) for name, sample in entries]
    classes = [entry for entry in entries if entry[1].shape[1] == TEXT]
    lines = [entry for entry in entries if entry[1].shape[1] != TEXT]
    if len(classes) <= MOST:
        return entries
    left_out = f'and {len(classes) - MOST:,} more'
    return [*classes[:MOST], (left_out, None), *lines]


def _picture(sample: Sample) -> np.ndarray:
    """Returns a square of a color, or the picture itself."""
    sample = np.asarray(sample, np.uint8)
    return sample if sample.ndim == 3 else np.full((TEXT, TEXT, 3), sample, np.uint8)
