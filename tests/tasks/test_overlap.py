"""Numbers of a confusion matrix against scikit-learn's."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tasks import overlap

PIXELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(pixels=PIXELS, classes=st.integers(5, 7))
def test_numbers_are_those_of_scikit_learn(pixels, classes):
    true, predicted = np.array(pixels, np.int32).T
    matrix = overlap.confusion(true, predicted.astype(np.int64), classes)
    labels = np.arange(classes)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(true, predicted, labels=labels))
    found = np.isin(labels, [true, predicted])
    for ours, mean, theirs in (
        (overlap.iou, overlap.mean_iou, metrics.jaccard_score),
        (overlap.class_dice, overlap.mean_dice, metrics.f1_score),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of classes that do not occur
            expected = theirs(true, predicted, labels=labels, average=None)
        np.testing.assert_allclose(ours(matrix)[found], expected[found], rtol=1e-12)
        assert np.isnan(ours(matrix)[~found]).all()
        np.testing.assert_allclose(mean(matrix), expected[found].mean(), rtol=1e-12)
    accuracy = metrics.accuracy_score(true, predicted)
    np.testing.assert_allclose(overlap.pixel_accuracy(matrix), accuracy, rtol=1e-12)


def test_confusions_of_parts_add_up():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 11, (2, 5000))
    parts = sum(overlap.confusion(true[i::3], predicted[i::3], 11) for i in range(3))
    np.testing.assert_array_equal(parts, overlap.confusion(true, predicted, 11))


def test_labels_of_a_byte_do_not_overflow():
    true, predicted = np.full(3, 250, np.uint8), np.full(3, 251, np.uint8)
    assert overlap.confusion(true, predicted, 255)[250, 251] == 3


def test_no_pixel_at_all():
    matrix = overlap.confusion(np.zeros(0, np.int32), np.zeros(0, np.int32), 3)
    assert matrix.shape == (3, 3)
    assert (overlap.mean_iou(matrix), overlap.mean_dice(matrix)) == (0.0, 0.0)
    assert overlap.pixel_accuracy(matrix) == 0.0


@pytest.mark.parametrize(
    ('both', 'true', 'predicted', 'dice'),
    [(0, 0, 0, 1.0), (0, 5, 0, 0.0), (0, 0, 5, 0.0), (5, 5, 5, 1.0), (2, 4, 6, 0.4)],
)
def test_dice_of_two_areas(both, true, predicted, dice):
    assert overlap.dice(both, true, predicted) == pytest.approx(dice)
