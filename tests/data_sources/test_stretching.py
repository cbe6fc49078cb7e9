"""Stretching of contrast against a slow version in fractions, and pictures of every depth."""

import fractions
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from data_sources import stretching

INTEGERS = st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.dtype('>u2')])
SHAPES = st.one_of(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
)


def slow(values, percentile):
    """The definition, in exact numbers."""
    ordered = sorted(values.ravel().tolist())
    behind = math.floor(percentile / 100 * (len(ordered) - 1))
    low, high = ordered[behind], ordered[len(ordered) - 1 - behind]

    def level(value):
        if low == high:
            return 255 if value > high else 0
        part = fractions.Fraction(min(max(value, low), high) - low) / (high - low)
        return math.floor(part * 255 + fractions.Fraction(1, 2))

    return np.array([level(value) for value in values.ravel().tolist()]).reshape(values.shape)


@settings(max_examples=150, deadline=None)
@given(st.data(), INTEGERS, SHAPES, st.sampled_from([0, 0.5, 2, 25, 49.9]))
def test_whole_numbers_are_stretched_exactly(data, dtype, shape, percentile):
    most = min(np.iinfo(dtype).max, 2**40)
    elements = st.integers(max(np.iinfo(dtype).min, -(2**40)), most)
    values = data.draw(hnp.arrays(dtype, shape, elements=elements))
    found = stretching.stretched(values, percentile)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, slow(values, percentile))


def test_fractions_and_what_is_no_number():
    values = np.array([[0.25, 0.5, 0.75], [np.nan, np.inf, 1.0]], np.float32)
    found = stretching.stretched(values, 0)
    np.testing.assert_array_equal(found, [[64, 128, 191], [0, 0, 255]])


def test_the_limits_are_common_to_all_channels():
    values = np.zeros((1, 2, 3), np.uint8)
    values[0, 1] = 10, 50, 100
    found = stretching.stretched(values, 0)
    assert found[0, 1].tolist() == [26, 128, 255]  # 25.5 is rounded up


def test_one_pixel_and_no_pixel():
    assert stretching.stretched(np.array([[77]], np.uint16), 1).tolist() == [[0]]
    assert stretching.stretched(np.zeros((0, 3), np.uint16), 1).shape == (0, 3)


def test_a_few_hot_pixels_do_not_darken_the_rest():
    values = np.random.default_rng(0).integers(900, 1_100, (100, 100)).astype(np.uint16)
    values[0, :5] = 65_535
    assert stretching.stretched(values, 0)[1:].max() <= 1
    assert np.ptp(stretching.stretched(values, 0.5)[1:]) == 255


def opened(picture, form='PNG'):
    file = io.BytesIO()
    picture.save(file, form)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize('form', ['PNG', 'TIFF'])
def test_a_deep_picture_keeps_its_depth_until_it_is_stretched(form):
    values = (np.arange(256, dtype=np.uint16) + 1000).reshape(16, 16)
    with opened(Image.fromarray(values), form) as picture:
        found = stretching.picture(picture, 0)
    assert found.mode == 'L'
    np.testing.assert_array_equal(np.asarray(found), np.arange(256).reshape(16, 16))


def test_pictures_of_other_modes():
    pixels = np.random.default_rng(1).integers(50, 150, (8, 8, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    expected = stretching.stretched(pixels[..., :3], 1)
    for mode in ('RGBA', 'RGB'):
        with opened(Image.fromarray(pixels).convert(mode)) as picture:
            found = stretching.picture(picture, 1)
        assert found.mode == 'RGB'
        np.testing.assert_array_equal(np.asarray(found), expected)
    with opened(Image.fromarray(pixels[..., 0] > 99)) as picture:
        assert set(np.unique(stretching.picture(picture, 0))) == {0, 255}
