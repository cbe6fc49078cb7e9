"""Heat maps in color: sizes, values, scales."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inspection import overlay

FINITE = st.floats(-1e6, 1e6, width=32)


def bilinear(heat, height, width):
    """The slow way: cells cover equal parts, and values are interpolated between their centers."""
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            row = np.clip((y + 0.5) * heat.shape[0] / height - 0.5, 0, heat.shape[0] - 1)
            column = np.clip((x + 0.5) * heat.shape[1] / width - 0.5, 0, heat.shape[1] - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, heat.shape[0] - 1), min(left + 1, heat.shape[1] - 1)
            down, across = row - top, column - left
            result[y, x] = (1 - down) * (
                (1 - across) * heat[top, left] + across * heat[top, right]
            ) + down * ((1 - across) * heat[bottom, left] + across * heat[bottom, right])
    return result


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32)))
def test_a_map_is_enlarged_bilinearly(heat):
    np.testing.assert_allclose(overlay.resized(heat, 12, 8), bilinear(heat, 12, 8), atol=1e-4)


@given(arrays.arrays(np.float32, (2, 3), elements=FINITE), st.booleans(), st.sampled_from((1, 3)))
def test_any_map_can_be_laid_over_a_picture_in_gray_or_color(heat, signed, channels):
    picture = np.full((6, 6, channels), 128, np.uint8)
    scale = overlay.scale_of(heat, signed=signed)
    assert scale.low < scale.high
    laid = overlay.lay_over(picture, heat, scale)
    assert laid.shape == (6, 6, 3)
    assert laid.dtype == np.uint8
    np.testing.assert_array_equal(overlay.lay_over(picture, heat, scale, opacity=0), 128)
    laid = overlay.lay_over(picture, heat, scale, opacity=1)
    values = overlay.resized(heat, 6, 6)
    if signed:  # the picture is seen where the map says nothing
        np.testing.assert_array_equal(laid[values == 0], 128)
        assert (laid[values >= scale.high] == scale.colors(np.array(0.8 * scale.high))).all()
        assert (laid[values <= scale.low] == scale.colors(np.array(0.8 * scale.low))).all()
    else:
        np.testing.assert_array_equal(laid, scale.colors(values))


def test_a_scale_can_leave_out_the_largest_values():
    values = np.append(np.linspace(-1, 1, 999), 1000.0)
    scale = overlay.scale_of(values, signed=True, share=0.99)
    assert 0.9 < scale.high < 1
    np.testing.assert_array_equal(scale.colors(values[-1:]), scale.colors(np.array([scale.high])))
    sparse = np.append(np.zeros(999), 3.0)
    assert overlay.scale_of(sparse, share=0.9).high == 3


def test_larger_values_are_brighter_and_the_sign_is_a_color():
    luminance = overlay.scale_of(np.array([2.0])).colors(np.linspace(0, 2, 20)) @ (0.3, 0.6, 0.1)
    assert (np.diff(luminance) > 0).all()
    scale = overlay.scale_of(np.array([-4.0, 1.0]), signed=True)
    assert (scale.low, scale.high) == (-4, 4)
    against, nothing, little, much = scale.colors(np.array([-4.0, 0.0, 1.0, 4.0])).astype(int)
    assert against[2] > against[0]
    assert much[0] > much[2]
    assert little[0] > little[2]
    assert nothing.min() > 240


def test_a_map_of_zeros_has_the_color_of_zero_everywhere():
    scale = overlay.scale_of(np.zeros((2, 2)))
    assert (scale.low, scale.high) == (0, 1)
    np.testing.assert_array_equal(scale.colors(np.zeros(1)), [[68, 1, 84]])
