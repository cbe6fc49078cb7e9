"""Losses of segmentation: sums over pixels or pictures, and the weights by which they are divided.

LOSSES has them by name. All take float32 logits [b, h, w, classes], the classes of the pixels int32
[b, h, w], and `known` float32 [b, h, w], which is 0 for pixels that count for nothing: void ones
and those of padding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Loss(NamedTuple):
    """A loss.

    Attributes:
      total: its sum over a batch; see the functions of this file.
      weight: a function of (classes, known, class_weights): what the sum is divided by.
    """

    total: Callable[..., jax.Array]
    weight: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def pixels(classes: jax.Array, known: jax.Array, class_weights: jax.Array) -> jax.Array:
    """Returns the sum of the weights of the known pixels' classes."""
    return (known * class_weights[classes]).sum()


def pictures(classes: jax.Array, known: jax.Array, class_weights: jax.Array) -> jax.Array:
    """Returns the number of pictures with a known pixel."""
    del classes, class_weights
    return known.any((1, 2)).astype(known.dtype).sum()


def cross_entropy(
    logits: jax.Array,
    classes: jax.Array,
    known: jax.Array,
    class_weights: jax.Array,
    label_smoothing: jax.typing.ArrayLike = 0.0,
    focal_gamma: jax.typing.ArrayLike = 0.0,
) -> jax.Array:
    """Returns the weighted sum of the cross-entropies of all pixels; its weight is `pixels`.

    With weights and smoothing it is that of torch.nn.CrossEntropyLoss: each class's part of a
    smoothed target has the weight of that class.

    Args:
      logits, classes, known: see the head of this file.
      class_weights: float32 [classes].
      label_smoothing: fraction of the target that is spread over all classes; may be traced.
      focal_gamma: not used here.
    """
    del focal_gamma
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, classes[..., None], axis=-1)[..., 0]
    weights = known * class_weights[classes]
    spread = (log_p * class_weights).mean(-1)
    loss = -(1 - label_smoothing) * weights * own - label_smoothing * known * spread
    return loss.sum()


def focal(
    logits: jax.Array,
    classes: jax.Array,
    known: jax.Array,
    class_weights: jax.Array,
    label_smoothing: jax.typing.ArrayLike = 0.0,
    focal_gamma: jax.typing.ArrayLike = 2.0,
) -> jax.Array:
    """Returns the weighted sum of the focal losses of all pixels; its weight is `pixels`.

    (1 - p)^gamma times the cross-entropy, where p is the probability of the pixel's class (Lin et
    al. 2017, "Focal loss for dense object detection", section 3.2), for a softmax over classes.

    Args:
      logits, classes, known, class_weights: as for `cross_entropy`.
      label_smoothing: not used here.
      focal_gamma: gamma, at least 0; may be traced. With 0 it is the cross-entropy.
    """
    del label_smoothing
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, classes[..., None], axis=-1)[..., 0]
    weights = known * class_weights[classes]
    # The gradient of a power is not finite at 0, where a pixel's probability is rounded to 1.
    missing = jnp.maximum(-jnp.expm1(own), 1e-6)
    return -(weights * missing**focal_gamma * own).sum()


def dice(
    logits: jax.Array,
    classes: jax.Array,
    known: jax.Array,
    class_weights: jax.Array,
    label_smoothing: jax.typing.ArrayLike = 0.0,
    focal_gamma: jax.typing.ArrayLike = 0.0,
) -> jax.Array:
    """Returns the sum over pictures of 1 - soft Dice coefficient; its weight is `pictures`.

    The coefficient of a class is (2 |p t| + 2) / (|p| + |t| + 2), where p is its probability and t
    is 1 at its pixels (Milletari et al. 2016, "V-Net", section 3). A picture's is the weighted mean
    over all classes. It equals optax.losses.dice_loss where every pixel is known; a pixel that is
    not adds to none of the sums. A picture without a known pixel does not count.

    Args:
      logits, classes, known, class_weights: as for `cross_entropy`.
      label_smoothing, focal_gamma: not used here.
    """
    del label_smoothing, focal_gamma
    probabilities = jax.nn.softmax(logits) * known[..., None]
    targets = jax.nn.one_hot(classes, logits.shape[-1]) * known[..., None]
    both = (probabilities * targets).sum((1, 2))
    either = (probabilities + targets).sum((1, 2))
    coefficient = (2 * both + 2) / (either + 2)
    mean = (coefficient * class_weights).sum(-1) / class_weights.sum()
    counts = known.any((1, 2)).astype(logits.dtype)
    return (counts * (1 - mean)).sum()


LOSSES: dict[str, Loss] = {
    'cross_entropy': Loss(cross_entropy, pixels),
    'dice': Loss(dice, pictures),
    'focal': Loss(focal, pixels),
}
