"""One update and one evaluation call, for one device; they may be mapped over an axis.

    state(t+1) = step(state(t), batch(config, t), keys(config, t))

`axis` names the mapped axis under pmap and shard_map; None means that this device has the whole
batch (plain jit, or a lane of vmap). The gradient is psum(gradient of the loss sum) / psum(weight),
so unequal counts, masks and padding are right by construction.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import rng
from tasks.task import Batch, Hyper, Sums
from training import collectives, inputs, optimizers, partition
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
      state: the state before the update, the same on every device.
      hyper: dict of scalars, which may be traced: 'seed', 'learning_rate', 'weight_decay', the
        optimizer's options, what the task's loss takes; 'dropout_rate' unless the model has its
        own; 'clip_norm', 'ema_decay' and the strengths of augmentation where they are switched on.
      batch: this device's part: 'index', 'epoch' int32 [b] and 'mask' float32 [b], and either
        'image' uint8 [b, h, w, c] and the task's targets, or a data set to gather them from;
        'bad' int32 [b] may mark examples whose record did not decode.
      dataset: image and targets of a whole resident split, or {}.
      axis: name of the mapped axis, or None.

    Metrics: the task's sums (and 'bad'), and the scalars 'grad_norm' and 'learning_rate'.
    """
    # 1. Gradients and sums of this device's examples, then of all devices'. They are reduced by one
    # call, which joins short arrays where every collective costs a meeting of the devices (CPUs).
    sums, stats = _gradients(spec, state, hyper, batch, dataset, axis)
    sums['metrics'] |= _bad(batch)
    sums = collectives.psum(sums, axis)
    grads = sums['grads']
    # The division comes after the sum over devices: a mean of the devices' means would be wrong
    # where they have unequal numbers of real examples. A batch without any divides by 1, not 0.
    if 'weight' in sums:
        weight = jnp.maximum(sums['weight'], 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
    # 2. The update; training/optimizers.py documents the order of its parts. Only trained
    # parameters are passed, so that frozen ones neither decay nor count in the clipped norm.
    optimizer = optimizers.make(
        spec.optimizer, hyper, spec.nesterov, spec.clip, spec.epsilon_in_root
    )
    trained = partition.trained_part(state.params, spec.frozen)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    # The schedule is asked for the number of updates already done: 0 for the first.
    rate = hyper['learning_rate'] * spec.schedule(state.step)
    trained = optimizers.apply_updates(trained, updates, rate, spec.factors)
    params = partition.joined(state.params, trained)
    # 3. Running statistics, then the averages of the new parameters and statistics.
    # A mean over devices, or an average, of equal numbers may be rounded differently. Frozen
    # statistics are therefore copied, so that they keep their bytes.
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

    If the loss has one term, the sums contain its 'weight', and the caller divides the summed
    gradients by it. If it has several, each term has to be divided by its own weight before they
    are added. Their weights are then summed over all devices first, and the gradients are those of
    the whole loss.
    """
    batch = inputs.gathered(batch, dataset)
    # Mixing is part of the inputs and pairs neighbors of the batch. It comes before the split into
    # micro-batches, which may have an odd number of examples and would tear pairs apart.
    examples = inputs.training_inputs(spec, batch, hyper)
    several = len(spec.task.terms) > 1
    weights = collectives.psum(spec.task.weights(examples), axis) if several else None
    # Gradients are summed over examples, so any partition into micro-batches has the same sum.
    micro_batches = jax.tree.map(lambda x: x.reshape(spec.accumulate, -1, *x.shape[1:]), examples)
    trained = partition.trained_part(state.params, spec.frozen)
    # This comes before the gradient is taken. Otherwise shard_map would add up the gradients of
    # all devices by itself, and the psum in train_step would add them a second time.
    trained = collectives.varying(trained, axis)
    device = collectives.index(axis)

    def add_micro_batch(
        carry: tuple[Any, jax.Array], micro_batch: Batch
    ) -> tuple[tuple[Any, jax.Array], dict[str, Any]]:
        # Running statistics pass through the micro-batches in order, as if these were updates.
        stats, number = carry
        # The key is derived from counters, never carried: a resumed run draws the same dropout.
        key = rng.stream(hyper['seed'], 'dropout', state.step, device, number)
        (_, aux), grads = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
            spec, trained, state.params, stats, hyper, micro_batch, key, weights, axis
        )
        sums, stats = aux
        return (stats, number + 1), {'grads': grads, **sums}

    start = (state.batch_stats, jnp.int32(0))
    if spec.accumulate == 1:
        (stats, _), sums = add_micro_batch(start, jax.tree.map(lambda x: x[0], micro_batches))
        return sums, stats
    (stats, _), sums = jax.lax.scan(add_micro_batch, start, micro_batches, unroll=spec.unroll)
    return jax.tree.map(lambda x: x.sum(0), sums), stats


def _loss(
    spec: StepSpec,
    trained: optax.Params,
    params: optax.Params,
    stats: Any,
    hyper: Hyper,
    micro_batch: Batch,
    key: jax.Array,
    weights: dict[str, jax.Array] | None,
    axis: str | None,
) -> tuple[jax.Array, tuple[dict[str, Any], Any]]:
    """Returns (loss, (sums, new running statistics)) of one micro-batch.

    Args:
      spec: the static part.
      trained: the parameters by which the loss is differentiated.
      params: all parameters; the frozen ones are taken from here.
      stats: running statistics before this micro-batch.
      hyper: as in `train_step`.
      micro_batch: 'inputs', 'mask' and the task's targets.
      key: of dropout.
      weights: None if the loss has one term. The loss is then the sum of that term, and its weight
        is among the sums. Otherwise {term: its weight in the whole batch}, and the loss is the sum
        over the terms of sum / weight.
      axis: name of the mapped axis, or None.
    """
    model = spec.model
    if 'dropout_rate' in hyper:
        model = model.adjusted(dropout_rate=hyper['dropout_rate'])
    if spec.sync_batch_norm:
        model = model.adjusted(axis_name=axis)
    outputs, new = _apply(
        model,
        {'params': partition.joined(params, trained), 'batch_stats': stats},
        micro_batch['inputs'],
        train=True,
        mask=micro_batch['mask'],
        rngs={'dropout': key},
        mutable=['batch_stats'],
    )
    terms = spec.task.loss(outputs, micro_batch, hyper)
    if weights is None:
        (loss,) = terms.values()
        (weight,) = spec.task.weights(micro_batch).values()
        sums = {'weight': weight}
    else:
        loss = sum(terms[name] / jnp.maximum(weights[name], 1.0) for name in spec.task.terms)
        sums = {}
    new_stats = new.get('batch_stats', stats)
    # Every device has statistics of its own examples then; the state is the same on all of them.
    if not spec.sync_batch_norm:
        new_stats = collectives.pmean(new_stats, axis)
    return loss, ({**sums, 'metrics': spec.task.sums(outputs, micro_batch)}, new_stats)


def eval_step(
    spec: StepSpec,
    variables: dict[str, Any],
    batch: Batch,
    dataset: Batch,
    axis: str | None = None,
    detailed: bool = False,
) -> tuple[Sums, dict[str, jax.Array] | None]:
    """Returns (the task's sums over all devices, its rows) for one evaluation batch.

    Arguments are as in `train_step`; `variables` are those of `TrainState.variables`. The rows are
    this device's own, with 'index' and 'mask' of their examples; None for a task without rows.
    """
    batch = inputs.gathered(batch, dataset)
    outputs = _apply(spec.model, variables, inputs.evaluation_inputs(spec, batch), train=False)
    sums, rows = spec.task.evaluated(outputs, batch, detailed)
    sums = collectives.psum(sums | _bad(batch), axis)
    # Rows stay on their device: the host collects them from all devices and removes padding.
    if rows is not None:
        rows = {**rows, 'index': batch['index'], 'mask': batch['mask']}
    return sums, rows


def _apply(
    model: nn.Module, variables: dict[str, Any], inputs: jax.Array, **options: Any
) -> jax.Array | tuple[jax.Array, dict[str, Any]]:
    """Applies the whole network to images [b, h, w, c], or only its head to features [b, f]."""
    return model.apply(variables, inputs, method='logits' if inputs.ndim == 2 else None, **options)


def _bad(batch: Batch) -> Sums:
    """Returns how many records did not decode, if the stream counts them."""
    return {'bad': batch['bad'].sum()} if 'bad' in batch else {}
