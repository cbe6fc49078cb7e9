"""The state of a run: everything that a checkpoint holds, and nothing that can be derived."""

import hashlib
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rng
from training import partition


@flax.struct.dataclass
class TrainState:
    """The state that an update maps to the next one.

    Attributes:
      step: int32 scalar, number of optimizer updates done.
      params: the model's parameters, float32.
      batch_stats: running statistics of the norm layers; {} if the model has none.
      opt_state: the state of the optimizer; frozen parameters have none.
      ema: {'params', 'batch_stats'}, averaged; None if averaging is switched off.
    """

    step: jax.typing.ArrayLike
    params: optax.Params
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    ema: dict[str, Any] | None = None

    def variables(self) -> dict[str, Any]:
        """Returns the variables that evaluation uses: averaged ones if the run keeps them."""
        return self.ema or {'params': self.params, 'batch_stats': self.batch_stats}


def create(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: jax.typing.ArrayLike,
    use_ema: bool,
    frozen: frozenset[str] = frozenset(),
) -> TrainState:
    """Returns the state before the first update; a pure function that may be jitted.

    Args:
      model: the network.
      optimizer: an optax transformation.
      image_shape: (height, width, channels).
      seed: uint32 scalar; may be traced.
      use_ema: whether to keep averaged weights.
      frozen: paths of the parameters that are not trained.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init({'params': rng.stream(seed, 'init')}, images)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    ema = {'params': params, 'batch_stats': batch_stats} if use_ema else None
    opt_state = optimizer.init(partition.trained_part(params, frozen))
    return TrainState(jnp.int32(0), params, batch_stats, opt_state, ema)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Returns [(path, leaf)] sorted by path, such as 'conv1/kernel'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(jax.tree_util.keystr(p, simple=True, separator='/'), x) for p, x in leaves]
    return sorted(named, key=lambda pair: pair[0])


def sha256(tree: Any) -> str:
    """Returns the SHA-256 of a tree of arrays, in the order of their paths.

    The paths, types and shapes of the arrays are part of it.
    """
    digest = hashlib.sha256()
    for path, leaf in named_leaves(tree):
        array = np.asarray(leaf)
        digest.update(f'{path} {array.dtype.str} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
