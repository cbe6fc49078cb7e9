"""Integrated gradients, SmoothGrad and the gradient against what must hold for them."""

import numpy as np
import pytest

from data_sources import digits
from errors import UserError
from inspection import attribution, fills
from tests.inspection.untrained import chosen, noisy, untrained


@pytest.fixture(scope='module')
def pixels():
    return digits.load('test').images[:4]


def slopes(network, inputs, choice):
    """The gradient of each score, for nine inputs at once, which is compiled anyway."""
    filled = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % 9, 0)])
    parts = [network.input_gradient(filled[i : i + 9], choice) for i in range(0, len(filled), 9)]
    return np.concatenate(parts)[: len(inputs)]


@pytest.mark.parametrize('name', ['3', '8'])
def test_attributions_add_up_to_the_difference_of_the_logits(network, pixels, name):
    found = attribution.integrated_gradients(network, pixels, chosen(network, name))
    both = network.inputs(np.concatenate([pixels, np.zeros_like(pixels[:1])]))
    logits = np.asarray(network.spec.model.apply(network.variables, both))[:, int(name)]
    difference = logits[:-1] - logits[-1]
    assert np.abs(difference).min() > 0.1
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), difference, rtol=0.01)
    np.testing.assert_allclose(found.difference, difference, rtol=1e-3)
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), difference + found.error, rtol=1e-3)
    assert set(found.steps) <= {9, 27, 81, 243, 729}
    # What is black in the image is as in the baseline, and has no part in the difference.
    assert (found.values[pixels == 0] == 0).all()


@pytest.mark.slow
@pytest.mark.usefixtures('compiled_in_haste')
def test_attributions_of_a_residual_network_add_up_as_well():
    shape = (16, 16, 3)
    network = untrained('resnet18', shape, model__stem='cifar', model__width=0.1)
    images, choice = noisy(2, shape), chosen(network, '1')
    found = attribution.integrated_gradients(network, images, choice)
    scores = [
        network.score(network.inputs(array), choice) for array in (images, np.zeros_like(images))
    ]
    np.testing.assert_allclose(found.values.sum((1, 2, 3)), scores[0] - scores[1], rtol=0.01)


def test_what_is_missing_after_the_most_steps_is_told(network, pixels):
    choice = chosen(network, '3')
    found = attribution.integrated_gradients(network, pixels, choice, tolerance=1e-9, most_steps=27)
    assert found.steps.tolist() == [27] * 4
    total = found.values.sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(total - found.difference, found.error, atol=1e-4)
    assert np.abs(found.error).max() > 1e-6


def test_tripling_the_steps_is_the_mean_of_that_many_gradients(network, pixels):
    choice, image = chosen(network, '5'), pixels[:1]
    start, end = network.inputs(np.zeros_like(image)), network.inputs(image)
    places = (np.arange(81, dtype=np.float32) + np.float32(0.5)) / 81
    points = start + places[:, None, None, None] * (end - start)
    mean = slopes(network, points, choice).mean(0)
    found = attribution.integrated_gradients(network, image, choice, tolerance=0, most_steps=81)
    assert found.steps.tolist() == [81]
    np.testing.assert_allclose(found.values, (end - start) * mean, atol=1e-5)


@pytest.mark.parametrize('baseline', ['black', 'white', 'mean', 'given'])
def test_a_linear_network_gives_weight_times_input_exactly(baseline):
    shape = (4, 5, 3)
    network = untrained('fcn', shape, model__units=8, model__depth=1)
    params = network.variables['params']
    params['dense1']['bias'] += 1000.0  # no unit of it is ever below 0: the network is linear
    images, choice = noisy(3, shape), chosen(network, '2')
    given = noisy(1, shape, seed=5)[0]
    start = np.broadcast_to(given, images.shape)
    if baseline != 'given':
        start = fills.plain(images, baseline)
    found = attribution.integrated_gradients(
        network, images, choice, given if baseline == 'given' else baseline
    )
    kernels = [np.asarray(params[name]['kernel'], np.float64) for name in ('dense1', 'head')]
    weights = (kernels[0] @ kernels[1][:, 2]).reshape(shape)
    expected = weights * (images.astype(np.float64) - start) / 255 / 0.25
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.steps.tolist() == [9, 9, 9]


def test_an_image_that_is_the_baseline_has_nothing_to_explain(network, pixels):
    black = np.zeros_like(pixels[:1])
    found = attribution.integrated_gradients(network, black, chosen(network, '3'))
    assert (found.values == 0).all()
    assert found.error == found.difference == 0


def test_smooth_grad_without_noise_is_the_gradient(network, pixels):
    choice = chosen(network, '6')
    plain = attribution.gradient(network, pixels, choice)
    # tests/inspection/test_opened.py compares that with finite differences.
    expected = slopes(network, network.inputs(pixels), choice)
    np.testing.assert_allclose(plain, expected, atol=1e-5)
    smooth = attribution.smooth_grad(network, pixels, choice, noise=0)
    np.testing.assert_allclose(smooth, plain, atol=1e-6)


def test_smooth_grad_is_the_mean_over_copies_with_noise_of_a_part_of_the_range(network, pixels):
    choice, count = chosen(network, '6'), 200
    found = attribution.smooth_grad(network, pixels[:1], choice, noise=0.2, samples=count)
    image = network.inputs(pixels[:1])[0]
    spread = 0.2 * (image.max() - image.min())

    def mean(seed, sigma):
        noise = np.random.default_rng(seed).normal(size=(count, *image.shape)) * sigma
        copies = (image + noise).astype(np.float32)
        return slopes(network, copies, choice).mean(0)

    # Independent draws agree as well with it as with each other, and draws of another size do not.
    first, second = mean(1, spread), mean(2, spread)
    chance = np.linalg.norm(first - second)
    assert np.linalg.norm(found[0] - first) < 1.3 * chance
    assert np.linalg.norm(found[0] - mean(3, spread / 3)) > 1.3 * chance


def test_smooth_grad_follows_from_its_seed(network, pixels):
    choice = chosen(network, '6')
    first, again, other = (
        attribution.smooth_grad(network, pixels[:1], choice, samples=9, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


METHODS = {
    'gradient': attribution.gradient,
    'smooth_grad': lambda *given: attribution.smooth_grad(*given, samples=12),
    'integrated_gradients': lambda *given: attribution.integrated_gradients(*given).values,
}


@pytest.mark.parametrize('method', METHODS)
def test_no_attribution_depends_on_the_other_images(network, pixels, method):
    choice, compute = chosen(network, '2'), METHODS[method]
    together = compute(network, pixels, choice)
    assert together.shape == pixels.shape
    assert together.dtype == np.float32
    for row in (0, 3):
        alone = compute(network, pixels[row : row + 1], choice)
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


def test_colors_to_compare_with():
    images = noisy(2, (4, 5, 3))
    mean = fills.plain(images, 'mean')
    for image, flat in zip(images, mean, strict=True):
        for channel in range(3):
            assert (flat[..., channel] == round(float(image[..., channel].mean()))).all()
    for name, value in {'black': 0, 'gray': 128, 'white': 255}.items():
        np.testing.assert_array_equal(fills.plain(images, name), np.full_like(images, value))
    with pytest.raises(UserError, match=r'"blak" is no color.* Did you mean "black"\?'):
        fills.plain(images, 'blak')
