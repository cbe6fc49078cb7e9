"""What all pictures of this room share: figures without a display, grids of small pictures."""

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fonts

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DPI = 110
INK, QUIET, FRAME = (
    '#1c2733',
    '#55616e',
    '#d1495b',
)  # text, lesser text, what is marked in a picture
FILL = '#3d6f9e'  # bars and areas
GRID = '#aab4be'  # between tiles that are mostly pale
MOST_WITH_GAPS = 128  # bars
LABELS = 16  # numbers along an axis at most
GAP = (3, 3)  # pixels below and beside a tile
CHARACTERS, LINE = 12.5, 0.2  # of text in an inch; inches of a line


class Drawn(NamedTuple):
    """A finished picture.

    Attributes:
      png: the picture, a PNG file.
      caption: a sentence about what it shows.
    """

    png: bytes
    caption: str


def figure(width: float, height: float, title: str = '', note: str = '') -> 'Figure':
    """Returns an empty figure.

    Args:
      width, height: in inches, of DPI pixels each; the lines of text above it are added.
      title, note: text in any script, broken into lines; the note starts a line of its own.
    """
    # The object interface, because pyplot keeps global state and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    most = int(width * CHARACTERS)
    lines = [line for text in (title, note) if text for line in textwrap.wrap(text, most)]
    made = Figure(
        figsize=(width, height + LINE * len(lines)), dpi=DPI, layout='constrained',
        facecolor='white',
    )  # fmt: skip
    FigureCanvasAgg(made)
    if lines:
        text, font = fonts.for_text('\n'.join(lines))
        made.suptitle(
            text, font=font, fontsize=10, color=INK, x=0.01,
            ha='left', linespacing=1.4, parse_math=False,
        )  # fmt: skip
    return made


def png(figure: 'Figure') -> bytes:
    """Returns a figure as a PNG file."""
    from PIL import Image

    figure.canvas.draw()
    colors = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # none of it is transparent
    picture = io.BytesIO()
    Image.fromarray(colors).save(picture, format='png')
    return picture.getvalue()


def grid(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Returns tiles [n, ...] in rows, [rows, columns, ...]; the last row is filled up with NaN."""
    rows = -(-len(tiles) // columns)
    filled = np.full((rows * columns, *tiles.shape[1:]), np.nan, np.float32)
    filled[: len(tiles)] = tiles
    return filled.reshape(rows, columns, *tiles.shape[1:])


def mosaic(tiles: np.ndarray, cell: int, gap: tuple[int, int] = GAP) -> 'Mosaic':
    """Joins a grid of small pictures into one, with gaps of NaN between them.

    Args:
      tiles: float [rows, columns, h, w] or, in color, [rows, columns, h, w, 3].
      cell: about how many pixels the longer side of a tile gets; each of its pixels becomes a
        square of a whole number of them.
      gap: pixels below and beside each tile.
    """
    rows, columns, height, width = tiles.shape[:4]
    factor = max(1, round(cell / max(height, width)))
    tiles = tiles.repeat(factor, 2).repeat(factor, 3)
    around = [(0, 0), (0, 0), (0, gap[0]), (0, gap[1])] + [(0, 0)] * (tiles.ndim - 4)
    tiles = np.moveaxis(np.pad(tiles, around, constant_values=np.nan), 1, 2)
    down, right = height * factor + gap[0], width * factor + gap[1]
    joined = tiles.reshape(rows * down, columns * right, *tiles.shape[4:])
    return Mosaic(joined[: -gap[0], : -gap[1]], down, right, height * factor, width * factor)


class Mosaic(NamedTuple):
    """Small pictures joined into one.

    Attributes:
      picture: float [h, w] or [h, w, 3], NaN between the tiles.
      down, right: pixels from one tile to the next.
      height, width: of a tile, in pixels.
    """

    picture: np.ndarray
    down: int
    right: int
    height: int
    width: int


def canvas(
    mosaic: Mosaic, title: str, note: str = '', beside: float = 1.2, below: float = 0.6
) -> tuple['Figure', 'Axes']:
    """Returns (figure, axes) in which a mosaic has about its own size in pixels.

    Args:
      mosaic: what is to be drawn.
      title, note: as for `figure`.
      beside, below: inches for what is written along its sides.
    """
    height, width = (side / DPI for side in mosaic.picture.shape[:2])
    made = figure(max(width, 2.6) + beside, height + below, title, note)
    return made, made.subplots()


def show(axes: 'Axes', picture: np.ndarray, **options: Any) -> 'AxesImage':
    """Draws a picture into axes without frame and ticks; in color NaN is white."""
    if picture.ndim == 3:
        picture = np.nan_to_num(np.clip(picture, 0, 1), nan=1)
    drawn = axes.imshow(picture, **options)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=QUIET)
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def number_tiles(axes: 'Axes', mosaic: Mosaic, columns: int, names: Sequence[Any]) -> None:
    """Writes a number or a name above each tile of a mosaic, in the gap."""
    for i, name in enumerate(names):
        axes.text(
            i % columns * mosaic.right, i // columns * mosaic.down - 2, str(name),
            fontsize=7, color=QUIET, va='bottom',
        )  # fmt: skip


def number_sides(axes: 'Axes', mosaic: Mosaic, rows: int, columns: int, row: str, column: str):
    """Writes the numbers of a mosaic's rows and columns along its sides, and what they are."""
    down, right = (range(0, n, -(-n // LABELS)) for n in (rows, columns))
    axes.set_yticks([i * mosaic.down + (mosaic.height - 1) / 2 for i in down], [*map(str, down)])
    axes.set_xticks([i * mosaic.right + (mosaic.width - 1) / 2 for i in right], [*map(str, right)])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position('top')
    axes.tick_params(length=0)
    axes.set_ylabel(row, color=QUIET, fontsize=9)
    axes.set_xlabel(column, color=QUIET, fontsize=9)


def scale_bar(
    figure: 'Figure', drawn: 'AxesImage', axes: 'Axes', label: str, cut: bool = False
) -> None:
    """Draws the scale of colors beside a picture; with arrows where values go beyond it."""
    values, (low, high) = drawn.get_array().compressed(), drawn.get_clim()
    below, above = ((values < low).any(), (values > high).any()) if cut else (False, False)
    ends = {(True, True): 'both', (True, False): 'min', (False, True): 'max'}
    extend = ends.get((bool(below), bool(above)), 'neither')
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.02, aspect=30, extend=extend)
    bar.set_label(label, color=QUIET, fontsize=9)
    bar.ax.tick_params(labelsize=8, labelcolor=QUIET)
    bar.outline.set_visible(False)


def signed_colors(gaps: str = '#e9ecef') -> Any:
    """Returns the colors of signed numbers: blue below 0, white 0, red above; NaN as gaps."""
    from matplotlib import colormaps

    return colormaps['RdBu_r'].with_extremes(bad=gaps)


def plain(axes: 'Axes', x: str, y: str) -> None:
    """Labels axes, and takes away what draws the eye from the data."""
    axes.set_xlabel(x, color=QUIET, fontsize=9)
    axes.set_ylabel(y, color=QUIET, fontsize=9)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=8, labelcolor=QUIET, color='#c3cad1')
    axes.spines[['left', 'bottom']].set_color('#c3cad1')


def bars(axes: 'Axes', values: np.ndarray, color: str = FILL) -> None:
    """Draws a bar for each unit, with gaps between them if they are not too many for that."""
    width = 0.85 if len(values) <= MOST_WITH_GAPS else 1.0
    axes.bar(np.arange(len(values)), values, width=width, color=color, linewidth=0)
    axes.set_xlim(-0.6, len(values) - 0.4)


def counted(number: int, what: str) -> str:
    """Returns a number with what is counted: '1 channel', '4,096 units'."""
    return f'{number:,} {what}' + 's' * (number != 1)


def spread(count: int, most: int) -> list[int]:
    """Returns at most so many of the numbers below count: the first, the last, evenly between."""
    if count <= most:
        return [*range(count)]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
