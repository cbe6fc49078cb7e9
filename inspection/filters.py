"""The filters of a network's layers as pictures."""

import numpy as np

from inspection import drawing


def first(kernels: np.ndarray, title: str) -> bytes:
    """Returns a sheet of the filters [window, window, 1 or 3, filters] that see the image, PNG."""
    count = kernels.shape[-1]
    limit = np.abs(kernels).max() or 1
    figure = drawing.figure(8, 1.2 * -(-count // 8), title)
    for axes, number in zip(figure.subplots(-(-count // 8), 8).flat, range(count), strict=False):
        axes.imshow((kernels[..., number] / limit + 1) / 2, vmin=0, vmax=1, cmap='gray')
    for axes in figure.axes:
        axes.axis('off')
    return drawing.png(figure)
