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
    candidate = boxes.inside & boxes.single[:, None] & (boxes.off_centre < RADIUS * strides)
    candidate &= (boxes.reach > limits[:, 0]) & (boxes.reach <= limits[:, 1])
    rank = jnp.where(candidate, boxes.rank[:, None], len(objects)).min(0)
    owner = boxes.of_rank(rank)
    claimed = _claimed(boxes, owner, strides, limits)
    index = jnp.where(claimed >= 0, claimed, owner)
    found = index >= 0
    own = objects[jnp.maximum(index, 0)]
    distances = jnp.concatenate([places - own[:, :2], own[:, 2:4] - places], -1)
    centred = jnp.where(claimed >= 0, 1.0, box_losses.centerness(distances))
    crowded = (boxes.inside & boxes.crowd[:, None]).any(0)
    return Assigned(index, distances * found[:, None], ~found & crowded, centred * found)


class _Boxes:
    """M boxes as L places see them: arrays [M, L], and [M] for what is the box's own.

    Whatever is [M, L] goes into sums, minima and the like along an axis, with which XLA computes
    it in one loop. (So does `argmin`, which takes ten times as long on a CPU.)
    """

    def __init__(self, objects: jax.Array, places: np.ndarray):
        y0, x0, y1, x1 = (objects[:, edge, None] for edge in range(4))
        y, x = places.T
        top, left, bottom, right = y - y0, x - x0, y1 - y, x1 - x
        there = ((y1 > y0) & (x1 > x0))[:, 0]
        self.crowd = objects[:, 5] > 0
        self.single = there & ~self.crowd
        self.half = (jnp.maximum(y1 - y0, x1 - x0) / 2)[:, 0]
        self.inside = jnp.minimum(jnp.minimum(top, bottom), jnp.minimum(left, right)) > 0
        self.reach = jnp.maximum(jnp.maximum(top, bottom), jnp.maximum(left, right))
        down, along = abs(top - bottom) / 2, abs(left - right) / 2
        self.off_centre = jnp.maximum(down, along)
        self.squared = down**2 + along**2  # of the distance from the centre
        # Boxes by area, equal ones by row: of some boxes the smallest has the least rank.
        self._order = jnp.argsort(((y1 - y0) * (x1 - x0))[:, 0]).astype(jnp.int32)
        self.rank = jnp.argsort(self._order).astype(jnp.int32)

    def of_rank(self, rank: jax.Array) -> jax.Array:
        """Returns the rows of boxes, int32; -1 for the rank M, which none has."""
        return jnp.append(self._order, -1)[rank]


def _claimed(boxes: _Boxes, owner: jax.Array, strides: np.ndarray, limits: np.ndarray) -> jax.Array:
    """Returns for each place the object that gets it because it has no other; -1 for none.

    Args:
      boxes: see there.
      owner: the object of each place by the rules, int32 [L], or -1.
      strides, limits: see `assigned`.
    """
    none = len(boxes.rank)
    has = _counts(owner, none)
    place = _nearest(boxes, strides, limits)
    rank = jnp.where(boxes.single & (has == 0), boxes.rank, none)
    claimed = boxes.of_rank(jnp.full(len(owner), none).at[place].min(rank, mode='drop'))
    # An object all of whose places are claimed keeps them.
    lost = _counts(jnp.where(claimed >= 0, owner, -1), none)
    spares = (owner < 0) | (has > lost)[jnp.maximum(owner, 0)]
    return jnp.where(spares, claimed, -1)


def _nearest(boxes: _Boxes, strides: np.ndarray, limits: np.ndarray) -> jax.Array:
    """Returns the place that each box gets if it has no other, int32 [M]; L for absent boxes."""
    # Small boxes are for finer maps than those whose range starts above half their longer side.
    levels = np.unique(np.stack([limits[:, 0], strides], -1), axis=0)
    fitting = jnp.where(boxes.half[:, None] > levels[:, 0], levels[:, 1], 0.0).max(1, keepdims=True)
    inside = boxes.inside & (strides <= fitting)
    coarsest = jnp.where(inside, strides, 0).max(1, keepdims=True)
    allowed = jnp.where(coarsest > 0, inside & (strides == coarsest), strides == fitting)
    least = jnp.where(allowed, boxes.squared, jnp.inf).min(1, keepdims=True)
    # Equal but for rounding, by which two computations of one number may differ.
    nearest = allowed & (boxes.squared <= least * (1 + 1e-5))
    return jnp.where(nearest, np.arange(len(strides)), len(strides)).min(1)


def _counts(index: jax.Array, length: int) -> jax.Array:
    """Returns how often each row 0 .. length - 1 occurs in an index, int32 [length]."""
    return jnp.zeros(length + 1, jnp.int32).at[index].add(1)[:length]
