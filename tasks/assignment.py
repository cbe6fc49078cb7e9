"""Which place of the maps learns which object.

The rules of FCOS (Tian et al. 2019, and "FCOS: a simple and strong anchor-free object detector",
2021, section 3): a place learns a box that it lies in, near the centre, if the box is of the size
that its map is for. One rule is ours: objects for which that leaves no place get one all the same,
so that those are learned that are smaller than the distance of places, or thin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tasks import box_losses

# Half the side of the square around an object's centre in which places learn it, in strides.
RADIUS = 1.5
# The largest distance from a place to an edge of its object, in strides of the map. The one from
# which a map's objects start is that of the next finer map.
REACH = 8


class Assigned(NamedTuple):
    """What each of L places has to learn.

    Attributes:
      index: int32 [L], the row of its object; -1 for none.
      distances: float32 [L, 4], from the place to the edges of that object (top, left, bottom,
        right), in pixels; negative beyond an edge; 0 where there is no object.
      ignored: bool [L], whether it has no object and lies in a box that holds several: whatever is
        found there is neither right nor wrong.
      centerness: float32 [L], of the place in its object's box, as box_losses.centerness has it;
        1 for a place that an object has got because it has no other, and 0 where there is none.
    """

    index: jax.Array
    distances: jax.Array
    ignored: jax.Array
    centerness: jax.Array


def ranges(strides: np.ndarray) -> np.ndarray:
    """Returns for each place which objects its map is for, float32 [L, 2].

    The largest distance from the place to an edge is above the first number, and not above the
    second; the finest map starts from 0, and the coarsest one has no end.

    Args:
      strides: of the map of each place, int [L].
    """
    levels = np.unique(strides)
    ends = np.append(REACH * levels[:-1].astype(np.float32), np.float32(np.inf))
    starts = np.append(np.float32(0), ends[:-1])
    level = np.searchsorted(levels, strides)
    return np.stack([starts[level], ends[level]], -1)


def assigned(
    objects: jax.Array,
    places: np.ndarray,
    strides: np.ndarray,
    limits: np.ndarray | None = None,
) -> Assigned:
    """Returns which object each place of one image learns.

    A place can learn an object if it lies in its box and less than 1.5 strides from its centre in
    both directions, and if the largest distance to an edge is in the range of the place's map. Of
    several objects it learns the one with the smallest area, and of equal ones the first.

    An object that has no place after that gets the one nearest to its centre: on the map for its
    size, or where none of that map is in its box, on the coarsest finer map of which one is; if
    there is none either, the place does not lie in the box. It is taken from another object,
    but not the last place of it; of several objects, the smallest gets it.

    Boxes of several objects are never learned.

    Args:
      objects: (y0, x0, y1, x1, class, crowd) float32 [M, 6], in edges of pixels. Rows without area
        are not there; crowd is above 0 for a box that holds several objects.
      places: (y, x) float32 [L, 2], in edges of pixels.
      strides: of the map of each place, int [L].
      limits: what `ranges` gives for the strides; None for just that.
    """
    limits = ranges(strides) if limits is None else limits
    boxes = _Boxes(objects, places)
    candidate = boxes.near(RADIUS * strides) & boxes.inside & boxes.single
    candidate &= (boxes.reach > limits[:, :1]) & (boxes.reach <= limits[:, 1:])
    owner = _smallest(candidate, boxes.area)
    claimed = _claimed(boxes, owner, strides, limits)
    index = jnp.where(claimed >= 0, claimed, owner)
    found = index >= 0
    own = objects[jnp.maximum(index, 0)]
    distances = jnp.concatenate([places - own[:, :2], own[:, 2:4] - places], -1) * found[:, None]
    centred = jnp.where(claimed >= 0, 1.0, box_losses.centerness(distances)) * found
    ignored = ~found & (boxes.inside & boxes.crowd).any(1)
    return Assigned(index, distances, ignored, centred)


class _Boxes:
    """M boxes as L places see them: arrays [L, M], and [M] for what is the box's own.

    No array has an axis of four edges beside those two.
    """

    def __init__(self, objects: jax.Array, places: np.ndarray):
        y0, x0, y1, x1 = (objects[:, edge] for edge in range(4))
        y, x = jnp.asarray(places[:, :1]), jnp.asarray(places[:, 1:])
        top, left, bottom, right = y - y0, x - x0, y1 - y, x1 - x
        there = (y1 > y0) & (x1 > x0)
        self.crowd = there & (objects[:, 5] > 0)
        self.single = there & ~self.crowd
        self.area = (y1 - y0) * (x1 - x0)
        self.half = jnp.maximum(y1 - y0, x1 - x0) / 2
        self.inside = jnp.minimum(jnp.minimum(top, bottom), jnp.minimum(left, right)) > 0
        self.reach = jnp.maximum(jnp.maximum(top, bottom), jnp.maximum(left, right))
        self.down, self.along = (top - bottom) / 2, (left - right) / 2  # from the centre

    def near(self, radius: np.ndarray) -> jax.Array:
        """Returns which places [L, M] are less than a radius [L] from the centre of a box."""
        return jnp.maximum(abs(self.down), abs(self.along)) < radius[:, None]


def _smallest(chosen: jax.Array, area: jax.Array) -> jax.Array:
    """Returns for each place the smallest of its chosen boxes [L, M], int32 [L]; -1 for none."""
    best = jnp.where(chosen, area, jnp.inf).argmin(1).astype(jnp.int32)
    return jnp.where(chosen.any(1), best, -1)


def _claimed(boxes: _Boxes, owner: jax.Array, strides: np.ndarray, limits: np.ndarray) -> jax.Array:
    """Returns for each place the object that gets it because it has no other; -1 for none.

    Args:
      boxes: see there.
      owner: the object of each place by the rules, int32 [L], or -1.
      strides, limits: see `assigned`.
    """
    rows = jnp.arange(len(boxes.area), dtype=jnp.int32)
    owned = owner[:, None] == rows
    has = owned.sum(0)
    stride = strides.astype(np.float32)[:, None]
    # A box that is small for a map counts with coarser ones alone where it starts.
    fitting = jnp.where(boxes.half > limits[:, :1], stride, 0.0)
    held = (fitting * boxes.inside).max(0)
    level = jnp.where(held > 0, held, fitting.max(0))
    allowed = (stride == level) & (boxes.inside | (held == 0))
    far = jnp.where(allowed, boxes.down**2 + boxes.along**2, jnp.inf)
    place = far.argmin(0)
    claims = (jnp.arange(len(strides))[:, None] == place) & (boxes.single & (has == 0))
    claimed = _smallest(claims, boxes.area)
    # An object whose places are all claimed keeps them.
    lost = (owned & (claimed >= 0)[:, None]).sum(0)
    spares = (has > lost)[jnp.maximum(owner, 0)] | (owner < 0)
    return jnp.where(spares, claimed, -1)
