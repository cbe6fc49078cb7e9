"""How far boxes and scores are from the truth: focal loss, IoU, GIoU and centerness.

Boxes are (y0, x0, y1, x1) in edges of pixels, and none ends before it starts. All functions are
elementwise and finite, and so are their gradients, also where boxes have no area.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # of NumPy or of JAX
# The area by which is divided at least. Areas are of square pixels; the square of 1 / TINY, which
# is in gradients, fits into float32.
TINY = 1e-7


def focal(
    logits: jax.Array,
    targets: jax.Array,
    alpha: jax.typing.ArrayLike = 0.25,
    gamma: jax.typing.ArrayLike = 2.0,
) -> jax.Array:
    """Returns the focal loss of independent classes, with the shape of `logits`.

    -alpha_t (1 - p_t)^gamma log(p_t), where p_t is the probability of what is true (Lin et al.
    2017, "Focal loss for dense object detection", equation 5).

    Args:
      logits: float32 [...], of any size.
      targets: 1 where the class is there, 0 where not; [...].
      alpha: weight of the classes that are there; that of the others is 1 - alpha. May be traced.
      gamma: by how much what is right already counts less; may be traced.
    """
    surer = logits * (2 * targets - 1)
    surprise = jax.nn.softplus(-surer)  # -log(p_t)
    # log(1 - p_t) is -softplus(surer). A power of 1 - p_t itself has no gradient where that is 0.
    modulation = jnp.exp(-gamma * (surer + surprise))
    return (alpha * targets + (1 - alpha) * (1 - targets)) * modulation * surprise


def giou(boxes: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the generalized IoU of boxes and truth, float32 [...], in [-1, 1].

    IoU less the part of the smallest box around both that is in neither (Rezatofighi et al. 2019,
    "Generalized intersection over union", algorithm 1). Where neither has an area, IoU is 0.

    Args:
      boxes: float32 [..., 4].
      truth: float32 [..., 4], the box that each should be.
    """
    both = _area(_overlap(boxes, truth, jnp))
    union = _area(boxes) + _area(truth) - both
    start, end = jnp.minimum(boxes, truth)[..., :2], jnp.maximum(boxes, truth)[..., 2:]
    around = _area(jnp.concatenate([start, end], -1))
    return _ratio(both, union, jnp) - _ratio(around - union, around, jnp)


def iou(boxes: Array, others: Array, xp: ModuleType = np) -> Array:
    """Returns the IoU of each box with each other box, [..., n, m]; 0 where neither has an area.

    Args:
      boxes: [..., n, 4].
      others: [..., m, 4].
      xp: numpy or jax.numpy.
    """
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    both = _area(_overlap(boxes, others, xp))
    return _ratio(both, _area(boxes) + _area(others) - both, xp)


def centerness(distances: jax.Array) -> jax.Array:
    """Returns how near places are to the centre of their box, float32 [...]: from 0 to 1.

    The square root of the product of the smaller distance by the larger one in both directions
    (Tian et al. 2019, "FCOS", equation 3); 0 on the edges and outside. It is a target and has no
    gradient.

    Args:
      distances: (top, left, bottom, right) float32 [..., 4], from each place to the edges.
    """
    before, after = distances[..., :2], distances[..., 2:]
    nearer = jnp.maximum(jnp.minimum(before, after), 0)
    ratio = nearer / jnp.maximum(jnp.maximum(before, after), TINY)
    return jax.lax.stop_gradient(jnp.sqrt(ratio[..., 0] * ratio[..., 1]))


def _overlap(boxes: Array, others: Array, xp: ModuleType) -> Array:
    """Returns what two boxes share; without area, but in order, if they share nothing."""
    start = xp.maximum(boxes[..., :2], others[..., :2])
    end = xp.minimum(boxes[..., 2:], others[..., 2:])
    return xp.concatenate([start, xp.maximum(start, end)], -1)


def _area(boxes: Array) -> Array:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _ratio(part: Array, whole: Array, xp: ModuleType) -> Array:
    return part / xp.maximum(whole, TINY)
