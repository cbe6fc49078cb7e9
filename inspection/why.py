"""One picture that shows why a network gives an answer, by several methods side by side."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

import fonts
from inspection import overlay
from inspection.drawing import INK, QUIET, figure
from inspection.methods import METHODS, Explanation
from inspection.opened import Opened
from tasks.answer import Choice

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 1.45  # the width of one, in inches
CHARACTERS = 20  # of a class's name in a line above one


def drawn(
    opened: Opened,
    image: np.ndarray,
    choices: Sequence[Choice],
    explanations: Mapping[str, Sequence[Explanation]],
    title: str,
    note: str,
) -> 'Figure':
    """Draws a column for each method, and for each choice its overlays and below them its maps.

    A method has one scale of colors for all choices, so that they can be compared; its bar is at
    the foot of the column.

    Args:
      opened: the network.
      image: uint8 [h, w, c].
      choices: what is explained.
      explanations: {name of a method: its explanation of each choice}.
      title, note: of the picture.
    """
    task = opened.task
    pictures = task.pictures(image)
    rows, columns = 2 * len(pictures) * len(choices), 1 + len(explanations)
    height, width = pictures[0].shape[:2]
    tall = PANEL * height / width * rows + 0.5 * len(choices) + 0.7
    made = figure((PANEL + 0.25) * columns, tall, title, note)
    axes = made.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    large = [overlay.enlarged(picture) for picture in pictures]
    marked = [
        [task.marked(picture, choice, picture.shape[0] / height) for picture in large]
        for choice in choices
    ]
    for number, choice in enumerate(choices):
        for frame, picture in enumerate(marked[number]):
            axis = axes[2 * (number * len(pictures) + frame), 0]
            _show(axis, picture)
            if frame == 0:
                text, font = fonts.for_text(choice.caption)
                text = textwrap.fill(text, CHARACTERS)
                axis.set_title(text, font=font, fontsize=10, color=INK, parse_math=False)
    for column, (name, found) in enumerate(explanations.items(), start=1):
        maps = [heat for explanation in found for heat in explanation.maps]
        method = METHODS[name]
        scale = overlay.scale_of(*maps, signed=method.signed, share=method.share)
        for row, (heat, marks) in enumerate(zip(maps, itertools.chain(*marked), strict=True)):
            over, below = axes[2 * row : 2 * row + 2, column]
            picture = large[row % len(pictures)]
            first = row % len(pictures) == 0
            note = found[row // len(pictures)].note
            text = f'{method.title}\n{note}' if first else ''
            if heat.shape == pictures[row % len(pictures)].shape[:2]:
                heat = overlay.enlarged(heat)  # a value for each pixel, which is a square
            _show(over, overlay.marked(overlay.lay_over(picture, heat, scale), picture, marks))
            over.set_title(text, fontsize=9, color=INK)
            colors = scale.colors(overlay.resized(heat, *picture.shape[:2]))
            _show(below, overlay.marked(colors, picture, marks))
        _add_bar(axes[:, column], scale, method.meaning)
    return made


def legend(names: Sequence[str]) -> str:
    """Returns what the colors of some methods mean, in sentences."""
    signed = any(METHODS[name].signed for name in names)
    plain = [METHODS[name].title for name in names if not METHODS[name].signed]
    sentences = [f'Yellow is for it ({" and ".join(plain)}).'] * bool(plain)
    sentences += ['Red is for it, blue against it.'] * signed
    return ' '.join(sentences)


def _show(axis: 'Axes', picture: np.ndarray) -> None:
    """Shows uint8 [h, w, 1 or 3]."""
    axis.imshow(np.broadcast_to(picture, (*picture.shape[:2], 3)), interpolation='nearest')


def _add_bar(axes: np.ndarray, scale: overlay.Scale, meaning: str) -> None:
    """Adds the legend of a column's colors at its foot."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colors = ScalarMappable(Normalize(scale.low, scale.high), scale.colormap)
    bar = axes[0].figure.colorbar(
        colors, ax=list(axes), orientation='horizontal', fraction=0.03, pad=0.01, aspect=14,
    )  # fmt: skip
    bar.set_label(meaning, fontsize=8, color=QUIET)
    bar.set_ticks([scale.low, scale.high] if not scale.signed else [scale.low, 0, scale.high])
    bar.ax.tick_params(labelsize=7)
    first, *_, last = bar.ax.get_xticklabels()  # not into the next column's
    first.set_ha('left')
    last.set_ha('right')
    bar.ax.xaxis.set_major_formatter(lambda value, _: f'{value:.2g}')
