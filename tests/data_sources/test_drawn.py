"""Digits drawn on a canvas: the hundred that are measured, and what the network gets of them."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_sources import digits, handwriting
from tests.data_sources import drawn
from tests.data_sources.hands import FORMS, HANDS

# Of the pixels, so that nobody tunes the drawings to a network without saying so.
SHA256 = 'e8a4b3eb23418724a51eba48a468522960033cc3cef80ecd5ab0ca5c43ff6d46'


def test_the_hundred_are_balanced():
    for column, names in enumerate((drawn.STYLES, HANDS, range(10))):
        assert Counter(key[column] for key in drawn.HUNDRED) == dict.fromkeys(names, 10)
    for pair in ((0, 1), (0, 2), (1, 2)):  # each hand once in each style, and so on
        assert len({tuple(key[i] for i in pair) for key in drawn.HUNDRED}) == 100
    assert set(drawn.HUNDRED) < set(drawn.ALL)


def test_no_two_hands_use_the_same_forms():
    assert len({hand.forms for hand in HANDS.values()}) == len(HANDS)
    for digit, forms in FORMS.items():
        assert {hand.forms[digit] for hand in HANDS.values()} == set(forms)


def test_the_hundred_are_the_same_bits_everywhere():
    digest = hashlib.sha256()
    for key in drawn.HUNDRED:
        digest.update(drawn.drawing(*key).tobytes())
    assert digest.hexdigest() == SHA256


def test_lines_are_drawn_as_a_canvas_draws_them():
    """Beside Pillow's lines and circles at eight times the size."""
    points, pen = np.array([(40.5, 60.0), (150.0, 71.0), (150.0, 71.0), (90.0, 250.5)]), 21.0
    ours = np.zeros((drawn.SIDE, drawn.SIDE))
    drawn.draw(ours, points, pen)
    large = Image.new('L', (8 * drawn.SIDE, 8 * drawn.SIDE))
    pencil = ImageDraw.Draw(large)
    pencil.line([tuple(8 * point) for point in points], 255, round(8 * pen))
    for x, y in 8 * points:
        r = 4 * pen
        pencil.ellipse((x - r, y - r, x + r, y + r), 255)
    theirs = np.asarray(large.reduce(8)) / 255
    assert np.abs(ours - theirs).mean() < 1e-3
    assert np.abs(ours - theirs).max() < 0.3


def seen(image: np.ndarray, name: str) -> np.ndarray:
    return handwriting.normalize(image, 28, 28, name=name).astype(float)


@pytest.mark.parametrize('name', ['mnist', 'digits'])
def test_white_on_black_and_black_on_white_are_the_same_to_a_network(name):
    for style, hand, digit in drawn.HUNDRED[::21]:
        bright = seen(drawn.drawing(style, hand, digit, bright=True), name)
        dark = seen(drawn.drawing(style, hand, digit, bright=False), name)
        assert np.abs(bright - dark).max() <= 3, (style, hand, digit)


@pytest.mark.slow
def test_drawn_digits_come_close_to_the_embedded_ones():
    """Without a network: the class of the nearest training digit."""
    source = digits.load('train')
    known = source.images.reshape(len(source.images), -1).astype(np.float32)
    labels, right = source.labels, 0
    for style, hand, digit in drawn.HUNDRED[::3]:  # 34 of them, of all hands and digits
        image = seen(drawn.drawing(style, hand, digit), 'digits').ravel()
        right += labels[((known - image) ** 2).sum(1).argmin()] == digit
    assert right >= 29


def line(*points: tuple[float, float], pen: float = 20) -> np.ndarray:
    ink = np.zeros((drawn.SIDE, drawn.SIDE))
    drawn.draw(ink, np.array(points, float), pen)
    return np.rint(ink * 255).astype(np.uint8)


@pytest.mark.parametrize('name', ['mnist', 'digits'])
def test_a_character_at_the_edge_of_the_canvas_is_not_taken_for_the_edge(name):
    inside = line((140, 80), (140, 200))
    for x in (0, 6, 278):
        for image in (line((x, 80), (x, 200)), 255 - line((x, 80), (x, 200))):
            assert np.corrcoef(seen(image, name).ravel(), seen(inside, name).ravel())[0, 1] > 0.8


def test_both_strokes_of_a_character_are_kept_where_one_touches_the_edge():
    """The bar of a 5 is a stroke of its own."""
    body = ((110, 40), (90, 120), (180, 140), (170, 220), (90, 230))
    apart = np.maximum(line((100, 12), (190, 12)), line(*body))
    touching = np.maximum(line((100, 5), (190, 5)), line(*body))
    for image in (apart, touching):
        top = seen(image, 'mnist')[4:7]
        assert (top.max(0) > 127).sum() >= 6, 'the bar is lost'


def test_a_bare_1_is_a_stroke_and_not_a_block():
    image = seen(line((140, 60), (140, 220)), 'digits')
    assert (image.max(0) > 127).sum() <= 9  # of 20: a training digit's are 10 in the mean


def test_a_slant_is_halved_for_the_embedded_digits():
    leaning = line((180, 60), (100, 220))
    image = seen(leaning, 'digits')
    rows, columns = np.nonzero(image > 127)
    upper, lower = columns[rows < 8].mean(), columns[rows > 19].mean()
    assert 0 < upper - lower < 8, 'it leaned by half of its height'
