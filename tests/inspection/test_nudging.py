"""Stages of every family as `stages` gives them, and the gradients with respect to them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from inspection.nudging import nudged, plain
from tests.support import most_slow
from tests.tasks.turned import AngleHead

FAMILIES = {
    'lenet': ((28, 28, 1), {}),
    'fcn': ((28, 28, 1), {}),
    'deep_cnn': ((28, 28, 1), {}),
    'strided_cnn': ((28, 28, 1), {}),
    'alexnet': ((32, 32, 3), {'stem': 'cifar', 'width': 0.1}),
    'vgg11_bn': ((32, 32, 3), {'stem': 'cifar', 'width': 0.1}),
    'resnet18': ((32, 32, 3), {'width': 0.1, 'remat': True}),
    'densenet121': ((32, 32, 3), {'stem': 'cifar', 'width': 0.1, 'remat': True}),
}


def made(name, **fields):
    shape, options = FAMILIES[name]
    model = models.create(name, num_classes=4, **options, **fields)
    inputs = jax.random.normal(jax.random.key(1), (2, *shape))
    return model, inputs, jax.jit(model.init)(jax.random.key(0), inputs)


@pytest.mark.usefixtures('compiled_in_haste')
@pytest.mark.parametrize('name', most_slow(FAMILIES, ('lenet', 'fcn')))
def test_stages_and_outputs_are_the_networks_own_and_every_stage_has_a_part(name):
    model, inputs, variables = made(name)

    @jax.jit
    def gradients(variables, inputs, nudges):
        def score(nudges):
            stages, logits = nudged(plain(model), variables, inputs, nudges)
            return logits[:, 1].sum(), (stages, logits)

        return jax.grad(score, has_aux=True)(nudges)

    @jax.jit
    def expected(variables, inputs):
        return model.apply(variables, inputs, method='stages'), model.apply(variables, inputs)

    stages, logits = expected(variables, inputs)
    found, same = gradients(variables, inputs, jax.tree.map(jnp.zeros_like, stages))
    assert [*same[0]] == [*stages]
    for array, other in zip(jax.tree.leaves(same), jax.tree.leaves((stages, logits)), strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-5)
    for stage, gradient in found.items():
        assert np.abs(gradient).max() > 0, stage


def test_the_gradient_of_the_last_stage_is_that_of_pool_features_and_logits():
    model, inputs, variables = made('deep_cnn')
    model = plain(model)
    last = jax.jit(partial(model.apply, method='stages'))(variables, inputs)['pool2']

    @jax.jit
    @jax.grad
    def expected(maps):
        logits = model.apply(variables, maps, method=lambda m, x: m.logits(m.pool_features(x)))
        return logits[:, 1].sum()

    @jax.jit
    @jax.grad
    def found(nudge):
        return nudged(model, variables, inputs, {'pool2': nudge})[1][:, 1].sum()

    zero = jnp.zeros_like(last)
    np.testing.assert_allclose(found(zero), expected(last), rtol=1e-5)


def test_a_nudge_arrives_at_the_stages_after_it_and_at_no_other():
    model, inputs, variables = made('lenet')
    applied = jax.jit(partial(nudged, plain(model)))
    before, _ = applied(variables, inputs, {})
    after, _ = applied(variables, inputs, {'pool1': jnp.ones_like(before['pool1'])})
    np.testing.assert_allclose(after['pool1'], before['pool1'] + 1, atol=1e-5)
    np.testing.assert_allclose(after['conv1'], before['conv1'], atol=1e-5)
    expected = model.apply(
        variables, after['pool1'], method=lambda m, x: jax.nn.relu(m.conv2(x))
    )  # fmt: skip
    np.testing.assert_allclose(after['conv2'], expected, atol=1e-4)


def test_a_head_of_another_task_hands_on_the_stages_of_its_backbone():
    model = AngleHead(backbone=models.create('lenet', num_classes=0))
    inputs = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    variables = jax.jit(model.init)(jax.random.key(0), inputs)
    stages, outputs = jax.jit(partial(nudged, plain(model)))(variables, inputs, {})
    assert [*stages] == ['conv1', 'pool1', 'conv2', 'pool2', 'dense1', 'dense2']
    np.testing.assert_allclose(outputs, model.apply(variables, inputs), rtol=1e-5, atol=1e-5)
