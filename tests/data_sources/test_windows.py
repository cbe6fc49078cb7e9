"""Crops at a picture's own scale: where they lie, and what they hold, against slow versions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_sources import cropping, decoding
from data_sources.cropping import Box
from data_sources.draws import Draws
from tests.data_sources.test_decoding import encode, photograph


def window_box(seed, height, width, size, zoom=(1.0, 1.0)):
    return cropping.window_box(Draws(seed, 'crop', 0, 0), height, width, size, zoom)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.integers(1, 200),
    low=st.floats(0.1, 2.0),
    factor=st.floats(1.0, 4.0),
)
def test_a_box_is_a_square_in_its_picture_or_around_it(seed, height, width, size, low, factor):
    box = window_box(seed, height, width, size, (low, low * factor))
    assert box.height == box.width
    assert max(1, round(size * low)) <= box.height <= max(1, round(size * low * factor))
    for start, length in ((box.top, height), (box.left, width)):
        if box.height <= length:
            assert 0 <= start <= length - box.height
        else:
            assert start <= 0
            assert length <= start + box.height


@pytest.mark.parametrize('shape', [(9, 6), (5, 3), (1, 8)])
def test_each_place_is_as_likely_as_any_other(shape):
    boxes = [window_box(seed, *shape, 6) for seed in range(1200)]
    for places, length in ((0, shape[0]), (1, shape[1])):
        found, counts = np.unique([box[places] for box in boxes], return_counts=True)
        first, last = min(0, length - 6), max(0, length - 6)
        np.testing.assert_array_equal(found, np.arange(first, last + 1))
        expected = 1200 / len(found)
        assert (abs(counts - expected) < 5 * math.sqrt(expected)).all()


def test_half_of_the_boxes_are_smaller_than_the_geometric_mean():
    sides = [window_box(seed, 2000, 2000, 100, (0.25, 4.0)).height for seed in range(1000)]
    assert abs(np.mean(np.array(sides) < 100) - 0.5) < 0.08
    assert min(sides) < 30
    assert max(sides) > 330


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    side=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_window_holds_the_pictures_pixels_and_black_outside(height, width, side, seed):
    pixels = np.random.default_rng(seed).integers(1, 256, (height, width, 3), np.uint8)
    encoded = encode(pixels, 'PNG')
    frame = decoding.read_frame(encoded)
    box = window_box(seed, height, width, side)
    found = cropping.decode_window(encoded, frame, box, side)
    expected = np.zeros((side, side, 3), np.uint8)
    for y in range(max(0, -box.top), min(side, height - box.top)):
        for x in range(max(0, -box.left), min(side, width - box.left)):
            expected[y, x] = pixels[box.top + y, box.left + x]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('box', [Box(-7, 10, 80, 80), Box(5, -30, 140, 140), Box(20, 30, 24, 24)])
def test_a_zoomed_window_is_the_window_resized(box):
    encoded = encode(photograph(100, 90), 'PNG')
    frame = decoding.read_frame(encoded)
    own = cropping.decode_window(encoded, frame, box, box.height)
    found = cropping.decode_window(encoded, frame, box, 48)
    np.testing.assert_array_equal(found, cropping.resize(own, (48, 48)))
