"""What the networks here compute from the formula's weights, to compare with PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained import torch_weights
from tests.golden import parity


def state_dict(model, layout):
    """The formula's weights under the library's names."""
    found = torch_weights.tensors(model, layout, parity.CLASSES, channels=3)
    return {t.key: parity.value(t.key, t.torch_shape) for t in found}


def forward(model, variables, images):
    """Returns ({stage: map}, logits) in float32."""
    network = models.create(model, num_classes=parity.CLASSES)

    @jax.jit
    def compute(variables, images):
        stages = network.apply(variables, images, method='stages')
        return stages, network.apply(variables, images)

    return compute(variables, images)


def sgd_step(model):
    """Returns gradients and new batch statistics by path, and the loss before and after; float64.

    The weights are torchvision's by the formula, the batch is of four images.
    """
    with jax.enable_x64(True):
        return _sgd_step(model)


def _sgd_step(model):
    variables, _ = torch_weights.from_torch(state_dict(model, 'torchvision'), model)
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
    network = models.create(
        model, num_classes=parity.CLASSES, dtype='float64', param_dtype='float64'
    )
    images, labels = parity.batch(4)
    images = jnp.asarray(images, jnp.float64)

    def loss(params, batch_stats):
        logits, updated = network.apply(
            {'params': params, 'batch_stats': batch_stats},
            images,
            train=True,
            mutable=['batch_stats'],
        )
        log_p = jax.nn.log_softmax(logits)
        return -log_p[jnp.arange(len(labels)), labels].mean(), updated

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params, batch_stats = variables['params'], variables['batch_stats']
    (before, updated), gradients = step(params, batch_stats)
    params = jax.tree.map(lambda p, g: p - parity.LEARNING_RATE * g, params, gradients)
    (after, _), _ = step(params, batch_stats)
    found = {'params': gradients, 'batch_stats': updated.get('batch_stats', {})}
    leaves = jax.tree_util.tree_leaves_with_path(found)
    flat = {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in leaves}
    return {path: np.asarray(leaf) for path, leaf in flat.items()}, [float(before), float(after)]


def cases(names, plain, few=None):
    """Marks all but the plain ones as part of the whole matrix; all but few of those as slow."""
    few = plain if few is None else few
    marks = {n: () if n in few else pytest.mark.slow for n in plain}
    return [pytest.param(n, marks=marks.get(n, pytest.mark.full)) for n in names]
