"""The state of a run: all that a checkpoint holds, and nothing that can be derived."""

import hashlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

import rng
from training import partition


@flax.struct.dataclass
class TrainState:
    """What one update turns into the next.

    Attributes:
      step: int32 scalar, number of optimiser updates done.
      params: the model's parameters, float32.
      batch_stats: running statistics of the norm layers; {} if it has none.
      opt_state: the optimiser's; frozen parameters have none.
      ema: {'params', 'batch_stats'}, averaged; None if switched off.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None

    def variables(self) -> dict[str, Any]:
        """Returns the variables that evaluation uses: the averaged ones where there are any."""
        return self.ema or {'params': self.params, 'batch_stats': self.batch_stats}


def create(
    model, optimizer, image_shape, seed, use_ema: bool, frozen: frozenset[str] = frozenset()
) -> TrainState:
    """Returns the state before the first update; a pure function that may be jitted.

    Args:
      model: a Linen module.
      optimizer: an optax transformation.
      image_shape: (height, width, channels).
      seed: uint32 scalar.
      use_ema: whether to keep averaged weights.
      frozen: paths of the parameters that are not trained.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init({'params': rng.stream(seed, 'init')}, images)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    ema = {'params': params, 'batch_stats': batch_stats} if use_ema else None
    opt_state = optimizer.init(partition.trained_part(params, frozen))
    return TrainState(jnp.int32(0), params, batch_stats, opt_state, ema)


def named_leaves(tree) -> list[tuple[str, Any]]:
    """Returns [(path, leaf)] sorted by path, such as 'conv1/kernel'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(jax.tree_util.keystr(p, simple=True, separator='/'), x) for p, x in leaves]
    return sorted(named, key=lambda pair: pair[0])


def sha256(tree) -> str:
    """Returns the SHA-256 of a tree's bytes in sorted path order, path and type included."""
    digest = hashlib.sha256()
    for path, leaf in named_leaves(tree):
        array = np.asarray(leaf)
        digest.update(f'{path} {array.dtype.str} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
