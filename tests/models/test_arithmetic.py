"""Convolution arithmetic against counting, and against what the layers really do."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import UserError
from models import arithmetic, layers

windows, strides, paddings = st.integers(1, 7), st.integers(1, 5), st.integers(0, 4)


def placements(size, window, stride, padding):
    """First positions of every window that lies wholly on the padded line."""
    line = range(size + 2 * padding)
    return [start for start in line[::stride] if start + window <= len(line)]


@given(st.integers(1, 40), windows, strides, paddings)
def test_the_size_is_the_number_of_windows_that_fit(size, window, stride, padding):
    found = placements(size, window, stride, padding)
    if not found:
        with pytest.raises(UserError, match='is below 1'):
            arithmetic.output_size(size, window, stride, padding, 'floor')
        return
    assert arithmetic.output_size(size, window, stride, padding, 'floor') == len(found)
    even = found[-1] + window == size + 2 * padding
    if even:
        assert arithmetic.output_size(size, window, stride, padding) == len(found)
    else:
        with pytest.raises(UserError, match='is not whole'):
            arithmetic.output_size(size, window, stride, padding)


@given(st.integers(1, 30), windows, paddings)
def test_exactly_the_strides_that_are_named_fit(size, window, padding):
    named = arithmetic.fitting_strides(size, window, padding)
    for stride in range(1, 40):
        found = placements(size, window, stride, padding)
        even = bool(found) and found[-1] + window == size + 2 * padding
        # A stride beyond the line fits trivially, once: only those up to its length are named.
        if even and (len(found) > 1 or stride == 1):
            assert stride in named
        if stride in named:
            assert even


@given(st.integers(1, 30), windows, strides)
def test_exactly_the_paddings_that_are_named_fit(size, window, stride):
    named = arithmetic.fitting_paddings(size, window, stride)
    for padding in range(window):
        found = placements(size, window, stride, padding)
        even = bool(found) and found[-1] + window == size + 2 * padding
        assert (padding in named) == even


def test_what_does_not_fit_shows_the_sum_and_what_does():
    with pytest.raises(UserError) as caught:
        arithmetic.output_size(7, 3, 3, where='conv1')
    assert str(caught.value) == (
        'conv1 does not fit: (N + 2P - F) / S + 1 = (7 + 2 x 0 - 3) / 3 + 1 = 2.333 is not whole. '
        'With padding 0, stride 1 or 2 or 4 fits; with stride 3, padding 1 fits.'
    )
    with pytest.raises(UserError, match='with stride 2, no padding below 2 does'):
        arithmetic.output_size(7, 2, 2)
    assert arithmetic.output_size(7, 3, 3, rounding='floor') == 2
    assert arithmetic.output_size(7, 3, 3, padding=1) == 3


@pytest.mark.parametrize(
    ('size', 'window', 'stride', 'padding', 'word'),
    [
        (0, 3, 1, 0, 'size'),
        (5, 0, 1, 0, 'window'),
        (5, 3, 0, 0, 'stride'),
        (5, 3, 1, -1, 'padding'),
    ],
)
def test_nonsense_is_refused_by_name(size, window, stride, padding, word):
    with pytest.raises(UserError, match=f'the {word} is '):
        arithmetic.output_size(size, window, stride, padding)


def test_the_padding_that_keeps_the_size():
    assert [arithmetic.same_padding(f) for f in (1, 3, 5, 7)] == [0, 1, 2, 3]
    for size, window in itertools.product((7, 32, 224), (1, 3, 5, 7, 11)):
        assert arithmetic.output_size(size, window, 1, arithmetic.same_padding(window)) == size
    with pytest.raises(UserError, match='odd windows'):
        arithmetic.same_padding(4)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), max_size=5))
def test_receptive_field_by_walking_back(chain):
    """One output, and the output beside it: which inputs does each need?"""

    def needs(first, last):
        for window, stride in reversed(chain):
            first, last = first * stride, last * stride + window - 1
        return first, last

    (first, last), (beside, _) = needs(0, 0), needs(1, 1)
    assert arithmetic.receptive_field(chain) == (last - first + 1, beside - first)


@pytest.mark.parametrize('use_bias', [True, False])
def test_parameters_and_multiply_adds_are_those_of_the_layer(use_bias):
    conv = layers.Conv(6, window=3, stride=2, padding=1, use_bias=use_bias)
    x = jnp.zeros((1, 9, 12, 4))
    variables = conv.init(jax.random.key(0), x)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert arithmetic.convolution_parameters(3, 4, 6, use_bias) == count
    # XLA's own count, two operations a multiply-add; its border windows do less.
    height, width = conv.apply(variables, x).shape[1:3]
    assert arithmetic.convolution_multiply_adds(3, 4, 6, height, width) == 3 * 3 * 4 * 6 * 5 * 6
