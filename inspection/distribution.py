"""How the weights of a network are spread: one picture with a row for each layer."""

import numpy as np

from inspection import drawing, weights
from inspection.drawing import Drawn
from inspection.opened import Opened

BINS = 31
MOST = 60  # rows


def overview(opened: Opened) -> Drawn | None:
    """Returns the picture: histogram, norms of the filters and zeros of each kernel.

    None for a network without kernels.
    """
    kernels = weights.kernels(opened.variables, opened.trace.layers)
    if not kernels:
        return None
    count = len(kernels)
    kernels = [kernels[i] for i in drawing.spread(count, MOST)]
    rows = [weights.of_array(layer.name, kernel) for layer, kernel in kernels]
    title = f'Weights of {_counted(len(rows), count)}, without biases and norm layers'
    note = (
        'Left: histogram of each layer, as wide as its largest absolute weight. Middle: smallest, '
        'median and largest norm of a filter. Right: weights smaller than a hundredth of their '
        'root mean square; of a normal distribution 0.8 % are.'
    )
    figure = drawing.figure(8.5, 1.0 + 0.2 * len(rows), title, note)
    strips, norms, zeros = figure.subplots(1, 3, sharey=True, width_ratios=(4, 2, 1.3))
    _strips(strips, [kernel for _, kernel in kernels])
    places = np.arange(len(rows))
    strips.set_yticks(places, [row.name for row in rows])
    for place, row in zip(places, rows, strict=True):
        low, middle, high = np.quantile(row.norms, (0, 0.5, 1))
        norms.plot((low, high), (place, place), color=drawing.FILL, linewidth=3)
        norms.plot(middle, place, 'o', color=drawing.INK, markersize=3.5)
    drawing.plain(norms, 'norm of a filter', '')
    norms.set_xlim(left=0)
    zeros.barh(places, [100 * row.near_zero for row in rows], height=0.6, color=drawing.FILL)
    zeros.axvline(0.8, color=drawing.FRAME, linewidth=1)
    drawing.plain(zeros, 'near zero (%)', '')
    for axes in (norms, zeros):
        axes.grid(axis='x', alpha=0.3)
        axes.tick_params(axis='y', length=0)
    strips.set_ylim(len(rows) - 0.5, -0.5)
    return Drawn(drawing.png(figure), f'{title}: histograms, norms of the filters, zeros.')


def _strips(axes, kernels: list[np.ndarray]) -> None:
    """Draws a histogram for each kernel as a strip, the darker the more weights."""
    strips, limits = [], []
    for kernel in kernels:
        limit = weights.largest(kernel)
        counts, _ = np.histogram(weights.finite(kernel), BINS, (-limit, limit))
        strips.append(counts / max(counts.max(), 1))
        limits.append(limit)
    extent = (-1, 1, len(kernels) - 0.5, -0.5)
    axes.imshow(strips, cmap='Blues', vmin=0, aspect='auto', extent=extent, interpolation='nearest')
    for place, limit in enumerate(limits):
        axes.axhline(place + 0.5, color='white', linewidth=2)
        axes.text(
            0.98, place, f'±{limit:.3g}', fontsize=7, color=drawing.INK, ha='right', va='center'
        )  # fmt: skip
    drawing.plain(axes, 'weight / largest absolute weight of the layer', '')
    axes.tick_params(axis='y', length=0)


def _counted(shown: int, count: int) -> str:
    """Returns how many layers are shown."""
    if shown < count:
        return f'{shown} of {count} layers, evenly chosen'
    return drawing.counted(count, 'layer')
