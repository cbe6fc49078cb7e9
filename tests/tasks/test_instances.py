"""Background, border and inside of instance maps, against a loop over pixels."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.instances import BACKGROUND, BORDER, INSIDE, Instances, three_classes

MAPS = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    # Few numbers, so that objects are larger than a pixel; the largest that a map can have.
    elements=st.sampled_from([0, 1, 1, 1, 1, 1, 2, 65_535, -1]),
    fill=st.sampled_from([0, 1]),
)


def slow(instances, border):
    """The sentence of the docstring, pixel by pixel."""
    classes = np.full(instances.shape, BACKGROUND)
    for b, y, x in itertools.product(*map(range, instances.shape)):
        own = instances[b, y, x]
        if own > 0:
            near = instances[
                b, max(y - border, 0) : y + border + 1, max(x - border, 0) : x + border + 1
            ]
            others = [value for value in near.ravel() if value not in (own, -1)]
            classes[b, y, x] = BORDER if others else INSIDE
    return classes


@settings(max_examples=150, deadline=None)
@given(instances=MAPS, border=st.integers(1, 4))
def test_three_classes_are_what_a_loop_over_pixels_finds(instances, border):
    classes, known = three_classes(instances, border, np)
    assert (classes.dtype, known.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(classes, slow(instances, border))
    np.testing.assert_array_equal(known, instances != -1)


@pytest.mark.parametrize('border', [1, 3])
def test_numpy_and_jax_say_the_same(border):
    rng = np.random.default_rng(1)
    instances = np.repeat(np.repeat(rng.integers(-1, 4, (2, 6, 7)), 5, 1), 4, 2).astype(np.int32)
    instances[instances == 3] = 65_535
    task = Instances(num_classes=3, border=border)
    host = task.classes({'instance_map': instances})
    device = task.classes({'instance_map': jnp.asarray(instances)})
    for a, b in zip(host, device, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(host[0], slow(instances, border))


def test_objects_that_touch_have_a_border_between_them():
    instances = np.zeros((1, 7, 12), np.int32)
    instances[0, 1:6, 1:6], instances[0, 1:6, 6:11] = 1, 2
    classes, _ = three_classes(instances, 1, np)
    assert (classes[0, 3] == [0, 1, 2, 2, 2, 1, 1, 2, 2, 2, 1, 0]).all()


def test_neither_the_edge_of_the_map_nor_the_unknown_is_a_border():
    instances = np.full((1, 6, 6), 4, np.int32)
    instances[0, :, 4:] = -1
    classes, known = three_classes(instances, 2, np)
    assert (classes[0, :, :4] == INSIDE).all()
    assert not known[0, :, 4:].any()
