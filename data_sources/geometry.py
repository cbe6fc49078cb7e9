"""Where pixels go: matrices of geometric changes, and targets that follow them.

A matrix [2, 3] maps the place (y, x, 1) of a pixel of the result to the place (y, x) in the image
that it was taken from, as whoever samples pixels needs it. Places are those of pixel centres: the
first pixel's is (0, 0), the last one's (height - 1, width - 1). Targets are moved by one matrix
after the other, and not by their product: what one change pushes out of the image, the next does
not bring back.

Everything is for one example. The host calls it with NumPy (`xp=numpy`), the step with
`xp=jax.numpy` under jax.vmap; JAX is not imported here, because processes that decode pictures do
without it. Products are written out: a GPU may round a matrix product to ten bits.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # of NumPy or of JAX
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


# --- matrices ---------------------------------------------------------------------------------


def translation(down: Any, right: Any, xp: ModuleType = np) -> Array:
    """Returns the matrix of a result whose pixel (y, x) was at (y + down, x + right)."""
    return xp.array([[1.0, 0.0, down], [0.0, 1.0, right]])


def mirror(width: int) -> np.ndarray:
    """Returns the matrix of mirroring an image of this width left to right."""
    return np.array([[1.0, 0.0, 0.0], [0.0, -1.0, width - 1.0]])


def quarter_turns(side: int) -> np.ndarray:
    """Returns the matrices [4, 2, 3] of turning a square image by 0, 90, 180 and 270 degrees.

    Counter-clockwise; side is its height and width.
    """
    last = side - 1.0
    return np.array(
        [
            [[1, 0, 0], [0, 1, 0]],
            [[0, 1, 0], [-1, 0, last]],
            [[-1, 0, last], [0, -1, last]],
            [[0, -1, last], [1, 0, 0]],
        ],
        np.float64,
    )


def rotation(
    angle: Any,
    shape: tuple[int, int],
    zoom: Any = 1.0,
    shift: Any = (0.0, 0.0),
    xp: ModuleType = np,
) -> Array:
    """Returns the matrix of turning counter-clockwise about the centre, then shifting.

    Args:
      angle: in radians.
      shape: (height, width) of the image.
      zoom: factor on distances in the image that pixels are taken from: above 1 the content
        shrinks.
      shift: (down, right), by which the content moves, in pixels.
      xp: numpy or jax.numpy.
    """
    centre_y, centre_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    y, x = centre_y + shift[0], centre_x + shift[1]
    cos, sin = zoom * xp.cos(angle), zoom * xp.sin(angle)
    return xp.array(
        [[cos, sin, centre_y - cos * y - sin * x], [-sin, cos, centre_x + sin * y - cos * x]]
    )


def resized(
    top: float, left: float, height: float, width: float, size: tuple[int, int]
) -> np.ndarray:
    """Returns the matrix of a box that was cut out and resized.

    Args:
      top, left, height, width: of the box, in pixels; its edges are the edges of pixels.
      size: (height, width) of the result.
    """
    down, right = height / size[0], width / size[1]
    # The edges meet, and not the centres of the outermost pixels.
    return np.array(
        [[down, 0.0, top + (down - 1) / 2], [0.0, right, left + (right - 1) / 2]], np.float64
    )


def joined(first: Array, second: Array, xp: ModuleType = np) -> Array:
    """Returns the matrix of one change after another.

    Args:
      first: of the change that comes first.
      second: of the other.
      xp: numpy or jax.numpy.
    """
    (a, b, down), (c, d, right) = second
    products = [(e * a + f * c, e * b + f * d, e * down + f * right + g) for e, f, g in first]
    return xp.stack([xp.stack(row) for row in products])


# --- targets ----------------------------------------------------------------------------------


def moved_points(points: Array, matrix: Array, xp: ModuleType = np) -> Array:
    """Returns points where the pixels around them went, float32 [..., 2].

    Args:
      points: (y, x) [..., 2], places of pixel centres; they may come to lie outside the image.
      matrix: of the change; it must have an inverse.
      xp: numpy or jax.numpy.
    """
    (a, b, down), (c, d, right) = matrix
    y, x = points[..., 0] - down, points[..., 1] - right
    determinant = a * d - b * c
    moved = ((d * y - b * x) / determinant, (a * x - c * y) / determinant)
    return xp.stack(moved, -1).astype(np.float32)


def surrounding(boxes: Array, matrix: Array, xp: ModuleType = np) -> Array:
    """Returns the boxes around what boxes held, which may lie outside the image.

    Args:
      boxes: (y0, x0, y1, x1) [..., 4]: edges of pixels, so that (0, 0, height, width) is the whole
        image.
      matrix: of the change; it must have an inverse.
      xp: numpy or jax.numpy.

    Returns:
      float32 [..., 4].
    """
    corners = xp.stack([boxes[..., [y, x]] for y in (0, 2) for x in (1, 3)], -2)
    corners = moved_points(corners - 0.5, matrix, xp) + 0.5  # edges are half a pixel from centres
    return xp.concatenate([corners.min(-2), corners.max(-2)], -1)


def moved_boxes(boxes: Array, matrix: Array, shape: tuple[int, int], xp: ModuleType = np) -> Array:
    """Returns the boxes around what boxes held, cut off at the edges of the image.

    Args:
      boxes: as for `surrounding`. One that comes to lie outside has no area afterwards.
      matrix: of the change; it must have an inverse.
      shape: (height, width) of the result.
      xp: numpy or jax.numpy.

    Returns:
      float32 [..., 4].
    """
    ends = surrounding(boxes, matrix, xp)
    return xp.clip(ends, 0.0, np.array([*shape, *shape], np.float32)).astype(np.float32)


def taken_back(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the boxes in a picture around what boxes in the image hold.

    Args:
      boxes: [..., n, 4], as for `surrounding`.
      matrix: [..., 2, 3] of the change from the picture to the image.
    """
    matrix = matrix[..., None, :, :].astype(np.float64)
    corners = []
    for y, x in ((0, 1), (0, 3), (2, 1), (2, 3)):
        place = np.stack([boxes[..., y], boxes[..., x], np.ones_like(boxes[..., 0])], -1) - [
            0.5,
            0.5,
            0,
        ]
        corners.append((matrix * place[..., None, :]).sum(-1) + 0.5)
    corners = np.stack(corners, -2)
    return np.concatenate([corners.min(-2), corners.max(-2)], -1)


def moved_map(
    labels: Array, matrix: Array, shape: tuple[int, int], fill: int, xp: ModuleType = np
) -> Array:
    """Returns a map of labels as its image's pixels went: each is the nearest one's.

    Args:
      labels: [height, width], or with further axes.
      matrix: of the change.
      shape: (height, width) of the result.
      fill: the label of pixels that come from outside the image.
      xp: numpy or jax.numpy.

    Returns:
      the type of `labels`, [*shape, ...].
    """
    y, x = xp.arange(shape[0])[:, None], xp.arange(shape[1])[None, :]
    return nearest(labels, [a * y + b * x + c for a, b, c in matrix], fill, xp)


def nearest(labels: Array, sources: Sequence[Array], fill: int, xp: ModuleType = np) -> Array:
    """Returns the labels nearest to some places; those outside the map are `fill`.

    Args:
      labels: [height, width], or with further axes.
      sources: y and x of the places, float [h, w] each.
      fill: see above.
      xp: numpy or jax.numpy.
    """
    height, width = labels.shape[:2]
    y, x = (xp.floor(source + 0.5).astype(np.int32) for source in sources)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    found = labels[xp.clip(y, 0, height - 1), xp.clip(x, 0, width - 1)]
    inside = inside.reshape(inside.shape + (1,) * (labels.ndim - 2))
    return xp.where(inside, found, xp.asarray(fill, labels.dtype))
