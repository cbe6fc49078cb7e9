"""A PNG that shows filters beside what they make of a picture, and pooling likewise."""

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np

from tools.convolve import colors
from tools.convolve.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_LINE = 3  # maps in a line
WIDTH, FILTER = 3.3, 1.5  # inches: the width of a map; width and height of a filter
SMALLEST_LETTERS = 7.0  # points; what needs smaller ones is left out


@dataclasses.dataclass(frozen=True)
class Panel:
    """Numbers as a picture.

    Attributes:
      title: above it.
      values: float [h, w].
      scale: the colors of the numbers.
      is_filter: whether it is a filter, which is small and needs no scale.
    """

    title: str
    values: np.ndarray
    scale: colors.Scale
    is_filter: bool = False


Line = list[Panel | None]


def cards(picture: Panel, filters: list[Panel], maps: list[Panel]) -> list[Line]:
    """Returns lines of panels: the picture, then each map with its filter above it."""
    if len(maps) == 1:
        return [[picture, *filters, *maps]]
    above, below = [None, *filters], [picture, *maps]
    lines = []
    for start in range(0, len(below), PER_LINE):
        lines += [above[start : start + PER_LINE], below[start : start + PER_LINE]]
    return lines


def png(lines: list[Line], title: str) -> bytes:
    """Draws lines of panels, None for an empty place, and returns the bytes of a PNG."""
    # The object interface, because pyplot keeps global state and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = max(map(len, lines))
    widths = [_width(line[place] for line in lines if place < len(line)) for place in range(across)]
    heights = [_height(line) for line in lines]
    size = sum(widths) + 0.3, sum(heights) + 0.6
    figure = Figure(figsize=size, dpi=100, layout='constrained')
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    FigureCanvasAgg(figure)
    _write_title(figure, title)
    axes = figure.subplots(
        len(lines), across, squeeze=False, height_ratios=heights, width_ratios=widths
    )
    for row, line in zip(axes, lines, strict=True):
        for place, panel in enumerate(row):
            if place < len(line) and line[place] is not None:
                _draw(figure, panel, line[place])
            else:
                panel.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format='png', pil_kwargs={'optimize': True})
    return file.getvalue()


def _width(panels) -> float:
    """Returns how wide a column of panels is, in inches."""
    there = [panel for panel in panels if panel is not None]
    return FILTER if all(panel.is_filter for panel in there) else WIDTH


def _height(line: Line) -> float:
    """Returns how high a line of panels is, in inches."""
    maps = [panel for panel in line if panel is not None and not panel.is_filter]
    if not maps:
        return FILTER
    height, width = maps[0].values.shape
    return 0.8 + 2.8 * min(1.6, max(0.35, height / width))


def _write_title(figure: 'Figure', title: str) -> None:
    from matplotlib.font_manager import FontProperties

    import fonts

    text, font = fonts.for_text(title)
    figure.suptitle(text, font=FontProperties(fname=font, size=13), parse_math=False)


def _draw(figure: 'Figure', axes: 'Axes', panel: Panel) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.font_manager import FontProperties

    import fonts

    scale = panel.scale
    places = (np.array(scale.places) - scale.low) / (scale.high - scale.low)
    stops = list(zip(places, np.array(scale.stops) / 255, strict=True))
    image = axes.imshow(
        panel.values,
        cmap=LinearSegmentedColormap.from_list('scale', stops, 1024),
        vmin=scale.low,
        vmax=scale.high,
        interpolation='nearest',
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(np.array(colors.LINE) / 255)
    text, font = fonts.for_text(panel.title)
    axes.set_title(text, font=FontProperties(fname=font, size=10), parse_math=False)
    _write_numbers(axes, panel)
    if not panel.is_filter:
        bar = figure.colorbar(image, ax=axes, orientation='horizontal', fraction=0.05, pad=0.03)
        ticks = scale.ticks()
        bar.set_ticks(ticks, labels=[number(tick) for tick in ticks], fontsize=8)
        bar.outline.set_edgecolor(np.array(colors.LINE) / 255)


def _write_numbers(axes: 'Axes', panel: Panel) -> None:
    """Writes the numbers into cells that have room for them, and draws lines between the cells."""
    height, width = panel.values.shape
    texts = [[number(value) for value in row] for row in panel.values]
    longest = max(len(text) for row in texts for text in row)
    inches = FILTER - 0.4 if panel.is_filter else WIDTH - 0.4
    letters = min(13.0, 72 * inches / max(height, width) / (0.75 * max(2, longest)))
    if letters < SMALLEST_LETTERS:
        return
    line = {'color': np.array(colors.LINE) / 255, 'linewidth': 0.7}
    for place in range(1, max(height, width)):
        if place < width:
            axes.axvline(place - 0.5, **line)
        if place < height:
            axes.axhline(place - 0.5, **line)
    shades = panel.scale.colors(panel.values)
    for row, column in np.ndindex(height, width):
        ink = np.array(colors.ink(shades[row, column])) / 255
        axes.text(
            column, row, texts[row][column],
            ha='center', va='center', fontsize=letters, color=ink,
        )  # fmt: skip
