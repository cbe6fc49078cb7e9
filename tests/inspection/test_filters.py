"""Sheets of filters: which weights stand where, for layers of every kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import UserError
from inspection import distribution, drawing, filters
from tests.inspection.drawn import pixels_of, untrained
from tests.models.declared import SMALL
from tests.support import most_slow


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 30),
    st.tuples(st.integers(1, 5), st.integers(1, 5)), st.booleans(),
)  # fmt: skip
def test_every_number_of_a_tile_is_a_square_of_its_place(
    rows, columns, height, width, cell, gap, color
):
    shape = (rows, columns, height, width) + (3,) * color
    tiles = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    mosaic = drawing.mosaic(tiles, cell, gap)
    factor = mosaic.height // height
    assert factor * height == mosaic.height
    assert factor * width == mosaic.width
    expected = np.full_like(mosaic.picture, np.nan)
    for i in range(rows):
        for j in range(columns):
            for y in range(height):
                for x in range(width):
                    top, left = i * mosaic.down + y * factor, j * mosaic.right + x * factor
                    expected[top : top + factor, left : left + factor] = tiles[i, j, y, x]
    np.testing.assert_array_equal(mosaic.picture, expected)
    assert (mosaic.down, mosaic.right) == (mosaic.height + gap[0], mosaic.width + gap[1])


def test_a_grid_is_filled_up_with_nothing():
    found = drawing.grid(np.arange(5.0)[:, None, None], 3)
    np.testing.assert_array_equal(found[..., 0, 0], [[0, 1, 2], [3, 4, np.nan]])


@given(st.integers(1, 300), st.integers(2, 60))
def test_chosen_numbers_are_spread_from_the_first_to_the_last(count, most):
    found = drawing.spread(count, most)
    assert len(found) == min(count, most)
    assert (found[0], found[-1]) == (0, count - 1)
    steps = np.diff(found)
    assert not steps.size or 1 <= steps.min() <= steps.max() <= steps.min() + 1


def test_a_first_filter_is_drawn_in_gray_with_the_largest_weight_white():
    network = untrained('lenet')
    kernel = network.variables['params']['conv1']['kernel']
    kernel = np.zeros(kernel.shape, np.float32)
    kernel[1, 3, 0, 2], kernel[4, 0, 0, 5] = 0.5, -0.5
    network.variables['params']['conv1']['kernel'] = kernel
    png, caption = filters.sheet(network, 'conv1')
    assert '6 filters of 5x5x1' in caption
    assert 'black -0.5, white 0.5' in caption
    picture = pixels_of(png)
    gray = np.isclose(picture, 0.5, atol=0.01).all(-1)
    square = round(84 / 5) ** 2
    # All but two of the 150 weights are 0, which is mid-gray.
    assert gray.sum() == pytest.approx(148 * square, rel=0.05)
    black = (picture < 0.01).all(-1)
    assert black.sum() == pytest.approx(square, rel=0.15)


def test_filters_of_color_pictures_are_drawn_in_color():
    network = untrained('deep_cnn', (28, 28, 3))
    kernel = np.zeros(network.variables['params']['conv1']['kernel'].shape, np.float32)
    kernel[..., 0, :] = 1  # red
    network.variables['params']['conv1']['kernel'] = kernel
    png, caption = filters.sheet(network, 'conv1')
    assert 'each color goes from -1 (dark) to 1 (bright)' in caption
    assert (np.abs(pixels_of(png) - (1, 0.5, 0.5)).max(-1) < 0.01).mean() > 0.3


def test_the_weights_of_a_dense_layer_behind_a_map_are_those_for_its_places():
    network = untrained('lenet')
    kernel = filters.kernel_of(network, 'dense1')
    assert kernel.shape == '5x5x16 weights'
    dense = network.variables['params']['dense1']['kernel']
    for y, x, channel in ((0, 0, 0), (4, 1, 15), (2, 3, 7)):
        maps = np.zeros((1, 5, 5, 16), np.float32)
        maps[0, y, x, channel] = 1
        # models/network.py: the last map is flattened for the layers after it.
        expected = network.model.pool_features(maps) @ dense
        np.testing.assert_allclose(kernel.values[y, x, channel], expected[0])


def test_the_first_layer_of_a_fully_connected_network_is_drawn_as_images():
    network = untrained('fcn', units=100)
    assert filters.kernel_of(network, 'dense1').values.shape == (28, 28, 1, 100)
    _, caption = filters.sheet(network, 'dense1')
    assert caption.startswith('dense1: the first 64 of 100 units of 28x28x1 weights. Mid-gray')
    assert filters.kernel_of(network, 'dense2').values.shape == (1, 1, 100, 100)


@pytest.mark.parametrize('name', most_slow(SMALL, ()))
def test_every_layer_has_a_sheet_or_a_sentence(name):
    options, size = SMALL[name]
    network = untrained(name, (size, size, 1), **options)
    names = filters.layers(network)
    for layer in drawing.spread(len(names), 4):
        png, caption = filters.sheet(network, names[layer])
        assert caption.startswith(f'{names[layer]}: ')
        assert pixels_of(png).std() > 0.01
    kinds = {layer.kind: layer for layer in network.trace.layers if layer.name not in names}
    for kind, layer in kinds.items():
        if 'norm' in kind:
            _, caption = filters.sheet(network, layer.name)
            assert 'scale, bias, mean, var' in caption
        else:
            with pytest.raises(UserError, match=f'{layer.name} has no weights: it is {kind}'):
                filters.sheet(network, layer.name)
    png, caption = distribution.overview(network)
    assert f'{len(names)} layer' in caption
    assert pixels_of(png).std() > 0.01


@pytest.mark.slow
def test_what_is_left_out_of_a_large_layer_is_said():
    network = untrained('vgg11_bn', (32, 32, 3), width=0.5, stem='cifar')
    _, caption = filters.sheet(network, filters.layers(network)[2])
    assert 'the first 16 of 128 filters of 3x3x64, by the first 16 of 64 channels' in caption


def test_weights_that_are_not_finite_are_drawn_all_the_same():
    network = untrained('lenet')
    for name in ('conv1', 'conv2', 'head'):
        kernel = np.full(network.variables['params'][name]['kernel'].shape, np.nan, np.float32)
        network.variables['params'][name]['kernel'] = kernel
        filters.sheet(network, name)
    distribution.overview(network)
