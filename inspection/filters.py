"""The filters of a network's layers as sheets of small pictures.

    picture, caption = filters.sheet(opened, filters.layers(opened)[0])

A filter of the first layer is a picture like those that it answers to most. Deeper filters are
shown by the channels that they read. All pictures of a sheet share one scale, which is written on
it. In what order a layer flattens a map (rows, columns, channels) is known from models/network.py.
"""

import math
from typing import NamedTuple

import numpy as np

from errors import UserError
from inspection import drawing, weights
from inspection.drawing import Drawn
from inspection.opened import Opened
from models.trace import Layer

MOST_FIRST = 64  # filters of the first layer
COLUMNS = 8
MOST = 16  # filters, and channels of each, of a deeper layer
MOST_UNITS = 128  # rows and columns of a matrix
FIRST_CELL, FIRST_GAP, CELL = 84, (16, 8), 40  # pixels


class Kernel(NamedTuple):
    """The weights of a layer as small pictures, those of a dense layer by what it reads.

    Attributes:
      name: the layer's.
      values: float32 [h, w, channels, filters].
      of_image: whether it reads the image itself.
      unit: what an output is called: 'filter' or 'unit'.
    """

    name: str
    values: np.ndarray
    of_image: bool
    unit: str

    @property
    def shape(self) -> str:
        """The shape of one filter, such as '5x5x6'; of a unit '84 weights'."""
        shape = self.values.shape[:3]
        if self.unit == 'unit' and shape[:2] == (1, 1):
            shape = shape[2:]
        return 'x'.join(map(str, shape)) + ' weights' * (self.unit == 'unit')


def layers(opened: Opened) -> list[str]:
    """Returns the names of the layers that have filters, in order; the first one sees the image."""
    return [layer.name for layer, _ in weights.kernels(opened.variables, opened.trace.layers)]


def sheet(opened: Opened, name: str) -> Drawn:
    """Returns the sheet of a layer.

    Args:
      opened: the network.
      name: of a convolution, or of a dense or norm layer, as in the trace.

    Raises:
      UserError: the layer has no weights.
    """
    kernel = kernel_of(opened, name)
    if kernel is None:
        return _channels(opened, _layer(opened, name))
    if kernel.of_image and kernel.values.shape[2] in (1, 3):
        return _as_pictures(kernel)
    if kernel.values.shape[:2] == (1, 1):
        return _as_matrix(kernel)
    return _by_channel(kernel)


def kernel_of(opened: Opened, name: str) -> Kernel | None:
    """Returns the weights of a layer as small pictures; None if it has no kernel."""
    layer = _layer(opened, name)
    found = weights.of_layer(opened.variables, layer).get('kernel')
    if found is None or found.ndim not in (2, 4):
        return None
    first = layers(opened)[0] == name
    if found.ndim == 4:
        return Kernel(name, found, first, 'filter')
    # What a dense layer reads is often a map that was flattened: the output of the layer before it.
    place = opened.trace.layers.index(layer)
    before = opened.trace.layers[place - 1].out_shape if place else ()
    if first:
        before = opened.experiment.image_shape
    if len(before) != 3 or math.prod(before) != len(found):
        before = (1, 1, len(found))
    return Kernel(name, found.reshape(*before, -1), first, 'unit')


def _layer(opened: Opened, name: str) -> Layer:
    """Returns what the trace says of a layer."""
    return next(layer for layer in opened.trace.layers if layer.name == name)


def _as_pictures(kernel: Kernel) -> Drawn:
    """Draws filters that read the image, in its own colors."""
    values, limit = kernel.values, weights.largest(kernel.values)
    shown = min(values.shape[3], MOST_FIRST)
    columns, color = min(COLUMNS, shown), values.shape[2] == 3
    tiles = np.moveaxis(values[..., :shown], 3, 0) / limit / 2 + 0.5
    tiles = drawing.grid(tiles if color else tiles[..., 0], columns)
    mosaic = drawing.mosaic(tiles, FIRST_CELL, FIRST_GAP)
    if color:
        scale = f'Mid-gray is 0; each color goes from {-limit:.3g} (dark) to {limit:.3g} (bright).'
    else:
        scale = f'Mid-gray is 0, black {-limit:.3g}, white {limit:.3g}.'
    title = f'{kernel.name}: {_counted(shown, values.shape[3], kernel.unit)} of {kernel.shape}'
    figure, axes = drawing.canvas(mosaic, title, scale, beside=0.1, below=0.3)
    drawing.show(axes, mosaic.picture, cmap='gray', vmin=0, vmax=1)
    drawing.number_tiles(axes, mosaic, columns, range(shown))
    return Drawn(drawing.png(figure), f'{title}. {scale}')


def _by_channel(kernel: Kernel) -> Drawn:
    """Draws filters in rows, with the channels that they read as columns."""
    values, limit = kernel.values, weights.largest(kernel.values)
    filters, channels = min(values.shape[3], MOST), min(values.shape[2], MOST)
    tiles = np.transpose(values[..., :channels, :filters], (3, 2, 0, 1))
    mosaic = drawing.mosaic(tiles, CELL)
    title, note = _texts(kernel, filters, channels, 'channel')
    figure, axes = drawing.canvas(mosaic, title, note)
    colors = drawing.signed_colors(drawing.GRID)
    drawn = drawing.show(axes, mosaic.picture, cmap=colors, vmin=-limit, vmax=limit)
    drawing.number_sides(axes, mosaic, filters, channels, kernel.unit, 'channel')
    drawing.scale_bar(figure, drawn, axes, 'weight')
    return Drawn(drawing.png(figure), f'{title}. {note}')


def _as_matrix(kernel: Kernel) -> Drawn:
    """Draws weights that have no places: an output in each row, an input in each column."""
    values, limit = kernel.values[0, 0], weights.largest(kernel.values)
    outputs, inputs = (min(n, MOST_UNITS) for n in (values.shape[1], values.shape[0]))
    read = 'channel' if kernel.unit == 'filter' else 'input'
    title, note = _texts(kernel, outputs, inputs, read)
    width, height = (min(max(0.05 * n, least), 6.4) for n, least in ((inputs, 3), (outputs, 1.2)))
    figure = drawing.figure(width + 1.2, height + 0.6, title, note)
    axes = figure.subplots()
    drawn = axes.imshow(
        values[:inputs, :outputs].T, cmap=drawing.signed_colors(), vmin=-limit, vmax=limit,
        aspect='auto', interpolation='nearest',
    )  # fmt: skip
    drawing.plain(axes, read, kernel.unit)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    drawing.scale_bar(figure, drawn, axes, 'weight')
    return Drawn(drawing.png(figure), f'{title}. {note}')


def _texts(kernel: Kernel, outputs: int, inputs: int, read: str) -> tuple[str, str]:
    """Returns the title and the note of a sheet that shows so many outputs and inputs."""
    of = kernel.values.shape
    title = f'{kernel.name}: {_counted(outputs, of[3], kernel.unit)} of {kernel.shape}'
    if inputs < of[2]:
        title += f', by {_counted(inputs, of[2], read)}'
    article = 'an' if read == 'input' else 'a'
    return title, f'Each row is a {kernel.unit}, each column {article} {read} that it reads.'


def _channels(opened: Opened, layer: Layer) -> Drawn:
    """Draws the arrays of a layer that has one number for each channel, such as a norm layer.

    Raises:
      UserError: it has no such arrays.
    """
    arrays = {
        name: array
        for name, array in weights.of_layer(opened.variables, layer).items()
        if array.ndim == 1
    }
    if not arrays:
        raise UserError(f'{layer.name} has no weights: it is {layer.kind}.')
    title = f'{layer.name}: {layer.kind}, {drawing.counted(layer.out_shape[-1], "channel")}'
    figure = drawing.figure(8, 0.4 + 1.5 * len(arrays), title)
    rows = figure.subplots(len(arrays), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, array) in zip(rows, arrays.items(), strict=True):
        axes.axhline(0, color=drawing.QUIET, linewidth=0.8)
        drawing.bars(axes, array)
        drawing.plain(axes, 'channel' if axes is rows[-1] else '', name)
    return Drawn(drawing.png(figure), f'{title}. For each its {", ".join(arrays)}.')


def _counted(shown: int, count: int, unit: str) -> str:
    """Returns how many are shown: '6 filters', or 'the first 16 of 512 filters'."""
    if shown < count:
        return f'the first {shown} of {drawing.counted(count, unit)}'
    return drawing.counted(count, unit)
