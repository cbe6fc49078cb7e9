"""The network of a report: its stages and layers, and the filters of the first one."""

import math
from collections.abc import Sequence

from errors import UserError
from inspection import filters
from inspection.opened import Opened
from models.trace import Layer
from tasks.section import Picture, Section, Table

TITLE = 'The network'
FILTERS = 'Filters of the first layer'


def section(opened: Opened) -> Section:
    """Returns the section.

    Raises:
      UserError: a layer is of a kind that cannot be listed.
    """
    trace, config = opened.trace, opened.experiment.config
    words = (
        f'{config.model.name} takes images of {_size(opened.experiment.image_shape)} (height x '
        f'width x channels). It has {trace.parameters:,} parameters and takes '
        f'{trace.multiply_adds:,} multiply-adds for an image.'
    )
    stages = [('stage', 'size', 'stride', 'receptive field')]
    stages += [
        (
            name,
            _size(stage.shape),
            '' if stage.stride is None else f'{stage.stride:,}',
            _field(stage.receptive_field),
        )
        for name, stage in trace.stages.items()
    ]
    meaning = (
        'The receptive field of a unit is the side of the square of the image on which it depends, '
        'and the stride how far the squares of neighbors are apart, both in pixels.'
    )
    layers = [('layer', 'kind', 'window', 'size', 'receptive field', 'parameters', 'multiply-adds')]
    layers += map(_row, trace.layers)
    listed = Table(f'The {len(trace.layers)} layers', layers, left_columns=4, folded=True)
    return Section(TITLE, [words, Table('Its stages', stages, left_columns=2), meaning, listed])


def filters_section(opened: Opened) -> Section:
    """Returns the filters that see the image itself, as pictures.

    Raises:
      UserError: the network has no layer with filters.
    """
    names = filters.layers(opened)
    if not names:
        raise UserError('The network has no layer with filters.')
    drawn = filters.sheet(opened, names[0])
    words = 'A filter answers most to a patch of the image that looks like it.'
    # No plot: what is bright in it has to stay bright.
    return Section(FILTERS, [words, Picture(drawn.png, drawn.caption)])


def _row(layer: Layer) -> tuple[str, ...]:
    return (
        layer.name,
        layer.kind,
        f'{layer.window}x{layer.window}' if layer.window else '',
        _size(layer.out_shape),
        _field(layer.receptive_field),
        f'{layer.parameters:,}',
        f'{layer.multiply_adds:,}',
    )


def _size(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape))


def _field(pixels: float) -> str:
    return 'the whole image' if math.isinf(pixels) else f'{pixels:,}'
