"""Which place of a detector's maps learns which object (FCOS, Tian et al. 2019)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_sources.box_targets import CROWD
from tasks.box_losses import area

RADIUS = 1.5  # strides from the centre of a box, within which places learn it
LARGEST = 8  # strides: the largest distance to an edge that a map is for


class Assigned(NamedTuple):
    """What the places of one image learn.

    Attributes:
      index: int32 [L], the row of the object; -1 for none.
      distances: float32 [L, 4], from the place to that object's top, left, bottom and right edge; 0
        for none.
      ignored: bool [L], whether it is not known what is there.
    """

    index: jax.Array
    distances: jax.Array
    ignored: jax.Array


def assigned(objects: jax.Array, places: np.ndarray, strides: np.ndarray) -> Assigned:
    """Returns what each place learns.

    A place learns an object if it lies inside its box, at most 1.5 strides from the box's centre
    along each axis ("center sampling" of the authors' later version), and if its largest distance
    to an edge is one that its map is for: more than 8 strides of the next finer map, and no more
    than 8 strides of its own. Of several objects it learns the smallest. An object that would have
    no place by these rules gets the one nearest to its centre on the map for its size, so that
    every object is learned; the paper has no such rule. Places in a crowd that learn no object are
    ignored.

    Args:
      objects: float32 [M, 6] of one image; see data_sources/box_targets.py.
      places: float32 [L, 2], in edges of pixels, the finest map first.
      strides: int32 [L].
    """
    boxes = objects[:, :4]
    there = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    crowd = objects[:, CROWD] > 0
    wanted = there & ~crowd
    y, x = (jnp.asarray(places[:, axis])[:, None] for axis in (0, 1))
    edges = (y - boxes[:, 0], x - boxes[:, 1], boxes[:, 2] - y, boxes[:, 3] - x)
    distances = jnp.stack(edges, -1)  # [L, M, 4]
    inside = distances.min(-1) > 0
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    off = jnp.maximum(abs(y - centre[:, 0]), abs(x - centre[:, 1]))
    low, high = (jnp.asarray(limit)[:, None] for limit in _ranges(strides))
    reach = distances.max(-1)
    fits = (reach > low) & (reach <= high)
    learns = inside & (off <= RADIUS * strides[:, None]) & fits & wanted
    # The nearest place on the map for half of the longer side.
    half = (boxes[:, 2:] - boxes[:, :2]).max(-1) / 2
    own_map = (half > low) & (half <= high)
    nearest = jnp.where(own_map, off, jnp.inf).argmin(0)
    alone = jax.nn.one_hot(nearest, len(places), dtype=bool, axis=0)
    learns |= alone & wanted & ~learns.any(0)
    # The smallest first; equal ones in the order of the rows.
    size = jnp.where(learns, area(boxes), jnp.inf)
    row = size.argmin(-1).astype(jnp.int32)
    taken = learns.any(-1)
    own = jnp.take_along_axis(distances, row[:, None, None], axis=1)[:, 0]
    return Assigned(
        jnp.where(taken, row, -1),
        jnp.where(taken[:, None], own, 0.0),
        (inside & crowd & there).any(-1) & ~taken,
    )


def _ranges(strides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances (more than, at most) that the map of each place is for."""
    levels = np.unique(strides)
    finer = dict(zip(levels[1:], levels[:-1], strict=True))
    low = np.array([LARGEST * finer[s] if s in finer else 0 for s in levels], np.float32)
    high = np.array([LARGEST * s for s in levels[:-1]] + [np.inf], np.float32)
    number = np.searchsorted(levels, strides)
    return low[number], high[number]
