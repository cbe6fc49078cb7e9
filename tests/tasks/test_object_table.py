"""Objects are measured as scikit-image measures them, and drawn where they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from skimage.measure import label, regionprops

from tasks import object_table, objects, overlays

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def maps(highest):
    numbers = st.integers(0, highest)
    return SHAPES.flatmap(lambda shape: hypothesis_numpy.arrays(np.int32, shape, elements=numbers))


@settings(max_examples=100, deadline=None)
@given(maps(5))
def test_rows_are_those_of_scikit_image(instances):
    instances = objects.numbered(instances)
    expected = regionprops(instances)
    rows = object_table.rows(instances, ['object'] * len(expected))
    for row, region in zip(rows, expected, strict=True):
        box = tuple(row[name] for name in ('top', 'left', 'bottom', 'right'))
        center = (row['center_y'], row['center_x'])
        assert (row['id'], row['area'], box) == (region.label, region.area, region.bbox)
        assert center == pytest.approx(region.centroid, abs=0.006)


@settings(max_examples=100, deadline=None)
@given(maps(3))
def test_parts_of_a_label_map_are_those_of_scikit_image(labels):
    found, classes = object_table.parts(labels.astype(np.uint8))
    expected = label(labels, background=0, connectivity=1)
    np.testing.assert_array_equal(objects.numbered(found), objects.numbered(expected))
    assert len(classes) == expected.max()
    np.testing.assert_array_equal(np.array([0, *classes])[found], labels)


def test_rows_are_in_the_order_of_numbers_and_have_their_classes():
    instances = np.array([[2, 2, 0], [0, 0, 1]])
    first, second = object_table.rows(instances, ['a', 'b'])
    assert (first['class'], first['center_y'], first['center_x']) == ('a', 1, 2)
    assert (second['class'], second['center_y'], second['center_x']) == ('b', 0, 0.5)
    assert object_table.rows(np.zeros((2, 2), np.int32), []) == []


@settings(max_examples=50, deadline=None)
@given(maps(3), st.integers(0, 255))
def test_a_drawing_leaves_the_background_and_colors_the_rest(numbers, brightness):
    image = np.full((*numbers.shape, 3), brightness, np.uint8)
    drawings = overlays.label_map(image, numbers), overlays.instance_map(image, numbers)
    for drawn in drawings:
        assert drawn.dtype == np.uint8
        changed = (drawn != image).any(axis=-1)
        np.testing.assert_array_equal(changed, numbers > 0)


def test_classes_look_different_and_what_is_unknown_is_gray():
    labels = np.repeat(np.array([*range(11), 255], np.uint8), 6).reshape(-1, 6).repeat(6, 0)
    drawn = overlays.label_map(np.zeros((*labels.shape, 3), np.uint8), labels)
    colors = drawn[3::6, 3].astype(int)  # inside, away from the outlines
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 1000 * np.eye(len(colors), dtype=int)
    assert apart.min() > 20
    assert np.ptp(colors[-1]) == 0
    unknown = overlays.instance_map(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), -1))
    assert (np.ptp(unknown, axis=-1) == 0).all()
    assert unknown.any()
