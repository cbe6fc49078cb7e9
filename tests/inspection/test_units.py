"""Dead and constant units against a slow version on the stages themselves, and by construction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_sources import digits
from inspection import survey
from inspection.examples import Given
from inspection.units import Units, pooled
from tests.inspection.drawn import pixels_of, untrained


def activities(network, images):
    units = Units()
    survey.run(network, Given(images), [units])
    return units, {one.stage: one for one in units.activities()}


@pytest.fixture(scope='module')
def images():
    return digits.load('validation').images


class Kept:
    """A collector that keeps what it is given."""

    def add(self, chunk, glance):
        self.weakest = glance.weakest


def test_the_weakest_value_is_that_over_all_places(network, images):
    kept = Kept()
    survey.run(network, Given(images[:64]), [kept])
    for stage, values in network.look(images[:64]).stages.items():
        expected = values.reshape(64, -1, values.shape[-1]).min(1)
        np.testing.assert_allclose(kept.weakest[stage], expected, atol=1e-5)


def test_fractions_are_those_of_the_stages_picture_by_picture(network, images):
    units, found = activities(network, images)
    look = network.look(images)
    assert [*found] == [*look.stages]
    for stage, values in look.stages.items():
        for unit in range(values.shape[-1]):
            maps = [values[i, ..., unit].reshape(-1) for i in range(len(images))]
            pictures = sum(any(v != 0 for v in one) for one in maps) / len(maps)
            places = np.mean([v != 0 for one in maps for v in one])
            assert found[stage].pictures[unit] == pytest.approx(pictures)
            assert found[stage].places[unit] == pytest.approx(places)
            assert (unit in found[stage].zero) == (pictures == 0)
        assert found[stage].constant.size == 0
    assert units.examples == len(images)
    table = units.table()
    assert all(f'{stage}' in table for stage in look.stages)
    png, caption = units.drawn('a title')
    assert units.text() in caption
    assert pixels_of(png).std() > 0.01


def test_a_channel_that_is_pooled_counts_once(network, images):
    assert pooled(network.trace) == {'pool1', 'pool2'}
    units = Units(pooled(network.trace))
    survey.run(network, Given(images[:4]), [units])
    assert [one.stage for one in units.activities()] == ['conv1', 'conv2', 'dense1', 'dense2']
    assert sum(len(one.pictures) for one in units.activities()) == 6 + 16 + 120 + 84


@pytest.fixture(scope='module')
def crippled():
    """A LeNet with a dead, a constant and a saturated unit."""
    network = untrained('lenet')
    params = network.variables['params']
    for name, unit, bias in (('conv1', 3, -1e4), ('conv2', 5, 2.0), ('dense1', 7, -1e4)):
        kernel = np.asarray(params[name]['kernel']).copy()
        kernel[..., unit] *= bias < 0
        params[name]['kernel'] = kernel
        params[name]['bias'] = params[name]['bias'].at[unit].set(bias)
    return network


def test_units_that_are_made_dead_or_constant_are_found(crippled, images):
    units, found = activities(crippled, images[:40])
    assert 3 in found['conv1'].zero
    assert 3 in found['pool1'].zero
    assert found['conv1'].constant.size == 0
    assert found['conv2'].constant.tolist() == found['pool2'].constant.tolist() == [5]
    assert 7 in found['dense1'].zero
    assert 'of 16 units never changes: 5' in found['conv2'].text(10)
    dead = sum(len(one.zero) + len(one.constant) for one in found.values())
    assert units.text().startswith(f'{dead} of 248 units answer to none of 40 pictures: ')


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 3))
def test_how_the_pictures_are_divided_does_not_matter(sizes, constant):
    rng = np.random.default_rng(len(sizes))
    total = sum(sizes)
    low = np.float32(rng.integers(0, 2, (total, 4)))
    low[:, constant] = 1
    high = low + np.float32(rng.integers(0, 2, (total, 4))) * (np.arange(4) != constant)
    active = np.float32(rng.integers(0, 3, (total, 4)) / 2)
    active[:, constant] = 1
    whole, parts = Units(), Units()
    ends = np.cumsum(sizes)
    for units, pieces in ((whole, [(0, total)]), (parts, zip(ends - sizes, ends, strict=True))):
        for start, stop in pieces:
            of = slice(start, stop)
            glance = survey.Glance(None, {'a': high[of]}, {}, {}, {'a': low[of]}, {'a': active[of]})
            units.add([None] * (stop - start), glance)
    (one,), (other,) = whole.activities(), parts.activities()
    np.testing.assert_allclose(one.pictures, other.pictures)
    np.testing.assert_allclose(one.places, other.places)
    assert one.zero.tolist() == other.zero.tolist()
    assert one.constant.tolist() == other.constant.tolist()
    assert one.constant.tolist() == [
        unit for unit in range(4)
        if total > 1 and high[:, unit].max() == low[:, unit].min() and active[:, unit].any()
    ]  # fmt: skip
    assert (constant in one.constant) == (total > 1)
    assert whole.table() == parts.table()
    assert f'{total} picture' in whole.text()
