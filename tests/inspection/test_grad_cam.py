"""Grad-CAM against a slow, obvious version, and for networks of every kind."""

import numpy as np
import pytest

from data_sources import digits
from errors import UserError
from inspection import opened
from inspection.grad_cam import combined, grad_cam
from tests.inspection.untrained import chosen
from training import trained


@pytest.fixture(scope='module')
def pixels():
    return digits.load('test').images[:5]


def test_the_last_map_is_the_slow_way_with_finite_differences(network, pixels):
    found = grad_cam(network, pixels[:2], chosen(network, '3'))
    stage = network.look(pixels[:2]).stages['pool2'].astype(np.float64)
    layers = [network.variables['params'][name] for name in ('dense1', 'dense2', 'head')]
    layers = [(np.asarray(p['kernel'], np.float64), np.asarray(p['bias'])) for p in layers]

    def logit(maps):
        (first, bias1), (second, bias2), (head, bias) = layers
        units = np.maximum(maps.reshape(-1) @ first + bias1, 0)
        return (np.maximum(units @ second + bias2, 0) @ head + bias)[3]

    step = 1e-7
    expected = np.zeros(stage.shape[:3])
    for example, maps in enumerate(stage):
        for channel in range(maps.shape[-1]):
            # The mean of the derivatives by the places is that by all of them together, divided.
            nudge = np.zeros_like(maps)
            nudge[..., channel] = step
            high, low = logit(maps + nudge), logit(maps - nudge)
            weight = (high - low) / (2 * step) / maps[..., channel].size
            expected[example] += weight * maps[..., channel]
    expected = np.maximum(expected, 0)
    assert expected.max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_channels_are_weighed_by_their_mean_slopes_and_what_speaks_against_is_left_out():
    random = np.random.default_rng(0)
    maps, slopes = random.normal(size=(2, 3, 4, 5, 6))
    expected = np.zeros((3, 4, 5))
    for example in range(3):
        for channel in range(6):
            weight = slopes[example, :, :, channel].sum() / 20
            expected[example] += weight * maps[example, :, :, channel]
    expected[expected < 0] = 0
    assert (expected == 0).any()
    assert (expected > 0).any()
    np.testing.assert_allclose(combined(maps, slopes), expected, rtol=1e-5, atol=1e-6)


def test_every_stage_that_is_a_map_has_one_of_its_size(network, pixels):
    choice = chosen(network, '7')
    for stage, side in {'conv1': 28, 'pool1': 14, 'conv2': 10, 'pool2': 5}.items():
        heat = grad_cam(network, pixels, choice, stage)
        assert heat.shape == (5, side, side)
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() > 0
    with pytest.raises(UserError, match='"dense1" is no stage with feature maps'):
        grad_cam(network, pixels, choice, 'dense1')


def test_no_map_depends_on_its_neighbors_or_on_the_size_of_the_batch(network, pixels, monkeypatch):
    choice = chosen(network, '7')
    alone = np.concatenate([grad_cam(network, pixels[i : i + 1], choice) for i in range(5)])
    np.testing.assert_allclose(grad_cam(network, pixels[::-1], choice), alone[::-1], atol=1e-5)
    monkeypatch.setattr(opened, 'BATCH', 2)
    np.testing.assert_allclose(grad_cam(network, pixels, choice), alone, atol=1e-5)


def test_a_network_without_maps_says_so(small_run):
    network = opened.of(trained.load(small_run))
    pixels = digits.load('test').images[:1]
    with pytest.raises(UserError, match='fcn has no feature maps: all its layers are fully'):
        grad_cam(network, pixels, network.choice(network.look(pixels).prediction(0)))
