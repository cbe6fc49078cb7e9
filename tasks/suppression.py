"""From the outputs of a detector to its answer: the best boxes, without those found twice.

Shapes are fixed, and each image is on its own. The result is that of the greedy algorithm: boxes
are looked at from the best on, and one is dropped that overlaps a kept one of its class.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

TINY = 1e-30  # divides where two boxes have no area


def boxes_at(places: jax.Array, distances: jax.Array) -> jax.Array:
    """Returns boxes (y0, x0, y1, x1) float32 [..., L, 4].

    Args:
      places: (y, x) [L, 2], in edges of pixels.
      distances: from the places to the edges (top, left, bottom, right), [..., L, 4].
    """
    before, after = distances[..., :2], distances[..., 2:]
    return jnp.concatenate([places - before, places + after], -1)


@functools.partial(jax.jit, static_argnames=('candidates', 'most'))
def chosen(
    scores: jax.Array,
    boxes: jax.Array,
    shape: Any,
    least_score: jax.typing.ArrayLike,
    iou: jax.typing.ArrayLike,
    candidates: int,
    most: int,
) -> dict[str, jax.Array]:
    """Returns the best boxes of each image, by class without those that overlap a better one.

    Of equal scores the one of the earlier place is better, and of one place that of the earlier
    class. What has no area within the image is not there.

    Args:
      scores: float32 [b, L, classes], above 0.
      boxes: float32 [b, L, 4], in edges of pixels; they are cut off at the edges of the image.
      shape: (height, width) of the images; numbers, or [b, 2].
      least_score: scores have to be above it.
      iou: a box is dropped whose IoU with a kept box of its class is above it.
      candidates: how many of the best pairs (place, class) are looked at.
      most: number of boxes of an answer.

    Returns:
      'boxes' float32 [b, most, 4], 'scores' float32 [b, most], and 'classes' int32 [b, most]: the
      best first; rows that are not used are 0.
    """
    shape = jnp.broadcast_to(jnp.asarray(shape, boxes.dtype), (len(boxes), 2))
    one = functools.partial(_chosen, candidates=candidates, most=most)
    return jax.vmap(one, in_axes=(0, 0, 0, None, None))(scores, boxes, shape, least_score, iou)


def _chosen(
    scores: jax.Array,
    boxes: jax.Array,
    shape: jax.Array,
    least_score: jax.typing.ArrayLike,
    iou: jax.typing.ArrayLike,
    candidates: int,
    most: int,
) -> dict[str, jax.Array]:
    """Returns what `chosen` does, of one image."""
    classes = scores.shape[-1]
    best, pair = jax.lax.top_k(scores.reshape(-1), min(candidates, scores.size))
    own = jnp.clip(boxes[pair // classes], 0, jnp.concatenate([shape, shape]))
    label = (pair % classes).astype(jnp.int32)
    there = (best > least_score) & (own[:, 2:] > own[:, :2]).all(-1)
    kept = _kept(there, _repeats(own, label, iou))
    rank = jnp.where(kept, jnp.arange(len(kept), 0, -1, dtype=jnp.int32), 0)
    used, row = jax.lax.top_k(rank, min(most, len(kept)))
    answer = {'boxes': own, 'scores': best, 'classes': label}
    return {name: _rows(values, row, used > 0, most) for name, values in answer.items()}


def _rows(values: jax.Array, row: jax.Array, used: jax.Array, most: int) -> jax.Array:
    """Returns rows of values [k, ...] as [most, ...]; 0 where they are not used."""
    used = used.reshape(used.shape + (1,) * (values.ndim - 1))
    found = jnp.where(used, values[row], jnp.zeros((), values.dtype))
    return jnp.pad(found, [(0, most - len(row))] + [(0, 0)] * (values.ndim - 1))


def _repeats(boxes: jax.Array, label: jax.Array, iou: jax.typing.ArrayLike) -> jax.Array:
    """Returns whether box j overlaps an earlier box i of its class too much, packed.

    Returns:
      uint32 [k / 32, k], rounded up: box i is bit i % 32 of [i // 32, j].
    """
    count = len(boxes)
    parts = [*jnp.split(boxes, 4, axis=-1), label[:, None], jnp.arange(count)[:, None]]
    y0, x0, y1, x1, own, rank = (part[:, 0] for part in parts)
    # By words, bits and boxes: in this form XLA packs while it compares, and keeps no k x k array.
    top, left, bottom, right, other, place = (_words(part) for part in parts)
    high = jnp.minimum(bottom, y1) - jnp.maximum(top, y0)
    wide = jnp.minimum(right, x1) - jnp.maximum(left, x0)
    both = jnp.maximum(high, 0) * jnp.maximum(wide, 0)
    whole = (bottom - top) * (right - left) + (y1 - y0) * (x1 - x0) - both
    return _packed((both / jnp.maximum(whole, TINY) > iou) & (other == own) & (place < rank))


def _kept(there: jax.Array, repeats: jax.Array) -> jax.Array:
    """Returns what the greedy algorithm keeps, bool [k].

    A box is kept if no kept one before it is too near. Starting from all boxes, this is applied to
    all at once until nothing changes. A box whose fate hangs on a chain of n others is right after
    n + 1 times, and there is one solution only, which is the greedy one: no chain is a circle.

    Args:
      there: bool [k], in the order of the scores.
      repeats: see `_repeats`.
    """

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        fresh = there & ~(repeats & _packed(_words(kept[:, None]))).any(0)
        return fresh, (fresh != kept).any()

    # Made of `there`, so that under shard_map it varies over devices as the later ones do.
    begin = there.any() | True
    return jax.lax.while_loop(lambda state: state[1], again, (there, begin))[0]


def _words(values: jax.Array) -> jax.Array:
    """Returns values [k, n] by words of 32 rows, [k / 32, 32, n], with zeros at the end."""
    padded = jnp.pad(values, [(0, -len(values) % 32), (0, 0)])
    return padded.reshape(-1, 32, values.shape[1])


def _packed(bits: jax.Array) -> jax.Array:
    """Returns bool [words, 32, n] as uint32 [words, n]."""
    value = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.where(bits, value[:, None], jnp.uint32(0)).sum(1, dtype=jnp.uint32)
