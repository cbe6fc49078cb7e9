"""Boxes, drawn over the picture: those of a truth or an answer, and where an answer is wrong."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import fonts
from tasks.overlays import color_of

if TYPE_CHECKING:  # Pillow is imported when a picture is drawn
    from PIL import ImageDraw

RIGHT, WRONG, MISSED = 0, 1, 2  # a line, crossed out, dashed
_MEANINGS = (('right', RIGHT), ('missed', MISSED), ('false alarm', WRONG))
_SAMPLE = (13, 20)  # height and width of a line in a legend, in pixels
_ROOM = 200  # pixels of the shorter side below which there is no room for names and dark edges
_WIDE = 120  # pixels of the shorter side from which lines have two pixels at least
_DARKEST = 380  # the sum of a color's levels below which text on it is white

_Color = tuple[int, int, int]
_Corners = tuple[int, int, int, int]  # left, top, right, bottom: the outermost pixels of a box


def boxes(
    image: np.ndarray,
    edges: np.ndarray,
    classes: np.ndarray,
    captions: Sequence[str] = (),
    marks: Sequence[int] = (),
) -> np.ndarray:
    """Returns a picture with boxes in the colors of their classes, uint8 [h, w, 3].

    Where there is room lines have dark edges, so that they stand out from any picture.

    Args:
      image: uint8 [h, w, 3].
      edges: float [n, 4], (y0, x0, y1, x1) in edges of pixels; the first ones are drawn last.
      classes: int [n].
      captions: of the boxes, where the picture is large enough; () for none.
      marks: RIGHT, WRONG or MISSED for each box; () if all are right.
    """
    colors = [color_of(int(label) + 1) for label in classes]
    return _drawn(image, edges, colors, captions, marks)


def marked(image: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns a picture with one white box with dark edges, uint8 [h, w, 3].

    Args:
      image: uint8 [h, w, 1 or 3].
      edges: float [4], (y0, x0, y1, x1) in edges of pixels.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy())
    canvas, corners, line = ImageDraw.Draw(picture), _corners(edges), _line(image.shape)
    _draw(canvas, corners, (0, 0, 0), line, RIGHT, 1)
    _draw(canvas, corners, (255, 255, 255), line, RIGHT, 0)
    return np.asarray(picture)


def samples() -> tuple[tuple[str, np.ndarray], ...]:
    """Returns (what a line means, a small picture of it)."""
    white = np.full((*_SAMPLE, 3), 255, np.uint8)
    box = np.array([(0, 0, *_SAMPLE)])
    gray = (90, 90, 90)
    return tuple((name, _drawn(white, box, [gray], (), [mark])) for name, mark in _MEANINGS)


def _drawn(
    image: np.ndarray,
    edges: np.ndarray,
    colors: Sequence[_Color],
    captions: Sequence[str],
    marks: Sequence[int],
) -> np.ndarray:
    """Returns what `boxes` does; `colors` are those of the boxes."""
    from PIL import Image, ImageDraw

    side, line = min(image.shape[:2]), _line(image.shape)
    picture = Image.fromarray(np.ascontiguousarray(image))
    canvas = ImageDraw.Draw(picture)
    # Those outside the picture are left out.
    shown = [i for i in reversed(range(len(edges))) if _overlaps(edges[i], image.shape)]
    for i in shown:
        corners = _corners(edges[i])
        mark = marks[i] if len(marks) else RIGHT
        if side >= _ROOM:
            _draw(canvas, corners, _darkened(colors[i]), line, mark, 1)
        _draw(canvas, corners, colors[i], line, mark, 0)
    if len(captions) and side >= _ROOM:
        for i in shown:
            _caption(canvas, edges[i], captions[i], colors[i], max(10, round(side / 40)))
    return np.asarray(picture)


def _line(shape: tuple[int, ...]) -> int:
    """Returns how wide the lines are in a picture of a shape, in pixels."""
    side = min(shape[:2])
    return max(2 if side >= _WIDE else 1, round(side / 160))


def _corners(edges: np.ndarray) -> _Corners:
    y0, x0, y1, x1 = (round(float(edge)) for edge in edges)
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)


def _darkened(color: _Color) -> _Color:
    red, green, blue = (level // 4 for level in color)
    return red, green, blue


def _overlaps(edges: np.ndarray, shape: tuple[int, ...]) -> bool:
    y0, x0, y1, x1 = edges
    return y0 < shape[0] and x0 < shape[1] and y1 > 0 and x1 > 0


def _draw(
    canvas: 'ImageDraw.ImageDraw',
    corners: _Corners,
    color: _Color,
    line: int,
    mark: int,
    more: int,
) -> None:
    """Draws a box whose lines are `more` pixels wider on both sides."""
    x0, y0, x1, y1 = corners
    if mark == MISSED:
        _dashed(canvas, corners, color, line, more)
    else:
        outer = (x0 - more, y0 - more, x1 + more, y1 + more)
        canvas.rectangle(outer, outline=color, width=line + 2 * more)
    if mark == WRONG:
        across = (line + 1) // 2 + 2 * more
        canvas.line(corners, color, across)
        canvas.line((x0, y1, x1, y0), color, across)


def _dashed(
    canvas: 'ImageDraw.ImageDraw', corners: _Corners, color: _Color, line: int, more: int
) -> None:
    x0, y0, x1, y1 = corners
    dash = 3 * line
    across = [
        (x, y, min(x + dash - 1, x1), min(y + line - 1, y1))
        for x in range(x0, x1 + 1, 2 * dash)
        for y in (y0, max(y1 - line + 1, y0))
    ]
    down = [
        (x, y, min(x + line - 1, x1), min(y + dash - 1, y1))
        for y in range(y0, y1 + 1, 2 * dash)
        for x in (x0, max(x1 - line + 1, x0))
    ]
    for left, top, right, bottom in across + down:
        canvas.rectangle((left - more, top - more, right + more, bottom + more), fill=color)


def _caption(
    canvas: 'ImageDraw.ImageDraw', edges: np.ndarray, caption: str, color: _Color, size: int
) -> None:
    """Writes a caption on its color, above the box or, at the picture's edge, inside."""
    width = canvas.im.size[0]
    # No letter is narrower than two pixels: what is cut here would be cut in any case.
    text, font = fonts.fitted(caption[: width // 2], width - 4, size)
    left, top = round(float(edges[1])), max(0, round(float(edges[0])))
    across, down = round(font.getlength(text)) + 4, size + 4
    left = max(0, min(left, width - across))
    top = top - down if top >= down else top
    canvas.rectangle((left, top, left + across, top + down), fill=color)
    ink = (0, 0, 0) if sum(color) > _DARKEST else (255, 255, 255)
    canvas.text((left + 2, top + 1), text, ink, font)
