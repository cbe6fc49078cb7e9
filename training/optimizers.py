"""Optimizers and schedules: optax's transformations in one documented order.

The order of an update:

1. gradients are summed over devices and micro-batches, and divided by the weight;
2. the global norm is clipped;
3. weight decay is added as L2 to the gradient (sgd, adam, rmsprop, lars);
4. the optimizer transforms the gradient;
5. weight decay is added to the transformed gradient, decoupled from it (adamw, lamb);
6. the trust ratio scales the update of each kernel (lamb; lars has it between 3 and 4);
7. the update is multiplied by the learning rate and the parameter's own factor, and subtracted;
8. the moving average of the weights follows.

The learning rate comes last, also for lars and sgd: momentum accumulates gradients, not steps, as
in PyTorch. A parameter's factor therefore scales decoupled decay as well, and the state of adam
does not depend on it.

Frozen parameters take no part in any of this. They have no gradient, so they do not count in the
clipped norm; they have no decay and no state; and their average is the parameter itself.

The chain is built inside the traced step, so that its numbers may be traced: one compiled step
serves a whole population of hyperparameters.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from training.collectives import Tree

# The options of each optimizer with their defaults, which are those of its paper or of PyTorch.
OPTIONS: dict[str, dict[str, Any]] = {
    'sgd': {'momentum': 0.9, 'nesterov': True},
    'adam': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8},
    'adamw': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8},
    'lamb': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-6},
    'lars': {'momentum': 0.9, 'nesterov': False, 'trust_coefficient': 0.001},
    'rmsprop': {'decay': 0.9, 'momentum': 0.0, 'epsilon': 1e-8, 'epsilon_in_root': False},
}
COMMON = ('name', 'learning_rate', 'weight_decay', 'clip_norm')


def options(optimizer_config: ConfigDict) -> dict[str, Any]:
    """Returns the options of the configured optimizer, with defaults for those not given."""
    defaults = OPTIONS[optimizer_config.name]
    given = {name: optimizer_config[name] for name in defaults}
    return {name: defaults[name] if value is None else value for name, value in given.items()}


def is_kernel(params: optax.Params) -> optax.Params:
    """Returns a tree of bools: True for kernels, which decay; False for biases and norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def make(
    name: str,
    hyper: Mapping[str, Any],
    nesterov: bool = False,
    clip: bool = False,
    epsilon_in_root: bool = False,
) -> optax.GradientTransformation:
    """Returns the optax transformation without the learning rate.

    Args:
      name: a key of OPTIONS.
      hyper: 'weight_decay' and the optimizer's options; numbers or traced scalars.
      nesterov: whether momentum is Nesterov's; for sgd and lars.
      clip: whether hyper['clip_norm'] limits the gradient's global norm.
      epsilon_in_root: whether rmsprop adds epsilon to the mean of squares, and not to its root.
    """
    decay = optax.add_decayed_weights(hyper['weight_decay'], mask=is_kernel)
    chain = [optax.clip_by_global_norm(hyper['clip_norm'])] if clip else []
    if name in ('adam', 'adamw', 'lamb'):
        adam = optax.scale_by_adam(hyper['beta1'], hyper['beta2'], hyper['epsilon'])
        chain += [decay, adam] if name == 'adam' else [adam, decay]
        if name == 'lamb':
            # As in the authors' and timm's programs, biases and norms have no trust ratio.
            chain.append(optax.masked(optax.scale_by_trust_ratio(), is_kernel))
    elif name == 'sgd':
        chain += [decay, optax.trace(hyper['momentum'], nesterov)]
    elif name == 'lars':
        trust = optax.scale_by_trust_ratio(trust_coefficient=hyper['trust_coefficient'])
        # Biases and norms have no trust ratio (You et al. 2017). A kernel of norm 0 has none
        # either, such as the new head in its first update after config.init_from: its update is
        # then as large as the learning rate says.
        chain += [decay, optax.masked(trust, is_kernel)]
        chain.append(optax.trace(hyper['momentum'], nesterov))
    elif name == 'rmsprop':
        scale = optax.scale_by_rms(hyper['decay'], hyper['epsilon'], eps_in_sqrt=epsilon_in_root)
        chain += [decay, scale, optax.trace(hyper['momentum'])]
    else:
        raise ValueError(f'unknown optimizer {name}')
    return optax.chain(*chain)


def apply_updates(
    params: optax.Params,
    updates: optax.Updates,
    rate: jax.typing.ArrayLike,
    factors: Mapping[str, float],
) -> optax.Params:
    """Returns params - rate x factor x updates.

    Args:
      params, updates: trees of the same structure.
      rate: learning rate of this update; a scalar that may be traced.
      factors: {path: factor}; factors of 1 are left out.
    """

    def updated(path: tuple[Any, ...], param: jax.Array, update: jax.Array) -> jax.Array:
        factor = factors.get(jax.tree_util.keystr(path, simple=True, separator='/'))
        return param - (rate if factor is None else rate * factor) * update

    return jax.tree_util.tree_map_with_path(updated, params, updates)


def schedule(
    config: ConfigDict, steps: int, steps_per_epoch: float
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Returns shape(step) -> fraction of the peak learning rate, for the update after `step` ones.

    The shape is static and is multiplied by a peak rate that may be traced. In a warm-up of w
    updates, update k has k/w of the peak. A cosine then decreases to `schedule.final`, which it
    would reach after the last update, as in optax and PyTorch. So no update is wasted if that is 0.

    Args:
      config: the schedule's part of the configuration.
      steps: length of the run in updates.
      steps_per_epoch: updates in one epoch.
    """
    unit = steps_per_epoch if config.unit == 'epochs' else 1.0
    warmup = round(config.warmup * unit)
    milestones = np.array([round(m * unit) for m in config.milestones], np.int32)

    def shape(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.int32)
        if config.name == 'cosine':
            progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
            cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
            value = config.final + (1 - config.final) * cosine
        elif config.name == 'step':
            value = config.factor ** jnp.sum(step >= milestones).astype(jnp.float32)
        else:
            value = jnp.float32(1.0)
        rise = (step + 1) / warmup if warmup else 1.0
        return jnp.where(step < warmup, rise, value).astype(jnp.float32)

    return shape


def average(decay: jax.typing.ArrayLike, step: jax.typing.ArrayLike, old: Tree, new: Tree) -> Tree:
    """Returns the exponential moving average after one more update.

    The decay starts small, at min(decay, (1 + step) / (10 + step)), so that the random first
    weights are soon forgotten.

    Args:
      decay: of the average, in [0, 1); may be traced.
      step: number of updates before this one.
      old: the average before it.
      new: the values after it.
    """
    step = jnp.asarray(step, jnp.float32)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda o, n: decay * o + (1 - decay) * n, old, new)
