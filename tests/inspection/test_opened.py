"""An opened network against predictions, finite differences and the slow way."""

import jax
import numpy as np
import pytest

from data_sources import digits
from errors import UserError
from inspection import opened


@pytest.fixture(scope='module')
def pixels():
    return digits.load('test').images[:3]


def test_predictions_and_stages_are_those_of_the_network(network, pixels):
    look = network.look(pixels)
    inputs = network.inputs(pixels)
    logits = network.spec.model.apply(network.variables, inputs)
    np.testing.assert_allclose(look.predictions, jax.nn.softmax(logits), atol=1e-6)
    stages = network.spec.model.apply(network.variables, inputs, method='stages')
    assert [*look.stages] == [*stages] == [*network.trace.stages]
    for name, array in look.stages.items():
        np.testing.assert_allclose(array, stages[name], atol=1e-5)
        assert array.shape[1:] == network.trace.stages[name].shape


def test_more_examples_than_a_batch_are_those_one_by_one(network, monkeypatch):
    images = digits.load('test').images[:5]
    one_by_one = [network.look(images[i : i + 1]).predictions[0] for i in range(5)]
    monkeypatch.setattr(opened, 'BATCH', 2)
    np.testing.assert_allclose(network.look(images).predictions, one_by_one, atol=1e-6)


def test_gradients_are_what_small_changes_make(network):
    # Noise, because the equal pixels of a background are ties in the windows of max pooling.
    shape = (3, 28, 28, 1)
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    choice = network.choice(network.look(pixels).prediction(0), '3')
    inputs = network.inputs(pixels)
    slope = network.input_gradient(inputs, choice)
    direction = slope / np.sqrt(np.square(slope).sum((1, 2, 3), keepdims=True))
    step = 3e-3
    high, low = (network.score(inputs + s * direction, choice) for s in (step, -step))
    expected = (slope * direction).sum((1, 2, 3))
    np.testing.assert_allclose((high - low) / (2 * step), expected, rtol=0.02)
    found = network.gradients(pixels, choice)
    np.testing.assert_allclose(found.scores, network.score(inputs, choice), atol=1e-5)
    assert {n: a.shape for n, a in found.slopes.items()} == {
        n: a.shape for n, a in found.stages.items()
    }


def test_the_surest_class_is_explained_unless_another_is_named(network, pixels):
    prediction = network.look(pixels).prediction(1)
    assert network.choice(prediction).values['class'] == prediction.argmax()
    assert network.choice(prediction, '4').values['class'] == 4
    with pytest.raises(UserError, match='"13" is no part of the answer'):
        network.choice(prediction, '13')


def test_the_last_map_is_taken_unless_another_is_named(network):
    assert network.stage() == 'pool2'
    assert network.stage('conv1') == 'conv1'
    for name in ('dense1', 'conv9'):
        with pytest.raises(UserError, match=f'"{name}" is no stage with feature maps'):
            network.stage(name)
