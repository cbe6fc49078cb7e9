"""Child of test_synchronized_batch_norm.py: prints, as JSON, how far each runner is from the truth.

The truth is plain jit of the real examples alone, without mask, padding or mapped axis. Started
with eight virtual CPU devices; tests of the whole step live with the step.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import models

DEVICES, PER_DEVICE, SIZE = 8, 4, 8
# Real examples of each shard: unequal, and one shard is nothing but padding.
COUNTS = (4, 3, 2, 1, 4, 0, 2, 3)
# Both have convolutions by patches at this size. One runner will do for the second.
MODELS = {'deep_cnn': {}, 'strided_cnn': {'width': 0.05}}
RUNNERS = {'deep_cnn': ('jit', 'pmap', 'shard_map', 'vmap'), 'strided_cnn': ('shard_map',)}


def gradient_step(name, variables, batch, axis_name, runner):
    """Logits, new statistics and gradient of the masked mean loss, the last two replicated."""
    images, labels, mask = batch
    model = models.create(name, num_classes=10, axis_name=axis_name, **MODELS[name])
    params = variables['params']
    if runner == 'shard_map':
        # Else the gradient of replicated parameters comes back summed already.
        params = lax.pcast(params, axis_name, to='varying')

    def loss_sum(params):
        logits, updated = model.apply(
            {'params': params, 'batch_stats': variables['batch_stats']},
            images, train=True, mask=mask, mutable=['batch_stats'],
        )  # fmt: skip
        log_p = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
        weight = jnp.ones_like(losses) if mask is None else mask
        return (losses * weight).sum(), (logits, updated['batch_stats'], weight.sum())

    gradients, (logits, stats, count) = jax.grad(loss_sum, has_aux=True)(params)
    if axis_name:
        gradients, count = lax.psum((gradients, count), axis_name)
    return logits, stats, jax.tree.map(lambda g: g / count, gradients)


def run(name, runner, variables, batch):
    """Runs the step under `runner`; batch [32, ...]. Returns logits [32, 10], stats, gradients."""

    def step(variables, batch):
        axis_name = None if runner == 'jit' else 'batch'
        return gradient_step(name, variables, batch, axis_name, runner)

    if runner == 'jit':
        return jax.jit(step)(variables, batch)
    if runner == 'shard_map':
        mesh = Mesh(jax.devices(), ('batch',))
        replicated, sharded = PartitionSpec(), PartitionSpec('batch')
        mapped = jax.shard_map(
            step, mesh=mesh, in_specs=(replicated, sharded),
            out_specs=(sharded, replicated, replicated), check_vma=True,
        )  # fmt: skip
        return jax.jit(mapped)(variables, batch)
    mapping = {'pmap': jax.pmap, 'vmap': jax.vmap}[runner]
    shards = jax.tree.map(lambda a: a.reshape(DEVICES, PER_DEVICE, *a.shape[1:]), batch)
    mapped = mapping(step, axis_name='batch', in_axes=(None, 0))
    logits, stats, gradients = jax.device_get(mapped(variables, shards))
    for leaf in jax.tree.leaves((stats, gradients)):
        assert (leaf == leaf[:1]).all(), 'every device has the same statistics and gradients'
    stats, gradients = jax.tree.map(lambda a: a[0], (stats, gradients))
    return logits.reshape(-1, 10), stats, gradients


def distance(tree, other):
    """The largest difference of any element."""
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), tree, other)
    return max(jax.tree.leaves(differences))


def main():
    assert jax.device_count() == DEVICES
    rng = np.random.default_rng(0)
    total = DEVICES * PER_DEVICE
    images = rng.normal(size=(total, SIZE, SIZE, 1)).astype(np.float32)
    labels = rng.integers(0, 10, total)
    mask = np.concatenate([np.arange(PER_DEVICE) < n for n in COUNTS]).astype(np.float32)
    images[mask == 0] = 100  # padding that would be seen if it counted
    real = mask > 0
    report = {}
    for name in MODELS:
        init = models.create(name, num_classes=10, axis_name='batch', **MODELS[name]).init
        variables = jax.jit(init)(jax.random.key(0), images[:1])
        truth = jax.device_get(run(name, 'jit', variables, (images[real], labels[real], None)))
        report[name] = {'scale': [distance(e, jax.tree.map(np.zeros_like, e)) for e in truth]}
        for runner in RUNNERS[name]:
            logits, *rest = jax.device_get(run(name, runner, variables, (images, labels, mask)))
            found = (logits[real], *rest)
            report[name][runner] = [distance(f, e) for f, e in zip(found, truth, strict=True)]
    print(json.dumps(report))


if __name__ == '__main__':
    main()
