"""One update and one evaluation call, for one device: run as they are, or mapped over an axis.

    state(t+1) = step(state(t), batch(config, t), keys(config, t))

`axis` names the mapped axis under pmap and shard_map; None means that this device has the whole
batch (plain jit, or a lane of vmap). The gradient is psum(gradient of the loss sum) / psum(weight),
so unequal counts, masks and padding are right by construction.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tasks.task import Batch, Hyper, Sums
from training import collectives, inputs, optimizers, partition, rng
from training.spec import StepSpec
from training.state import TrainState


def train_step(
    spec: StepSpec,
    state: TrainState,
    hyper: Hyper,
    batch: Batch,
    dataset: Batch,
    axis: str | None = None,
) -> tuple[TrainState, Sums]:
    """Returns (next state, metrics summed over all devices).

    Args:
      spec: the static part.
      state: replicated.
      hyper: dict of scalars, which may be traced: 'seed', 'learning_rate', 'weight_decay', the
        optimizer's options, what the task's loss takes; 'dropout_rate' unless the model has its
        own; 'clip_norm', 'ema_decay' and the strengths of augmentation where they are switched on.
      batch: this device's part: 'index', 'epoch' int32 [b] and 'mask' float32 [b], and either
        'image' uint8 [b, h, w, c] and the task's targets, or a data set to gather them from;
        'bad' int32 [b] may mark examples whose record did not decode.
      dataset: image and targets of a whole resident split, or {}.
      axis: name of the mapped axis, or None.

    Metrics: the task's sums ('bad'), and the scalars 'grad_norm', 'learning_rate'.
    """
    # 1. Gradients and sums of this device's examples, then of all devices'.
    sums, stats = _gradients(spec, state, hyper, batch, dataset, axis)
    sums['metrics'] |= _bad(batch)
    sums = collectives.psum(sums, axis)
    grads = sums['grads']
    if 'weight' in sums:
        weight = jnp.maximum(sums['weight'], 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
    # 2. The update; training/optimizers.py has the order of its parts.
    optimizer = optimizers.make(spec.optimizer, hyper, spec.nesterov, spec.clip)
    trained = partition.trained_part(state.params, spec.frozen)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    rate = hyper['learning_rate'] * spec.schedule(state.step)
    trained = optimizers.apply_updates(trained, updates, rate, spec.factors)
    params = partition.joined(state.params, trained)
    # 3. What follows the parameters: running statistics, then the averages of both.
    # Means over devices, and averages, of equal numbers may be rounded to others, so that frozen
    # statistics are taken over as they are.
    stats = partition.kept(stats, state.batch_stats, spec.frozen)
    ema = state.ema
    if spec.ema:
        new = {'params': params, 'batch_stats': stats}
        ema = optimizers.average(hyper['ema_decay'], state.step, ema, new)
        ema = {name: partition.kept(ema[name], new[name], spec.frozen) for name in new}
    metrics = {**sums['metrics'], 'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    return TrainState(state.step + 1, params, stats, opt_state, ema), metrics


def _gradients(
    spec: StepSpec, state: TrainState, hyper: Hyper, batch: Batch, dataset: Batch, axis: str | None
) -> tuple[dict[str, Any], Any]:
    """Returns (sums over this device's micro-batches, new running statistics).

    With one term of the loss the sums have its 'weight', by which the summed gradients are still to
    be divided. With several, each has to be divided by its own before they are added: their weights
    are summed over all devices first, and the gradients are those of the whole loss.
    """
    batch = inputs.gathered(batch, dataset)
    examples = inputs.training_inputs(spec, batch, hyper)
    several = len(spec.task.terms) > 1
    weights = collectives.psum(spec.task.weights(examples), axis) if several else None
    # The sum is over examples, so micro-batch k of this device may be any k-th of its part.
    parts = jax.tree.map(lambda x: x.reshape(spec.accumulate, -1, *x.shape[1:]), examples)
    trained = partition.trained_part(state.params, spec.frozen)
    # Before the gradient: shard_map would otherwise add up the gradients of all devices itself.
    trained = collectives.varying(trained, axis)
    device = collectives.index(axis)

    def micro_batch(carry, part):
        stats, number = carry
        key = rng.stream(hyper['seed'], 'dropout', state.step, device, number)
        (_, out), grads = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
            spec, trained, state.params, stats, hyper, part, key, weights, axis
        )
        sums, stats = out
        return (stats, number + 1), {'grads': grads, **sums}

    start = (state.batch_stats, jnp.int32(0))
    if spec.accumulate == 1:
        (stats, _), sums = micro_batch(start, jax.tree.map(lambda x: x[0], parts))
        return sums, stats
    (stats, _), sums = jax.lax.scan(micro_batch, start, parts, unroll=spec.unroll)
    return jax.tree.map(lambda x: x.sum(0), sums), stats


def _loss(spec, trained, params, stats, hyper, part, key, weights, axis):
    """Returns (loss, (sums, new running statistics)) of one micro-batch.

    The loss is the sum of its only term, whose weight is then among the sums; or, of several, the
    sum of their sums over `weights`, each of the whole batch.

    `trained` is what is differentiated by; the frozen rest is taken from `params`.
    """
    model = spec.model
    if 'dropout_rate' in hyper:
        model = model.clone(dropout_rate=hyper['dropout_rate'])
    if spec.sync_batch_norm:
        model = model.clone(axis_name=axis)
    outputs, new = _apply(
        model,
        {'params': partition.joined(params, trained), 'batch_stats': stats},
        part['inputs'],
        train=True,
        mask=part['mask'],
        rngs={'dropout': key},
        mutable=['batch_stats'],
    )
    terms = spec.task.loss(outputs, part, hyper)
    if weights is None:
        (loss,) = terms.values()
        (weight,) = spec.task.weights(part).values()
        sums = {'weight': weight}
    else:
        loss = sum(terms[name] / jnp.maximum(weights[name], 1.0) for name in spec.task.terms)
        sums = {}
    new_stats = new.get('batch_stats', stats)
    if not spec.sync_batch_norm:
        new_stats = collectives.pmean(new_stats, axis)
    return loss, ({**sums, 'metrics': spec.task.sums(outputs, part)}, new_stats)


def eval_step(
    spec: StepSpec,
    variables: dict[str, Any],
    batch: Batch,
    dataset: Batch,
    axis: str | None = None,
    detailed: bool = False,
) -> tuple[Sums, dict[str, jax.Array] | None]:
    """Returns (the task's sums over all devices, its rows) for one evaluation batch.

    Arguments as in `train_step`; `variables` are those of `TrainState.variables`. The rows are this
    device's own, with 'index' and 'mask' of their examples; None for a task without rows.
    """
    batch = inputs.gathered(batch, dataset)
    outputs = _apply(spec.model, variables, inputs.evaluation_inputs(spec, batch), train=False)
    sums = collectives.psum(spec.task.sums(outputs, batch, detailed) | _bad(batch), axis)
    rows = spec.task.rows(outputs, batch)
    if rows is not None:
        rows = {**rows, 'index': batch['index'], 'mask': batch['mask']}
    return sums, rows


def _apply(model, variables, inputs, **options):
    """Applies the whole network to images, or what is left of it to features."""
    return model.apply(variables, inputs, method='logits' if inputs.ndim == 2 else None, **options)


def _bad(batch) -> dict:
    """How many records did not decode, where a stream counts them."""
    return {'bad': batch['bad'].sum()} if 'bad' in batch else {}
