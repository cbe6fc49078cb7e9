"""Calibration against a slow version on the predictions, and what has to hold for any of them."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit, softmax

from tasks import calibration
from tasks.calibration import BINS, Calibration
from tasks.classification import Classification
from tests.support import QUICKLY
from training import evaluation

CLASSES = 4
binned = jax.jit(calibration.sums, compiler_options=QUICKLY)


@functools.cache
def compiled(kind):
    task = Classification(CLASSES, kind)
    return jax.jit(functools.partial(task.sums, detailed=True), compiler_options=QUICKLY)


def added(kind, logits, labels, mask, batch):
    """The calibration, added up over padded batches as an evaluation does it."""
    total = {}
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        missing = max(0, start + batch - len(logits))
        arrays = [np.pad(a[part], [(0, missing)] + [(0, 0)] * (a.ndim - 1)) for a in (logits, mask)]
        targets = {'label': np.pad(labels[part], (0, missing)), 'mask': arrays[1]}
        sums = compiled(kind)(arrays[0], targets)
        evaluation.add(total, {name: np.asarray(value) for name, value in sums.items()})
    return Calibration.of(total)


def slowly(confidence, right):
    """The expected calibration error by its definition, and the examples of each bin."""
    error, counts = 0.0, []
    for number in range(BINS):
        own = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        counts.append(own.sum())
        if own.any():
            error += own.mean() * abs(right[own].mean() - confidence[own].mean())
    return error, counts


def example(seed=0, count=200, scale=2.0):
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=scale, size=(count, CLASSES)).astype(np.float32)
    mask = (draw.random(count) < 0.8).astype(np.float32)
    return logits, draw.integers(0, CLASSES, count).astype(np.int32), mask


@pytest.mark.parametrize('kind', ['softmax', 'bce'])
def test_the_error_is_that_of_the_definition(kind):
    logits, labels, mask = example()
    found = added(kind, logits, labels, mask, batch=32)
    answers = (softmax(logits, -1) if kind == 'softmax' else expit(logits)).astype(np.float64)
    real = mask > 0
    right = answers.argmax(-1) == labels
    error, counts = slowly(answers.max(-1)[real], right[real])
    assert found.error == pytest.approx(error, abs=1e-6)
    assert found.count.tolist() == counts
    assert found.correct.sum() == right[real].sum()
    assert found.examples == real.sum()
    content = found.to_json()
    assert content['calibration_error'] == found.error
    assert [b['count'] for b in content['calibration_bins']] == counts


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.permutations(range(70)))
def test_batches_and_the_order_of_examples_do_not_matter(seed, count, order):
    logits, labels, mask = example(seed, 70)
    mask[count:] = 0
    one = added('softmax', logits, labels, mask, batch=32)
    other = added('softmax', logits[order], labels[order], mask[order], batch=32)
    alone = added('softmax', logits[:count], labels[:count], mask[:count], batch=32)
    for found in (other, alone):
        np.testing.assert_array_equal(found.count, one.count)
        np.testing.assert_array_equal(found.correct, one.correct)
        np.testing.assert_allclose(found.confidence, one.confidence, rtol=1e-5, atol=1e-5)


@given(st.data())
def test_a_bin_that_is_as_often_right_as_sure_adds_nothing(data):
    """Bins whose mean confidence is the share of right answers, and then one that differs."""
    count = np.array(data.draw(st.lists(st.integers(0, 50), min_size=BINS, max_size=BINS)))
    count[0] += 1
    correct = np.array([data.draw(st.integers(0, int(n))) for n in count])
    assert Calibration(count, correct, correct.astype(float)).error == 0
    gaps = np.array([data.draw(st.floats(-1, 1)) for _ in count]) * (count > 0)
    found = Calibration(count, correct, correct + gaps)
    assert found.error == pytest.approx(np.abs(gaps).sum() / count.sum())


@pytest.mark.parametrize(
    ('confidence', 'number'), [(0.0, 0), (1e-9, 0), (1 / 3, 4), (0.34, 5), (1.0, BINS - 1)]
)
def test_an_edge_belongs_to_the_bin_below(confidence, number):
    arrays = [np.array([value], kind) for value, kind in ((confidence, np.float32), (1, bool))]
    sums = binned(*arrays, np.ones(1, np.float32))
    assert np.flatnonzero(sums['bin_count']).tolist() == [number]


def test_padding_that_is_no_number_adds_nothing():
    sure, right = np.array([0.8, np.nan], np.float32), np.array([True, True])
    sums = binned(sure, right, np.array([1, 0], np.float32))
    assert sums['bin_confidence'].sum() == pytest.approx(0.8)
    assert sums['bin_count'].sum() == sums['bin_correct'].sum() == 1


def test_a_split_without_examples_has_no_error():
    nothing = Calibration(*[np.zeros(BINS, int)] * 3)
    assert math.isnan(nothing.error)
    assert nothing.text() == '-'
    assert nothing.to_json()['calibration_error'] is None
    assert len(nothing.rows()) == 1


def test_a_network_that_diverged_has_none_either():
    nowhere = Calibration(np.ones(BINS, int), np.ones(BINS, int), np.full(BINS, np.nan))
    assert nowhere.text() == '-'
    assert nowhere.rows()[1][1:] == ('1', '-', '100.00 %')
    assert nowhere.drawn().startswith(b'\x89PNG')


def test_the_report_says_it_in_words_numbers_and_a_picture(tmp_path):
    logits, labels, mask = example()
    sums = compiled('softmax')(logits, {'label': labels, 'mask': mask})
    total = {name: np.asarray(value) for name, value in sums.items()}
    report = Classification(CLASSES).report(total, None, list('abcd'))
    measured = report.calibration
    assert f'calibration error  {100 * measured.error:.2f} % (on average' in report.text()
    assert report.to_json()['calibration_error'] == measured.error
    _, path = report.pictures(tmp_path, 'test', 'a title')
    assert path == tmp_path / 'calibration_test.png'
    with Image.open(path) as picture:
        assert len(np.unique(np.asarray(picture.convert('L')))) > 20, 'the picture is empty'
    section = report.sections()[-1]
    assert section.title == 'Calibration'
    assert section.parts[2].rows == measured.rows()
