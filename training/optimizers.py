"""Optimisers and schedules: optax's transformations in one documented order.

The order of an update: reduce over devices, average over micro-batches, clip, transform (with
weight decay before it as L2 for sgd, adam, rmsprop and lars, after it as decoupled decay for adamw
and lamb), trust ratio, learning rate times the parameter's own factor, then the moving average of
the weights. The learning rate comes last, also for lars and sgd: momentum is of gradients, not of
steps, as in PyTorch. So a factor scales decoupled decay, too, and adam's state does not know of it.

Frozen parameters take no part in any of this: they have no gradient, so they do not count in the
norm that is clipped, no decay and no state, and their average is themselves.

The chain is built anew inside the traced step, so that rates may be traced numbers: one compiled
step serves a whole population of hyperparameters.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Each optimiser's options with their defaults: the ones that its paper or PyTorch uses.
OPTIONS: dict[str, dict[str, Any]] = {
    'sgd': {'momentum': 0.9, 'nesterov': True},
    'adam': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8},
    'adamw': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8},
    'lamb': {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-6},
    'lars': {'momentum': 0.9, 'nesterov': False, 'trust_coefficient': 0.001},
    'rmsprop': {'decay': 0.9, 'momentum': 0.0, 'epsilon': 1e-8},
}
COMMON = ('name', 'learning_rate', 'weight_decay', 'clip_norm')


def options(optimizer_config) -> dict[str, Any]:
    """Returns the options of the configured optimiser, its defaults filled in."""
    defaults = OPTIONS[optimizer_config.name]
    given = {name: optimizer_config[name] for name in defaults}
    return {name: defaults[name] if value is None else value for name, value in given.items()}


def is_kernel(params):
    """Returns a tree of bools: True for kernels, which decay; False for biases and norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def make(name: str, hyper: dict[str, Any], nesterov: bool = False, clip: bool = False):
    """Returns the optax transformation, all but the learning rate.

    Args:
      name: a key of OPTIONS.
      hyper: 'weight_decay' and the optimiser's options; numbers or traced scalars.
      nesterov: for sgd and lars.
      clip: whether hyper['clip_norm'] limits the gradient's global norm.
    """
    decay = optax.add_decayed_weights(hyper['weight_decay'], mask=is_kernel)
    parts = [optax.clip_by_global_norm(hyper['clip_norm'])] if clip else []
    if name in ('adam', 'adamw', 'lamb'):
        adam = optax.scale_by_adam(hyper['beta1'], hyper['beta2'], hyper['epsilon'])
        parts += [decay, adam] if name == 'adam' else [adam, decay]
        if name == 'lamb':
            # As in the authors' and timm's programs: what does not decay keeps the plain rate.
            parts.append(optax.masked(optax.scale_by_trust_ratio(), is_kernel))
    elif name == 'sgd':
        parts += [decay, optax.trace(hyper['momentum'], nesterov)]
    elif name == 'lars':
        trust = optax.scale_by_trust_ratio(trust_coefficient=hyper['trust_coefficient'])
        # You et al. 2017: biases and norms keep the plain rate. So does, for its first update, a
        # kernel of norm 0, as the new head is after config.init_from: mind large rates.
        parts += [decay, optax.masked(trust, is_kernel)]
        parts.append(optax.trace(hyper['momentum'], nesterov))
    elif name == 'rmsprop':
        parts += [decay, optax.scale_by_rms(hyper['decay'], hyper['epsilon'])]
        parts.append(optax.trace(hyper['momentum']))
    else:
        raise ValueError(f'unknown optimizer {name}')
    return optax.chain(*parts)


def apply_updates(params, updates, rate, factors: Mapping[str, float]):
    """Returns params - rate x factor x updates.

    Args:
      params, updates: trees alike.
      rate: scalar, may be traced.
      factors: {path: factor} where it is not 1.
    """

    def leaf(path, param, update):
        factor = factors.get(jax.tree_util.keystr(path, simple=True, separator='/'))
        return param - (rate if factor is None else rate * factor) * update

    return jax.tree_util.tree_map_with_path(leaf, params, updates)


def schedule(config, steps: int, steps_per_epoch: float) -> Callable[[jax.Array], jax.Array]:
    """Returns shape(step) -> share of the peak learning rate for the update after `step` updates.

    A static shape, times a rate that may be traced. The first update of a warm-up of w updates has
    1/w of the peak, the w-th the whole. A cosine then falls towards `schedule.final`, which it
    reaches after the last update, as in optax and PyTorch: a final rate of 0 wastes no update.
    """
    unit = steps_per_epoch if config.unit == 'epochs' else 1.0
    warmup = round(config.warmup * unit)
    milestones = np.array([round(m * unit) for m in config.milestones], np.int32)

    def shape(step):
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


def average(decay: float, step, old, new):
    """Returns the exponential moving average after `step` updates.

    The decay starts small, min(decay, (1 + step) / (10 + step)), so that the first weights, which
    are random, are soon forgotten.
    """
    step = jnp.asarray(step, jnp.float32)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda o, n: decay * o + (1 - decay) * n, old, new)
