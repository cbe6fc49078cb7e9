"""Statistics of weights against plain NumPy, and of the layers of every family."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from inspection import weights
from models.trace import trace
from tests.inspection.drawn import untrained
from tests.models.declared import SMALL
from tests.support import most_slow

NUMBERS = st.floats(-1e3, 1e3, width=32)
KERNELS = arrays.arrays(np.float32, st.sampled_from([(3,), (4, 2), (2, 2, 3, 5)]), elements=NUMBERS)


@given(KERNELS)
def test_statistics_are_those_of_the_numbers_one_by_one(array):
    found = weights.of_array('x', array)
    numbers = [float(x) for x in array.reshape(-1)]
    assert found.size == len(numbers)
    assert found.mean == pytest.approx(sum(numbers) / len(numbers), abs=1e-6)
    assert (found.smallest, found.largest) == (min(numbers), max(numbers))
    middle = sum(numbers) / len(numbers)
    spread = (sum((x - middle) ** 2 for x in numbers) / len(numbers)) ** 0.5
    assert found.std == pytest.approx(spread, rel=1e-6, abs=1e-4)
    root = (sum(x * x for x in numbers) / len(numbers)) ** 0.5
    near = sum(abs(x) <= 0.01 * root for x in numbers) / len(numbers)
    assert found.near_zero == pytest.approx(near, abs=1e-9)
    if array.ndim == 1:
        assert found.norms is None
        return
    for number, norm in enumerate(found.norms):
        own = [float(x) for x in array[..., number].reshape(-1)]
        assert norm == pytest.approx(sum(x * x for x in own) ** 0.5, rel=1e-6, abs=1e-9)


def test_of_a_normal_distribution_as_many_are_near_zero_as_the_note_says():
    drawn = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)
    inside = stats.norm.cdf(weights.NEAR_ZERO) - stats.norm.cdf(-weights.NEAR_ZERO)
    assert weights.of_array('x', drawn).near_zero == pytest.approx(inside, rel=0.02)
    assert f'{100 * inside:.1f} %' in weights.NOTE.replace('\n', ' ')


def test_zero_filters_and_numbers_that_are_not_finite_are_named():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 30)).astype(np.float32)
    kernel[..., 4] = 0
    kernel[0, 0, 0, :2] = np.nan, np.inf
    found = weights.of_array('conv1/kernel', kernel)
    assert found.zero_filters.tolist() == [4]
    assert found.not_finite == 2
    assert np.isfinite((found.mean, found.std, found.smallest, found.largest)).all()
    text = weights.summary([found])
    assert 'Filters whose weights are all zero: conv1/kernel 4.' in text
    assert 'NOT FINITE: 2 in conv1/kernel' in text
    kernel[:] = np.nan
    assert np.isnan(weights.of_array('x', kernel).mean)
    kernel[:] = 0
    assert weights.of_array('x', kernel).near_zero == 1
    assert '... (30 in all)' in weights.summary([weights.of_array('x', kernel)])


@pytest.mark.parametrize('name', most_slow(SMALL, ('lenet', 'deep_cnn')))
def test_every_trained_number_of_a_network_is_counted_once(name):
    options, size = SMALL[name]
    network = untrained(name, (size, size, 1), **options)
    rows = weights.statistics(network.variables, network.trace.layers)
    trained = [row for row in rows if row.name.rpartition('/')[2] not in ('mean', 'var')]
    assert sum(row.size for row in trained) == network.trace.parameters
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.name in weights.table(rows) for row in rows)
    kernels = weights.kernels(network.variables, network.trace.layers)
    kinds = ('convolution', 'dense')
    assert [layer.name for layer, _ in kernels] == [
        layer.name for layer in trace(network.model, (size, size, 1)).layers if layer.kind in kinds
    ]
