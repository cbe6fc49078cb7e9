"""One update and one evaluation call, for one device: run as they are, or mapped over an axis.

    state(t+1) = step(state(t), batch(config, t), keys(config, t))

`axis` names the mapped axis under pmap and shard_map; None means that this device has the whole
batch (plain jit, or a lane of vmap). The gradient is psum(gradient of the loss sum) / psum(weight),
so unequal counts, masks and padding are right by construction.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from training import augment, collectives, mixing, optimizers, partition, rng
from training.state import TrainState


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """The static part of a step: what is compiled in.

    Attributes:
      model: a Linen module, as the registry makes it.
      task: loss and metrics; see tasks/classification.py.
      optimizer: name of the optimiser.
      nesterov: for the optimisers that know it.
      clip: whether the gradient's norm is clipped.
      schedule: step -> share of the peak learning rate.
      mean, std: of pixels in [0, 1], per channel.
      augment: whether training images are warped.
      crop, flip: whether they are cropped out of a padded image, and mirrored.
      mixup, cutmix: whether and how pairs of them are mixed.
      erase: what fills the box that is erased: 'noise', 'zero' or '' (nothing is erased).
      accumulate: micro-batches per update.
      ema: whether averaged weights are kept.
      sync_batch_norm: statistics over all devices' examples.
      unroll: micro-batches as straight code; else as a loop.
      frozen: paths of the parameters that stay as they are, and of statistics that do.
      factors: {path: factor on the learning rate} of the others, where it is not 1.
    """

    model: Any
    task: Any
    optimizer: str
    schedule: Callable
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nesterov: bool = False
    clip: bool = False
    augment: bool = False
    crop: bool = False
    flip: bool = False
    mixup: bool = False
    cutmix: bool = False
    erase: str = ''
    accumulate: int = 1
    ema: bool = False
    sync_batch_norm: bool = True
    unroll: bool = True
    frozen: frozenset[str] = frozenset()
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)


def gathered(batch, dataset) -> dict:
    """Returns the batch with 'label' and 'image', or 'features' in place of images.

    A batch of a resident data set holds only 'index'; the rest is gathered here.
    """
    if 'label' in batch:
        return batch
    return {**batch, **{key: array[batch['index']] for key, array in dataset.items()}}


def standardised(spec: StepSpec, images):
    """Returns images with the data set's mean removed, divided by its standard deviation."""
    return (images - jnp.asarray(spec.mean)) / jnp.asarray(spec.std)


def _inputs(spec, batch):
    """Returns what the network gets in evaluation: images float32 [b, h, w, c].

    Features float32 [b, f] (see training/linear_probe.py) are taken as they are.
    """
    if 'features' in batch:
        return batch['features']
    return standardised(spec, batch['image'].astype(jnp.float32) / 255.0)


def _training_part(spec, batch, hyper) -> dict:
    """Returns 'inputs', 'label' and 'mask', and what the task is to know of mixed images.

    The order: pixels to [0, 1]; affine map, crop, flip; standardise; erase; mixup or CutMix.
    """
    part = {'label': batch['label'], 'mask': batch['mask']}
    if 'features' in batch:
        return {'inputs': batch['features'], **part}
    who = batch['index'], batch['epoch'], hyper['seed']
    images = batch['image'].astype(jnp.float32) / 255.0
    if spec.augment:
        strength = (hyper[name] for name in ('shift', 'rotate', 'scale'))
        images = augment.affine(images, *who, *strength)
    if spec.crop:
        images = augment.crop(images, *who, hyper['crop'])
    if spec.flip:
        images = augment.flip(images, *who, hyper['flip'])
    images = standardised(spec, images)
    if spec.erase:
        images = augment.erase(images, *who, hyper['erase'], spec.erase == 'noise')
    if spec.mixup or spec.cutmix:
        images, mixture = mixing.mixed(images, batch, hyper, spec.mixup, spec.cutmix)
        part |= mixture
    return {'inputs': images, **part}


def _apply(model, variables, inputs, **options):
    """Applies the whole network to images, or what is left of it to features."""
    return model.apply(variables, inputs, method='logits' if inputs.ndim == 2 else None, **options)


def train_step(spec: StepSpec, state: TrainState, hyper, batch, dataset, axis=None):
    """Returns (next state, metrics summed over all devices).

    Args:
      spec: the static part.
      state: replicated.
      hyper: dict of scalars, which may be traced: 'seed', 'learning_rate', 'weight_decay',
        'label_smoothing', the optimiser's options; 'dropout_rate' unless the model has its own;
        'clip_norm', 'ema_decay', 'shift', 'rotate', 'scale', 'crop', 'flip', 'mixup', 'cutmix',
        'mix_probability', 'cutmix_share', 'erase' where they are switched on.
      batch: this device's part: 'index', 'epoch' int32 [b] and 'mask' float32 [b], and either
        'image' uint8 [b, h, w, c] and 'label' int32 [b], or a data set to gather them from;
        'bad' int32 [b] may mark examples whose record did not decode.
      dataset: {'image', 'label'} of a whole resident split, or {}.
      axis: name of the mapped axis, or None.

    Metrics: sums 'loss', 'correct', 'count' ('bad'), and the scalars 'grad_norm', 'learning_rate'.
    """
    sums, stats = _gradients(spec, state, hyper, batch, dataset, axis)
    sums['metrics'] |= _bad(batch)
    sums = collectives.psum(sums, axis)
    weight = jnp.maximum(sums['weight'], 1.0)
    grads = jax.tree.map(lambda g: g / weight, sums['grads'])
    optimizer = optimizers.make(spec.optimizer, hyper, spec.nesterov, spec.clip)
    trained = partition.trained_part(state.params, spec.frozen)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    rate = hyper['learning_rate'] * spec.schedule(state.step)
    trained = optimizers.descend(trained, updates, rate, spec.factors)
    params = partition.joined(state.params, trained)
    # Means over devices, and averages, of equal numbers may be rounded to others.
    stats = partition.kept(stats, state.batch_stats, spec.frozen)
    ema = state.ema
    if spec.ema:
        new = {'params': params, 'batch_stats': stats}
        ema = optimizers.average(hyper['ema_decay'], state.step, ema, new)
        ema = {name: partition.kept(ema[name], new[name], spec.frozen) for name in new}
    metrics = {**sums['metrics'], 'grad_norm': optax.tree.norm(grads), 'learning_rate': rate}
    return TrainState(state.step + 1, params, stats, opt_state, ema), metrics


def _gradients(spec, state, hyper, batch, dataset, axis):
    """Returns (sums over this device's micro-batches, new running statistics)."""
    batch = gathered(batch, dataset)
    parts = _training_part(spec, batch, hyper)
    # The sum is over examples, so micro-batch k of this device may be any k-th of its part.
    parts = jax.tree.map(lambda x: x.reshape(spec.accumulate, -1, *x.shape[1:]), parts)
    trained = partition.trained_part(state.params, spec.frozen)
    trained = collectives.varying(trained, axis)
    device = collectives.index(axis)

    def micro_batch(carry, part):
        stats, number = carry
        key = rng.stream(hyper['seed'], 'dropout', state.step, device, number)
        (_, out), grads = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
            spec, trained, state.params, stats, hyper, part, key, axis
        )
        weight, metrics, stats = out
        return (stats, number + 1), {'grads': grads, 'weight': weight, 'metrics': metrics}

    start = (state.batch_stats, jnp.int32(0))
    if spec.accumulate == 1:
        (stats, _), sums = micro_batch(start, jax.tree.map(lambda x: x[0], parts))
        return sums, stats
    (stats, _), sums = jax.lax.scan(micro_batch, start, parts, unroll=spec.unroll)
    return jax.tree.map(lambda x: x.sum(0), sums), stats


def _loss(spec, trained, params, stats, hyper, part, key, axis):
    """Returns (loss sum, (weight, metric sums, new running statistics)) of one micro-batch.

    `trained` is what is differentiated by; the frozen rest is taken from `params`.
    """
    model = spec.model
    if 'dropout_rate' in hyper:
        model = model.clone(dropout_rate=hyper['dropout_rate'])
    if spec.sync_batch_norm:
        model = model.clone(axis_name=axis)
    logits, new = _apply(
        model,
        {'params': partition.joined(params, trained), 'batch_stats': stats},
        part['inputs'],
        train=True,
        mask=part['mask'],
        rngs={'dropout': key},
        mutable=['batch_stats'],
    )
    loss, weight = spec.task.loss(logits, part, hyper['label_smoothing'])
    new_stats = new.get('batch_stats', stats)
    if not spec.sync_batch_norm:
        new_stats = collectives.pmean(new_stats, axis)
    return loss, (weight, spec.task.metrics(logits, part), new_stats)


def eval_step(spec: StepSpec, variables, batch, dataset, axis=None, detailed: bool = False):
    """Returns the metrics' sums over all devices, for one evaluation batch.

    Arguments as in `train_step`; `variables` are those of `TrainState.variables`.
    """
    batch = gathered(batch, dataset)
    logits = _apply(spec.model, variables, _inputs(spec, batch), train=False)
    return collectives.psum(spec.task.metrics(logits, batch, detailed) | _bad(batch), axis)


def _bad(batch) -> dict:
    """How many records did not decode, where a stream counts them."""
    return {'bad': batch['bad'].sum()} if 'bad' in batch else {}
