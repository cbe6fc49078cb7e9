"""From what a detector says at each place to its answer: scores, the best places, one box each."""

import jax
import jax.numpy as jnp

from tasks.box_losses import iou


def detected(
    logits: jax.Array,
    centerness: jax.Array,
    boxes: jax.Array,
    size: jax.Array,
    least_score: float,
    most_overlap: float,
    candidates: int,
    most: int,
) -> dict[str, jax.Array]:
    """Returns the answer for each image, the best box first.

    The score of a class at a place is the geometric mean of its probability and the centerness
    (Tian et al. 2019; the root is that of the authors' later version). The best pairs of place and
    class are taken, their boxes cut off at the image's edges, and of boxes of one class that
    overlap the best are kept.

    Args:
      logits: float32 [b, L, classes].
      centerness: float32 [b, L], logits.
      boxes: float32 [b, L, 4].
      size: float32 [2], (height, width) of the image.
      least_score: pairs with this score or less are dropped.
      most_overlap: IoU with a better box of the class above which a box is dropped.
      candidates: pairs that are taken.
      most: boxes that are returned.

    Returns:
      'boxes' float32 [b, most, 4], 'scores' float32 [b, most], 'classes' int32 [b, most]; what is
      not used is 0.
    """
    classes = logits.shape[-1]
    probability = jax.nn.sigmoid(logits) * jax.nn.sigmoid(centerness)[..., None]
    scores = jnp.sqrt(probability).reshape(len(logits), -1)
    scores, pair = jax.lax.top_k(scores, min(candidates, scores.shape[1]))
    place, label = pair // classes, (pair % classes).astype(jnp.int32)
    taken = jnp.take_along_axis(boxes, place[..., None], axis=1)
    taken = jnp.clip(taken, 0, jnp.concatenate([size, size]))
    kept = (scores > least_score) & jax.vmap(suppressed, (0, 0, 0, None))(
        taken, scores > least_score, label, most_overlap
    )
    # The kept ones first, in their order.
    order = jnp.argsort(~kept, axis=-1, stable=True)[:, :most]
    found = {'boxes': taken, 'scores': scores, 'classes': label}
    return {name: _rows(values, kept, order, most) for name, values in found.items()}


def suppressed(
    boxes: jax.Array, there: jax.Array, labels: jax.Array, most_overlap: float
) -> jax.Array:
    """Returns which boxes are kept, bool [n]: greedily, the first of the list first.

    A box is dropped if its IoU with a kept one before it, of its own class, is above a limit. That
    is decided for all at once and again until nothing changes: after k rounds the decisions that
    hang on chains of k boxes are final, so that the result is that of one after the other.

    Args:
      boxes: float32 [n, 4], the best first.
      there: bool [n]; the others are never kept.
      labels: int32 [n].
      most_overlap: the limit.
    """
    count = len(boxes)
    earlier = jnp.tri(count, count, -1, dtype=bool)
    same = labels[:, None] == labels[None, :]
    against = (iou(boxes, boxes, jnp) > most_overlap) & earlier & same

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, kept = state
        return kept, there & ~(against & kept).any(-1)

    start = again((there, there))
    return jax.lax.while_loop(lambda state: (state[0] != state[1]).any(), again, start)[1]


def _rows(values: jax.Array, kept: jax.Array, order: jax.Array, most: int) -> jax.Array:
    """Returns the kept values in their order, and zeros after them."""
    further = (1,) * (values.ndim - 2)
    values = values * kept.reshape(*kept.shape, *further)
    values = jnp.take_along_axis(values, order.reshape(*order.shape, *further), axis=1)
    missing = most - values.shape[1]
    return jnp.pad(values, [(0, 0), (0, missing), *[(0, 0)] * (values.ndim - 2)])
