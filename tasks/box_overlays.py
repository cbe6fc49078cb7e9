"""Boxes, drawn over the picture: those of a truth or an answer, and where an answer is wrong."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

import fonts
from tasks.overlays import color_of

RIGHT, WRONG, MISSED = 0, 1, 2  # solid, crossed out, dashed
MARKS = (('dashed: missed', (128, 128, 128)), ('crossed: false alarm', (128, 128, 128)))
_TEXT = 200  # pixels of the shorter side below which there is no room for names


def boxes(
    image: np.ndarray,
    edges: np.ndarray,
    classes: np.ndarray,
    captions: Sequence[str] = (),
    marks: Sequence[int] = (),
) -> np.ndarray:
    """Returns a picture with boxes in the colors of their classes, uint8 [h, w, 3].

    Args:
      image: uint8 [h, w, 3].
      edges: float [n, 4], (y0, x0, y1, x1) in edges of pixels; the first ones are drawn last.
      classes: int [n].
      captions: of the boxes, where the picture is large enough; () for none.
      marks: RIGHT, WRONG or MISSED for each box; () if all are right.
    """
    height, width = image.shape[:2]
    line = max(1, round(min(height, width) / 200))
    picture = Image.fromarray(np.ascontiguousarray(image))
    canvas = ImageDraw.Draw(picture)
    for number in reversed(range(len(edges))):
        y0, x0, y1, x1 = (round(float(edge)) for edge in edges[number])
        # The line lies on the outermost pixels of the box.
        corners = (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0))
        color, mark = color_of(int(classes[number]) + 1), marks[number] if len(marks) else RIGHT
        if mark == MISSED:
            _dashed(canvas, corners, color, line)
        else:
            canvas.rectangle(corners, outline=color, width=line)
        if mark == WRONG:
            canvas.line(corners, color, line)
            canvas.line((corners[0], corners[3], corners[2], corners[1]), color, line)
    if len(captions) and min(height, width) >= _TEXT:
        for number in reversed(range(len(edges))):
            _caption(canvas, edges[number], captions[number], color_of(int(classes[number]) + 1))
    return np.asarray(picture)


def _dashed(
    canvas: ImageDraw.ImageDraw,
    corners: tuple[int, int, int, int],
    color: tuple[int, int, int],
    line: int,
) -> None:
    x0, y0, x1, y1 = corners
    dash = 3 * line
    for x in range(x0, x1 + 1, 2 * dash):
        for y in (y0, max(y1 - line + 1, y0)):
            canvas.rectangle((x, y, min(x + dash - 1, x1), min(y + line - 1, y1)), fill=color)
    for y in range(y0, y1 + 1, 2 * dash):
        for x in (x0, max(x1 - line + 1, x0)):
            canvas.rectangle((x, y, min(x + line - 1, x1), min(y + dash - 1, y1)), fill=color)


def _caption(
    canvas: ImageDraw.ImageDraw, edges: np.ndarray, caption: str, color: tuple[int, int, int]
) -> None:
    """Writes a caption on its color, above the box or, at the picture's edge, inside."""
    width, height = canvas.im.size
    size = max(10, round(min(height, width) / 40))
    text, font = fonts.fitted(caption, width, size)
    left, top = round(float(edges[1])), round(float(edges[0]))
    across, down = round(font.getlength(text)) + 4, size + 4
    left = max(0, min(left, width - across))
    top = top - down if top >= down else top
    canvas.rectangle((left, top, left + across, top + down), fill=color)
    dark = sum(color) > 380
    canvas.text((left + 2, top + 1), text, (0, 0, 0) if dark else (255, 255, 255), font)
