"""Random numbers of one example on the host."""

import numpy as np
import pytest
from scipy import stats

from data_sources.draws import Draws


def test_the_numbers_do_not_change_between_releases():
    """Others here mean that every seeded run of the past sees other crops."""
    draws = Draws(1, 'crop', 2, 3)
    assert [draws.uniform() for _ in range(3)] == [
        0.9436394724276939,
        0.3345542749373426,
        0.6537526378234985,
    ]
    assert [draws.integer(1000) for _ in range(3)] == [105, 212, 870]
    assert draws.normal() == 1.4556046183391123


def test_the_same_arguments_give_the_same_stream_and_others_another():
    first = [Draws(7, 'crop', 1, 5).uniform() for _ in range(2)]
    assert first[0] == first[1]
    others = [(8, 'crop', 1, 5), (7, 'flip', 1, 5), (7, 'crop', 2, 5), (7, 'crop', 1, 6)]
    assert len({first[0], *(Draws(*key).uniform() for key in others)}) == 5


def test_streams_are_independent_of_each_other():
    """First numbers over visits and over examples are as uniform as numbers of one stream."""
    over_visits = [Draws(0, 'a', visit, 0).uniform() for visit in range(4000)]
    over_examples = [Draws(0, 'a', 0, example).uniform() for example in range(4000)]
    assert stats.kstest(over_visits, 'uniform').pvalue > 0.001
    assert stats.kstest(over_examples, 'uniform').pvalue > 0.001
    assert abs(np.corrcoef(over_visits, over_examples)[0, 1]) < 0.06


def test_distributions():
    draws = Draws(3, 'all', 0, 0)
    assert stats.kstest([draws.uniform(2, 5) for _ in range(4000)], 'uniform', (2, 3)).pvalue > 0.01
    assert stats.kstest([draws.normal() for _ in range(4000)], 'norm').pvalue > 0.01
    counts = np.bincount([draws.integer(7) for _ in range(7000)], minlength=7)
    assert stats.chisquare(counts).pvalue > 0.01
    assert stats.binomtest(sum(draws.happens(0.3) for _ in range(4000)), 4000, 0.3).pvalue > 0.01


@pytest.mark.parametrize(('probability', 'expected'), [(0.0, 0), (1.0, 500)])
def test_what_never_or_always_happens(probability, expected):
    draws = Draws(0, 'x', 0, 0)
    assert sum(draws.happens(probability) for _ in range(500)) == expected
