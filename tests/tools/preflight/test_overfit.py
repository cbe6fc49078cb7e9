"""Every family learns one batch of real digits by heart: loss, gradient and optimiser belong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from data_sources import arrays
from models import densenet
from tasks.classification import Classification
from tests.support import QUICKLY, most_slow
from training import optimizers, state, step
from training.spec import StepSpec

FAMILIES = {
    'alexnet': {'stem': 'mnist', 'width': 0.1},
    'deep_cnn': {},
    'densenet121': {'stem': 'mnist', 'width': 0.25},
    'fcn': {'units': 32},
    'lenet': {},
    'resnet18': {'stem': 'mnist', 'width': 0.1},
    'strided_cnn': {'width': 0.1},
    'vgg11_bn': {'stem': 'mnist', 'width': 0.1},
}
CLASSES, STEPS = 10, 150
HYPER = {
    'seed': np.uint32(1),
    'learning_rate': np.float32(3e-3),
    'weight_decay': np.float32(0.0),
    'label_smoothing': np.float32(0.0),
    'beta1': np.float32(0.9),
    'beta2': np.float32(0.999),
    'epsilon': np.float32(1e-8),
}


def test_every_family_is_here():
    def families(names):
        return {type(models.create(name, num_classes=1)) for name in names}

    assert families(FAMILIES) == families(models.names())


@pytest.mark.parametrize('name', most_slow(FAMILIES, ('lenet',)))
def test_one_batch_is_learned_by_heart(name, monkeypatch):
    # The whole of it takes a minute to compile: see below.
    monkeypatch.setitem(densenet.BLOCKS, 121, ((2, 2, 2, 2), 32))
    learn(name)


@pytest.mark.full
def test_the_whole_densenet_learns_one_batch_by_heart():
    learn('densenet121')


def learn(name):
    model = models.create(name, num_classes=CLASSES, **FAMILIES[name])
    spec = StepSpec(model, Classification(CLASSES), 'adam', lambda step: 1.0, (0.1307,), (0.3081,))
    source = arrays.load('digits', 'train', '')
    batch = {
        'index': np.arange(16, dtype=np.int32),
        'epoch': np.zeros(16, np.int32),
        'mask': np.ones(16, np.float32),
        'image': source.images[:16],
        'label': source.labels[:16],
    }
    optimizer = optimizers.make('adam', HYPER)
    create = functools.partial(state.create, model, optimizer, (28, 28, 1), use_ema=False)
    now = jax.jit(create, compiler_options=QUICKLY)(np.uint32(0))
    update = jax.jit(functools.partial(step.train_step, spec), compiler_options=QUICKLY)
    losses = []
    for _ in range(STEPS):
        now, metrics = update(now, HYPER, batch, {})
        losses.append(float(metrics['loss']) / 16)
        if losses[-1] < 0.01:
            break
    assert losses[0] > 1
    assert losses[-1] < 0.01, losses[::10]
    assert int(metrics['correct']) == 16
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(now))
