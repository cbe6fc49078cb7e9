"""Boxes in pictures: where their lines are, and how right, wrong and missed ones differ."""

import numpy as np
import pytest

from tasks.box_overlays import MISSED, RIGHT, WRONG, boxes
from tasks.overlays import color_of

BOX = np.array([(5.0, 6.0, 25.0, 40.0)], np.float32)


def drawn(edges=BOX, classes=(0,), shape=(50, 60), **options):
    image = np.full((*shape, 3), 100, np.uint8)
    answer = boxes(image, np.asarray(edges), np.asarray(classes), **options)
    assert answer.dtype == np.uint8
    assert answer.shape == image.shape
    assert (image == 100).all()
    return answer


def colored(picture, label=0):
    """Which pixels have the color of a class."""
    return (picture == color_of(label + 1)).all(axis=-1)


def frame(top, left, bottom, right, shape=(50, 60)):
    """Which pixels are the outermost ones of a box."""
    inside = np.zeros(shape, bool)
    inside[top:bottom, left:right] = True
    inside[top + 1 : bottom - 1, left + 1 : right - 1] = False
    return inside


def test_the_line_lies_on_the_outermost_pixels_of_the_box():
    picture = drawn()
    np.testing.assert_array_equal(colored(picture), frame(5, 6, 25, 40))
    assert (picture[~frame(5, 6, 25, 40)] == 100).all()


def test_a_box_of_the_whole_picture_can_be_seen():
    np.testing.assert_array_equal(colored(drawn([(0, 0, 50, 60)])), frame(0, 0, 50, 60))


@pytest.mark.parametrize('shape', [(50, 60), (300, 400)])
def test_right_wrong_and_missed_ones_differ(shape):
    scale = shape[0] // 50
    right, wrong, missed = (
        colored(drawn(BOX * scale, shape=shape, marks=[mark])) for mark in (RIGHT, WRONG, MISSED)
    )
    assert (wrong | right).sum() == wrong.sum() > right.sum()
    assert wrong[15 * scale - 1 : 15 * scale + 2, 23 * scale - 1 : 23 * scale + 2].any()
    assert (missed & right).sum() == missed.sum()  # a part of the same line
    assert 0.3 < missed.sum() / right.sum() < 0.8


def test_lines_in_a_large_picture_are_wide_and_have_dark_edges():
    picture = drawn([(50, 60, 250, 340)], shape=(320, 400))
    assert colored(picture)[150].sum() == 4  # two lines of two pixels
    darker = (picture == np.array(color_of(1)) // 4).all(axis=-1)
    assert darker[150].nonzero()[0].tolist() == [59, 62, 337, 340]


def test_the_first_box_is_on_top_and_classes_have_their_colors():
    picture = drawn([(5, 6, 25, 40), (5, 6, 25, 40), (30, 6, 40, 40)], [1, 0, 2])
    np.testing.assert_array_equal(colored(picture, 1), frame(5, 6, 25, 40))
    np.testing.assert_array_equal(colored(picture, 2), frame(30, 6, 40, 40))
    assert not colored(picture, 0).any()


def test_captions_are_written_where_there_is_room():
    edges = [(100, 60, 250, 340)]
    plain = drawn(edges, shape=(320, 400))
    picture = drawn(edges, shape=(320, 400), captions=['cat 98%'])
    changed = (picture != plain).any(axis=-1)
    assert changed[:100].any()
    assert not changed[103:].any()
    np.testing.assert_array_equal(drawn(captions=['cat']), drawn())  # too small a picture


@pytest.mark.parametrize(
    'caption', ['', '\u732b', '$\\frac{1$', 'x' * 5000, '\u0441\u043e\u0431\u0430\u043a\u0430']
)
def test_a_caption_of_any_text_stays_in_the_picture(caption):
    edges = [(0, 0, 50, 340), (100, 390, 160, 400)]
    picture = drawn(edges, [0, 3], (320, 400), captions=[caption] * 2)
    assert colored(picture, 3)[100:160].any()


@pytest.mark.parametrize(
    'edges',
    [
        np.zeros((0, 4)),
        [(-90, -90, 0, 0)],
        [(60, 5, 90, 9)],
        [(5, 60, 9, 90)],
    ],
)
def test_what_lies_outside_is_not_drawn(edges):
    for captions in ((), ['name'] * len(edges)):
        picture = drawn(edges, [0] * len(edges), captions=captions)
        assert (picture == 100).all()
        far = np.asarray(edges, float) * 10
        assert (drawn(far, [0] * len(edges), (500, 600), captions=captions) == 100).all()


def test_boxes_that_are_partly_outside_or_tiny_are_drawn():
    picture = drawn([(-9, -9, 20, 20), (40, 50, 99, 99), (30.2, 30.2, 30.4, 30.4)], [0, 1, 2])
    assert colored(picture, 0)[19, :20].all()
    assert colored(picture, 1)[40, 50:].all()
    assert 1 <= colored(picture, 2).sum() <= 2
    for mark in (WRONG, MISSED):
        assert colored(drawn([(30.2, 30.2, 30.4, 30.4)], [2], marks=[mark]), 2).any()
