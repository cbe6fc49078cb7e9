"""Losses and overlaps of boxes (y0, x0, y1, x1); elementwise, without any sum over examples."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LEAST = 1e-6  # square pixels; keeps a division by an empty area finite


def focal(logits: jax.Array, targets: jax.Array, alpha: Any, gamma: Any) -> jax.Array:
    """Returns the focal loss of each logit (Lin et al. 2017, "Focal loss", equation 5), in nats.

    Args:
      logits: of the probability of each class, any shape.
      targets: 0 or 1, of the same shape.
      alpha: weight of the targets that are 1; the others have 1 - alpha.
      gamma: how much less counts what is right already; 0: cross-entropy.
    """
    surprise = binary_cross_entropy(logits, targets)
    # 1 less the probability of what is true, as an exponential, whose gradient is finite.
    wrong = jnp.exp(gamma * jax.nn.log_sigmoid(logits * (1 - 2 * targets)))
    return (alpha * targets + (1 - alpha) * (1 - targets)) * wrong * surprise


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the cross-entropy of probabilities that are given as logits, in nats."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-abs(logits)))


def giou(boxes: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the generalized IoU [...] of pairs of boxes [..., 4] (Rezatofighi et al. 2019).

    It is the IoU, less the fraction of the box around both that neither covers: from -1 to 1.
    """
    both, either = _areas(boxes, truth, jnp)
    around = jnp.maximum(boxes[..., 2:], truth[..., 2:]) - jnp.minimum(
        boxes[..., :2], truth[..., :2]
    )
    around = around[..., 0] * around[..., 1]
    return both / (either + _LEAST) - (around - either) / (around + _LEAST)


def iou(boxes: Any, others: Any, xp: ModuleType = np) -> Any:
    """Returns the IoU [..., n, m] of each of boxes [..., n, 4] with each of others [..., m, 4]."""
    both, either = _areas(boxes[..., :, None, :], others[..., None, :, :], xp)
    return both / xp.maximum(either, _LEAST)


def _areas(boxes: Any, others: Any, xp: ModuleType) -> tuple[Any, Any]:
    """Returns the areas of intersection and union."""
    sides = xp.minimum(boxes[..., 2:], others[..., 2:]) - xp.maximum(
        boxes[..., :2], others[..., :2]
    )
    sides = xp.maximum(sides, 0)
    both = sides[..., 0] * sides[..., 1]
    return both, area(boxes) + area(others) - both


def boxes_at(places: Any, distances: jax.Array) -> jax.Array:
    """Returns the boxes [..., L, 4] at places [L, 2] with distances [..., L, 4] to their edges."""
    centres = jnp.concatenate([jnp.asarray(places)] * 2, axis=-1)
    return centres + distances * jnp.array([-1.0, -1.0, 1.0, 1.0])


def area(boxes: Any) -> Any:
    """Returns the areas [...] of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def centerness(distances: jax.Array) -> jax.Array:
    """Returns how near places are to the centres of their boxes (Tian et al. 2019, equation 3).

    1 at the centre, 0 at an edge and outside.

    Args:
      distances: [..., 4] to the top, left, bottom and right edge.
    """
    low = jnp.maximum(jnp.minimum(distances[..., :2], distances[..., 2:]), 0)
    high = jnp.maximum(jnp.maximum(distances[..., :2], distances[..., 2:]), _LEAST)
    return jnp.sqrt(low[..., 0] / high[..., 0] * low[..., 1] / high[..., 1])
