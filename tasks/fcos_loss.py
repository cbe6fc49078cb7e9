"""The three terms of FCOS's loss (Tian et al. 2019, equation 2), with GIoU for the boxes.

The classes of all places by the focal loss, the boxes of places that have an object by GIoU,
weighted by centerness, and the centerness of the same places by cross-entropy.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from data_sources.box_targets import CLASS
from tasks import box_losses
from tasks.assignment import Assigned


def terms(
    outputs: Mapping[str, jax.Array],
    boxes: jax.Array,
    objects: jax.Array,
    found: Assigned,
    alpha: Any,
    gamma: Any,
) -> dict[str, jax.Array]:
    """Returns {term: its sum over each example's places}, float32 [b].

    Args:
      outputs: 'logits' [b, L, classes] and 'centerness' [b, L].
      boxes: float32 [b, L, 4], what each place says.
      objects: float32 [b, M, 6], what is there.
      found: what each place has to learn, [b, L].
      alpha, gamma: of the focal loss.
    """
    positive = found.index >= 0
    row = jnp.maximum(found.index, 0)[..., None]
    own = jnp.take_along_axis(objects, row, axis=1)
    label = own[..., CLASS].astype(jnp.int32)
    wanted = jax.nn.one_hot(label, outputs['logits'].shape[-1]) * positive[..., None]
    focal = box_losses.focal(outputs['logits'], wanted, alpha, gamma) * ~found.ignored[..., None]
    # Where there is no object any box will do, so that its gradient is finite.
    truth = jnp.where(positive[..., None], own[..., :4], jax.lax.stop_gradient(boxes))
    giou = (1 - box_losses.giou(boxes, truth)) * found.centerness
    surprise = optax.sigmoid_binary_cross_entropy(outputs['centerness'], found.centerness)
    return {
        'classification': focal.sum((-2, -1)),
        'boxes': giou.sum(-1),
        'centerness': (surprise * positive).sum(-1),
    }


def weights(found: Assigned) -> dict[str, jax.Array]:
    """Returns {term: the weight of each example}, float32 [b].

    The number of places that have an object; for the boxes the sum of their centerness.
    """
    positive = (found.index >= 0).astype(jnp.float32)
    count = positive.sum(-1)
    return {'classification': count, 'boxes': found.centerness.sum(-1), 'centerness': count}
