"""Feature maps: what each channel of a stage makes of one picture, beside that picture.

    values = opened.look(pixels[None]).stages['conv2'][0]
    png, caption = maps.drawn(pixels, values, opened.trace.stages['conv2'], 'conv2')

All channels of a stage share one scale, so that a channel that answers little looks dark.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from inspection import drawing
from inspection.drawing import Drawn
from models.trace import Stage

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes

MOST = 64  # channels
COLUMNS, CELL, GAP = 8, 84, (16, 8)  # of the grid of channels; pixels
WIDEST = 10.0  # inches
PICTURE = 2.0  # inches of the longer side of the picture
MOST_BARS, UNITS_IN_ROW = 256, 64
MOST_OF = 0.995  # of the values that are not 0 have colors of their own


def drawn(
    pixels: np.ndarray, values: np.ndarray, stage: Stage, name: str, title: str = ''
) -> Drawn:
    """Returns the picture of a stage.

    Args:
      pixels: the picture as the network gets it, uint8 [h, w, 1 or 3].
      values: the stage, float [h', w', channels] or [units].
      stage: what the trace says of it.
      name: the stage's name.
      title: what is written before the name, such as the picture's name.
    """
    heading = f'{title}, {name}' if title else name
    if values.ndim == 1:
        return _of_units(pixels, values, heading)
    return _of_channels(pixels, values, stage, heading)


def _of_channels(pixels: np.ndarray, values: np.ndarray, stage: Stage, heading: str) -> Drawn:
    height, width, channels = values.shape
    shown = min(channels, MOST)
    columns = min(shown, 3) if shown < 5 else min(-(-shown // 2), COLUMNS)
    tiles = drawing.grid(np.moveaxis(values[..., :shown], 2, 0), columns)
    # A mosaic that is too wide is drawn smaller; its gaps have to hold the numbers all the same.
    room = WIDEST - PICTURE - 1.2
    scale = min(1.0, room * drawing.DPI / (columns * max(width, CELL)))
    mosaic = drawing.mosaic(tiles, CELL, (round(GAP[0] / scale), round(GAP[1] / scale)))
    title = f'{heading}: {height}x{width}, {drawing.counted(channels, "channel")}'
    if shown < channels:
        title += f', of which the first {shown} are shown'
    center = stage.field(height // 2, width // 2)
    note = f'Stride {stage.stride}, receptive field {_side(stage)}. ' + (
        'The frame is what the position in the middle of a map sees.'
        if center and not _covers(center, pixels)
        else 'The position in the middle of a map sees the whole picture.'
    )
    tall, wide = (side / drawing.DPI for side in mosaic.picture.shape[:2])
    tall, wide = tall * min(1.0, room / wide), max(min(wide, room), 1.0)
    figure = drawing.figure(PICTURE + wide + 1.2, max(tall, PICTURE) + 0.4, title, note)
    left, right = figure.subplots(1, 2, width_ratios=(PICTURE, wide + 0.8))
    _picture(left, pixels, center)
    shades = drawing.show(right, mosaic.picture, **_colors(values[..., :shown]))
    drawing.number_tiles(right, mosaic, columns, range(shown))
    drawing.scale_bar(figure, shades, right, 'activation', cut=True)
    right.set_anchor('NW')
    return Drawn(drawing.png(figure), f'{title}. {note}')


def _of_units(pixels: np.ndarray, values: np.ndarray, heading: str) -> Drawn:
    not_zero = np.count_nonzero(values)
    title = f'{heading}: {drawing.counted(len(values), "unit")}, {not_zero} of them not 0'
    rows = -(-len(values) // UNITS_IN_ROW)
    bars = len(values) <= MOST_BARS
    height = PICTURE if bars else max(PICTURE, 0.1 * rows)
    figure = drawing.figure(WIDEST - 1, height + 0.4, title, 'Each sees the whole picture.')
    left, right = figure.subplots(1, 2, width_ratios=(PICTURE, WIDEST - 1 - PICTURE))
    _picture(left, pixels, None)
    if bars:
        drawing.bars(right, values)
        drawing.plain(right, 'unit', 'activation')
        return Drawn(drawing.png(figure), f'{title}.')
    filled = np.full(rows * UNITS_IN_ROW, np.nan, np.float32)
    filled[: len(values)] = values
    shades = right.imshow(
        filled.reshape(rows, UNITS_IN_ROW), aspect='auto', interpolation='nearest',
        **_colors(values),
    )  # fmt: skip
    starts = drawing.spread(rows, 8)
    right.set_yticks(starts, [str(row * UNITS_IN_ROW) for row in starts])
    drawing.plain(right, f'{UNITS_IN_ROW} units in a row', 'number of the first unit')
    drawing.scale_bar(figure, shades, right, 'activation', cut=True)
    return Drawn(drawing.png(figure), f'{title}.')


def _side(stage: Stage) -> str:
    """Returns the receptive field as text."""
    if math.isinf(stage.receptive_field):
        return 'the whole picture'
    return f'{stage.receptive_field:.0f}x{stage.receptive_field:.0f} pixels'


def _covers(seen: tuple[int, int, int], pixels: np.ndarray) -> bool:
    """Whether what a position sees is the whole picture."""
    top, left, side = seen
    height, width = pixels.shape[:2]
    return top <= 0 and left <= 0 and top + side >= height and left + side >= width


def _colors(values: np.ndarray) -> dict[str, Any]:
    """Returns the colors of values, for `imshow`: of signed ones 0 is in the middle.

    The few largest values share the last color, so that one of them does not make all else dark.
    """
    finite = values[np.isfinite(values)]
    sizes = np.abs(finite[finite != 0])
    limit = float(np.quantile(sizes, MOST_OF)) if sizes.size else 1.0
    if finite.min(initial=0) < 0:
        return {'cmap': drawing.signed_colors(), 'vmin': -limit, 'vmax': limit}
    return {'cmap': 'viridis', 'vmin': 0, 'vmax': limit}


def _picture(axes: 'Axes', pixels: np.ndarray, center: tuple[int, int, int] | None) -> None:
    """Draws the picture, with a frame around what the center of a map sees."""
    from matplotlib.patches import Rectangle

    height, width, channels = pixels.shape
    if channels == 1:
        axes.imshow(pixels[..., 0], cmap='gray', vmin=0, vmax=255, interpolation='nearest')
    else:
        axes.imshow(pixels, interpolation='nearest')
    axes.axis('off')
    axes.set_anchor('N')
    axes.set_title(f'{height}x{width}', fontsize=8, color=drawing.QUIET)
    if center and not _covers(center, pixels):
        top, left, side = center
        (top, bottom), (left, right) = np.clip(
            ((top, top + side), (left, left + side)), 0, ((height,), (width,))
        )
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
        axes.add_patch(
            Rectangle(
                corner, *size, fill=False, edgecolor=drawing.FRAME, linewidth=2, clip_on=False
            )
        )
