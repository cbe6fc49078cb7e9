"""Gradients of softmax cross-entropy through each network against central differences, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import models
from models import densenet, resnet
from tests.support import slow

NETWORKS = [
    ('fcn', 6, {'units': 16}),
    ('fcn', 6, {'units': 16, 'activation': 'tanh'}),
    ('lenet', 12, {}),
    ('lenet', 12, {'activation': 'tanh', 'pooling': 'average'}),
    ('deep_cnn', 8, {}),
    ('strided_cnn', 8, {'width': 0.04}),
    ('strided_cnn', 8, {'width': 0.04, 'downsample': 'max_pool', 'pooling': 'max'}),
    ('strided_cnn', 8, {'width': 0.04, 'normalization': 'none'}),
]
# These take seconds to compile, and are made of the same layers: with padding only.
LARGE = [
    ('alexnet', 12, {'stem': 'cifar', 'width': 0.03}),
    ('vgg11_bn', 16, {'stem': 'cifar', 'width': 0.03}),
    ('vgg11', 16, {'stem': 'cifar', 'width': 0.1, 'normalization': 'group'}),
    ('resnet18', 6, {'stem': 'cifar', 'width': 0.05}),
    ('resnet50', 32, {'width': 0.02}),
    ('densenet121', 8, {'stem': 'cifar', 'width': 0.1}),
]
CASES = [(*case, masked) for case in NETWORKS for masked in (True, False)]
CASES += [(*case, True) for case in LARGE]
FEW = [next(case for case in CASES if case[0] == name)
       for name in ('fcn', 'lenet', 'deep_cnn')]  # fmt: skip
FAMILIES = {type(models.create(name, num_classes=1)) for name in models.names()}


def test_every_family_is_differentiated():
    cases = {type(models.create(name, num_classes=1)) for name, *_ in NETWORKS + LARGE}
    assert cases == FAMILIES


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Fewer of the same blocks: their gradients are compiled in seconds, not in a minute."""
    monkeypatch.setitem(densenet.BLOCKS, 121, ((2, 2, 2, 2), 32))
    monkeypatch.setitem(resnet.BLOCKS, 18, ((1, 1, 1, 1), False))
    monkeypatch.setitem(resnet.BLOCKS, 50, ((1, 1, 1, 1), True))


@pytest.mark.parametrize(
    ('name', 'size', 'options', 'masked'),
    [case if case in FEW else slow(*case) for case in CASES],
)
def test_gradient_equals_central_differences(name, size, options, masked):
    """Compiled, with and without padding: what XLA makes of a gradient may differ between them."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(6, size, size, 2)), rng.integers(0, 5, 6)
    weight = np.array([1.0, 1, 0, 1, 1, 1]) if masked else np.ones(6)
    mask = weight if masked else None
    with jax.enable_x64(True):
        model = models.create(
            name, num_classes=5, dtype='float64', param_dtype='float64', dropout_rate=0.3, **options
        )
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images))
        # Biases off zero too: a dead unit or an idle bias would have nothing to check.
        params = jax.tree.map(lambda leaf: 0.4 * rng.normal(size=leaf.shape), shapes['params'])
        flat, unravel = ravel_pytree(params)

        @jax.jit
        @jax.value_and_grad
        def loss_and_gradient(flat):
            logits, _ = model.apply(
                {'params': unravel(flat), 'batch_stats': statistics},
                images, train=True, mask=mask,
                mutable=['batch_stats'], rngs={'dropout': jax.random.key(1)},
            )  # fmt: skip
            log_p = jax.nn.log_softmax(logits)[jnp.arange(6), labels]
            return -(log_p * weight).sum() / weight.sum()

        statistics = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes.get('batch_stats', {}))
        flat = np.asarray(flat)
        gradient = np.asarray(loss_and_gradient(flat)[1])
        assert gradient.dtype == np.float64
        # The error of the difference is of order h^2 (third derivative) and 1e-16 / h (rounding).
        # ReLU and max pooling have kinks; a step this short crosses none of them here.
        step = 1e-6
        for _ in range(5):
            direction = rng.normal(size=flat.shape)
            direction /= np.linalg.norm(direction)
            above, below = (loss_and_gradient(flat + s * direction)[0] for s in (step, -step))
            difference = (float(above) - float(below)) / (2 * step)
            expected = float(gradient @ direction)
            scale = np.linalg.norm(gradient) / flat.size**0.5
            assert difference == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)


@pytest.mark.slow
def test_compiled_gradient_through_max_pooling_equals_the_one_op_by_op():
    """XLA:CPU computes what is pooled anew for the gradient, rounded otherwise (`pooling.larger`).

    A maximum that looks for the element equal to it is 76 % off here.
    """
    rng = np.random.default_rng(0)
    images, labels = rng.random((16, 12, 12, 1)), rng.integers(0, 5, 16)
    with jax.enable_x64(True):
        model = models.create('deep_cnn', num_classes=5, dtype='float64', param_dtype='float64')
        variables = model.init(jax.random.key(0), jnp.asarray(images))

        def loss(params):
            logits, _ = model.apply(
                {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
            )
            return -jax.nn.log_softmax(logits)[jnp.arange(16), labels].mean()

        gradients = [ravel_pytree(f(variables['params']))[0] for f in
                     (jax.jit(jax.grad(loss)), jax.grad(loss))]  # fmt: skip
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-12)
