"""LeNet against a plain NumPy/SciPy LeNet, and against one step of PyTorch's."""

import json
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

import models
from tests.golden import make_lenet_step as golden_step

GOLDEN = Path(golden_step.__file__).with_name('lenet_step.json')


def slow_lenet(params, images, activation, pooling):
    """LeNet-5 as it is written on the blackboard, in float64."""

    def conv(x, layer, padding):
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        kernel = layer['kernel']
        maps = [
            [
                correlate(image, kernel[..., k], mode='valid')[..., 0]
                for k in range(kernel.shape[-1])
            ]
            for image in x
        ]
        return np.moveaxis(np.array(maps), 1, -1) + layer['bias']

    def pool(x):
        corners = np.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
        return corners.max(0) if pooling == 'max' else corners.mean(0)

    act = np.tanh if activation == 'tanh' else lambda x: np.maximum(x, 0)
    x = pool(act(conv(images, params['conv1'], padding=2)))
    x = pool(act(conv(x, params['conv2'], padding=0)))
    x = x.reshape(len(x), -1)
    for name in ('dense1', 'dense2'):
        x = act(x @ params[name]['kernel'] + params[name]['bias'])
    return x @ params['head']['kernel'] + params['head']['bias']


@pytest.mark.parametrize('activation', ['relu', 'tanh'])
@pytest.mark.parametrize('pooling', ['max', 'average'])
def test_lenet_equals_a_plain_numpy_one(activation, pooling):
    flat = golden_step.parameters()
    params = flax.traverse_util.unflatten_dict(flat, sep='/')
    images, _ = golden_step.batch()
    model = models.create('lenet', num_classes=10, activation=activation, pooling=pooling)
    logits = model.apply({'params': params}, jnp.asarray(images, jnp.float32))
    expected = slow_lenet(params, images, activation, pooling)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def test_one_step_equals_pytorch():
    golden = json.loads(GOLDEN.read_text())
    images, labels = golden_step.batch()
    with jax.enable_x64(True):
        model = models.create('lenet', num_classes=10, dtype='float64', param_dtype='float64')

        @jax.jit
        def loss(flat):
            params = flax.traverse_util.unflatten_dict(flat, sep='/')
            log_p = jax.nn.log_softmax(model.apply({'params': params}, jnp.asarray(images)))
            return -log_p[jnp.arange(len(labels)), labels].mean()

        params = {name: jnp.asarray(value) for name, value in golden_step.parameters().items()}
        before, gradients = jax.value_and_grad(loss)(params)
        updated = {
            name: value - golden['learning_rate'] * gradients[name]
            for name, value in params.items()
        }
        after = float(loss(updated))
    assert float(before) == pytest.approx(golden['loss_before'], rel=1e-9)
    assert after == pytest.approx(golden['loss_after'], rel=1e-9)
    assert gradients.keys() == golden['gradients'].keys()
    for name, gradient in gradients.items():
        scale = golden['gradients'][name]['norm']
        found = golden_step.summary(np.asarray(gradient))
        assert found == pytest.approx(golden['gradients'][name], abs=1e-9 * scale), name
        total = float(np.asarray(updated[name]).sum())
        assert total == pytest.approx(golden['updated_sums'][name], abs=1e-9), name
