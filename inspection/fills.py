"""Pictures with nothing in them: what an image is compared with, or a part of it is hidden by.

There is no neutral picture: each choice is a question of its own ("compared with black"), and the
answers differ.
"""

from collections.abc import Callable, Mapping

import numpy as np

from errors import UserError, did_you_mean, shortened


def _mean(pixels: np.ndarray) -> np.ndarray:
    """Returns the mean color of each example."""
    return np.rint(pixels.mean(tuple(range(1, pixels.ndim - 1)), keepdims=True))


_COLORS: Mapping[str, Callable[[np.ndarray], np.ndarray | int]] = {
    'black': lambda pixels: 0,
    'gray': lambda pixels: 128,
    'white': lambda pixels: 255,
    'mean': _mean,
}
NAMES = tuple(_COLORS)


def plain(pixels: np.ndarray, name: str) -> np.ndarray:
    """Returns images of one color each, in the place of others.

    Args:
      pixels: uint8 [b, ..., h, w, c].
      name: 'black', 'gray', 'white', or 'mean' for each image's own mean color.

    Returns:
      uint8, of the shape of `pixels`.

    Raises:
      UserError: there is no such color.
    """
    if name not in _COLORS:
        raise UserError(
            f'"{shortened(name)}" is no color to compare with; there are {", ".join(NAMES)}.'
            + did_you_mean(name, NAMES)
        )
    return np.broadcast_to(_COLORS[name](pixels), pixels.shape).astype(np.uint8)
