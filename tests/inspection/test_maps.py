"""Feature maps: what the frame says is what the middle of a map sees; and their pictures."""

import math

import numpy as np
import pytest

from data_sources import digits
from inspection import maps
from models.trace import Stage
from tests.inspection.drawn import pixels_of


def center_of(network, images, name):
    """The values of a stage at the middle of its maps, [b, channels]."""
    values = network.look(images).stages[name]
    height, width = values.shape[1:3]
    return values[:, height // 2, width // 2]


@pytest.mark.parametrize('name', ['conv1', 'pool1', 'conv2', 'pool2'])
def test_the_middle_of_a_map_sees_what_is_in_its_frame_and_nothing_else(network, name):
    stage = network.trace.stages[name]
    height, width = stage.shape[:2]
    top, left, side = stage.field(height // 2, width // 2)
    assert top >= 0 <= left
    assert top + side <= 28 >= left + side
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (28, 28, 1), dtype=np.uint8)
    other = rng.integers(0, 256, (28, 28, 1), dtype=np.uint8)
    rows, columns = slice(top, top + side), slice(left, left + side)
    outside = other.copy()
    outside[rows, columns] = image[rows, columns]
    before, after = center_of(network, np.stack([image, outside]), name)
    np.testing.assert_allclose(after, before, atol=1e-5)
    # Each of the frame's four sides counts: another picture in it changes some channel.
    for side_rows, side_columns in (
        (top, columns), (top + side - 1, columns), (rows, left), (rows, left + side - 1),
    ):  # fmt: skip
        changed = np.repeat(image[None], 16, 0)
        for one in changed:
            one[side_rows, side_columns] = rng.integers(0, 2) * 255
            one[side_rows, side_columns] ^= rng.integers(0, 256, (side, 1), dtype=np.uint8)
        different = center_of(network, np.concatenate([image[None], changed]), name)
        assert np.abs(different[1:] - different[0]).max() > 1e-3


def test_a_stage_that_sees_everything_has_no_frame():
    assert Stage((84,), None, math.inf, None).field(0, 0) is None


def test_a_picture_says_what_its_stage_is(network):
    pixels = digits.load('test').images[0]
    look = network.look(pixels[None])
    for name in ('conv1', 'pool2', 'dense1'):
        stage = network.trace.stages[name]
        png, caption = maps.drawn(pixels, look.stages[name][0], stage, name, 'seven')
        assert caption.startswith(f'seven, {name}: ')
        if len(stage.shape) == 3:
            height, width, channels = stage.shape
            assert f'{height}x{width}, {channels} channels' in caption
            side = stage.receptive_field
            assert f'Stride {stage.stride}, receptive field {side}x{side} pixels' in caption
        else:
            not_zero = sum(value != 0 for value in look.stages[name][0])
            assert f'{len(look.stages[name][0])} units, {not_zero} of them not 0' in caption
        assert pixels_of(png).std() > 0.01


@pytest.mark.parametrize(
    ('shape', 'said'),
    [
        ((3, 3, 1), '3x3, 1 channel.'),
        ((1, 1, 100), '100 channels, of which the first 64 are shown'),
        ((2, 5, 9), '2x5, 9 channels'),
        ((224, 224, 2), '224x224, 2 channels'),
        ((4096,), '4,096 units'),
    ],
)
def test_maps_of_any_size_are_drawn_signed_or_not(shape, said):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places = len(shape) == 3
    stage = Stage(shape, 1 if places else None, 43 if places else math.inf, -9 if places else None)
    pixels = np.zeros((200, 300, 3), np.uint8)
    png, caption = maps.drawn(pixels, values if values.size % 2 else np.abs(values), stage, 'stage')
    assert said in caption
    assert pixels_of(png).shape[1] < 1300


@pytest.mark.parametrize('shape', [(2, 3, 4), (300,)])
@pytest.mark.parametrize('value', [0, np.nan])
def test_maps_without_anything_to_see_are_drawn_all_the_same(shape, value):
    stage = Stage(shape, 4, 43, -9)
    maps.drawn(np.zeros((8, 8, 1), np.uint8), np.full(shape, value, np.float32), stage, 'stage')


def test_the_frame_is_drawn_where_it_is_not_the_whole_picture(network):
    pixels, values = np.zeros((28, 28, 1), np.uint8), np.ones((10, 10, 4), np.float32)
    red = np.array((0xD1, 0x49, 0x5B)) / 255
    inside = Stage((10, 10, 4), 2, 14, 0)
    for stage, drawn in ((inside, True), (Stage((10, 10, 4), 2, 100, -40), False)):
        png, caption = maps.drawn(pixels, values, stage, 'stage')
        found = (np.abs(pixels_of(png) - red).max(-1) < 0.02).any()
        assert found == drawn
        assert ('The frame is' in caption) == drawn
        assert ('sees the whole picture' in caption) != drawn
