"""Occlusion against a slow loop, and where its windows lie."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_sources import digits
from inspection.occlusion import occlusion, positions
from inspection.opened import BATCH
from tests.inspection.untrained import chosen


def test_each_value_is_the_fall_of_the_logit_with_a_window_hidden(network):
    images = digits.load('test').images[:2]
    choice = chosen(network, '4')
    found = occlusion(network, images, choice, window=6, stride=4, fill='gray')
    assert found.shape == (2, 7, 7)

    def logits(pictures):
        filled = np.stack([*pictures, *[images[0]] * (BATCH - len(pictures))])
        return network.score(network.inputs(filled), choice)[: len(pictures)]

    places = [(row, column) for row in (0, 2, 6) for column in (0, 1, 6)]
    for image, heat in zip(images, found, strict=True):
        hidden = [image.copy() for _ in places]
        for picture, (row, column) in zip(hidden, places, strict=True):
            # Cells of 4 pixels, and a window that has a pixel more on each side.
            for y in range(row * 4 - 1, row * 4 + 5):
                for x in range(column * 4 - 1, column * 4 + 5):
                    if 0 <= y < 28 and 0 <= x < 28:
                        picture[y, x] = 128
        whole, *rest = logits([image, *hidden])
        np.testing.assert_allclose([heat[place] for place in places], whole - rest, atol=1e-4)
    assert np.abs(found).max() > 0.5


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_windows_lie_in_the_middle_of_equal_parts_of_the_picture(side, window, cells):
    found = positions(side, window, cells)
    assert len(found) == cells
    for cell, hidden in enumerate(found):
        assert 0 <= hidden.start <= hidden.stop <= side
        if hidden.start > 0 and hidden.stop < side:
            assert hidden.stop - hidden.start == window
            middle = (hidden.start + hidden.stop) / 2
            assert abs(middle - (cell + 0.5) * side / cells) <= 0.5
    if window * cells >= side + cells:
        assert set().union(*(range(s.start, s.stop) for s in found)) == set(range(side))


def test_hiding_nothing_changes_nothing_and_no_map_depends_on_the_others(network, monkeypatch):
    images, choice = digits.load('test').images[:3], chosen(network, '1')
    black = np.zeros_like(images[:1])
    assert (occlusion(network, black, choice, stride=14, fill='black') == 0).all()
    together = occlusion(network, images, choice, stride=7)
    monkeypatch.setattr('inspection.occlusion.BATCH', 11)
    alone = [occlusion(network, images[i : i + 1], choice, stride=7)[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
