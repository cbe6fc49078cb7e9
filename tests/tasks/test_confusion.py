"""The report says what scikit-learn says, in tables that a person can read."""

import io
import json
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from matplotlib.image import imread
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from tasks.confusion import ConfusionReport

DIGITS = [str(i) for i in range(10)]


def example(classes=10, errors=((3, 5, 2), (9, 4, 1))):
    confusion = 50 * np.eye(classes, dtype=int)
    for true, predicted, count in errors:
        confusion[true, predicted] += count
    return confusion


@st.composite
def predictions(draw):
    classes = draw(st.integers(2, 6))
    examples = draw(st.integers(1, 60))
    labels = hypothesis_numpy.arrays(int, examples, elements=st.integers(0, classes - 1))
    return classes, draw(labels), draw(labels)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(predictions())
def test_every_number_agrees_with_scikit_learn(case):
    classes, true, predicted = case
    labels = list(range(classes))
    report = ConfusionReport(confusion_matrix(true, predicted, labels=labels), labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=np.nan
    )
    np.testing.assert_allclose(report.precision, precision)
    np.testing.assert_allclose(report.recall, recall)
    np.testing.assert_allclose(report.f1, f1)
    np.testing.assert_array_equal(report.support, support)
    assert report.accuracy == pytest.approx(accuracy_score(true, predicted))
    assert report.correct == (true == predicted).sum()
    assert report.examples == len(true)
    assert sum(count for count, _, _ in report.confusions(1000)) == (true != predicted).sum()


def test_text_of_ten_classes():
    text = ConfusionReport(example(), DIGITS, loss=0.04567).text()
    assert 'accuracy  99.40 % (500 of 503)' in text
    assert 'loss      0.0457' in text
    rows = [line.split() for line in text.splitlines()]
    assert ['3', '100.00', '%', '96.15', '%', '98.04', '%', '52'] in rows
    assert ['3', '.', '.', '.', '50', '.', '2', '.', '.', '.', '.'] in rows
    for table in text.split('\n\n')[1:]:  # columns are aligned
        assert len({len(line) for line in table.splitlines()}) == 1
    assert max(map(len, text.splitlines())) <= 80


def test_long_names_do_not_widen_the_matrix():
    names = [f'a rather long name {i}' for i in range(10)]
    text = ConfusionReport(example(), names).text()
    assert '3 a rather long name 3   .   .   .  50   .   2   .   .   .   .' in text


def test_many_classes_show_the_most_frequent_confusions_only():
    errors = [(i, i + 1, i) for i in range(1, 40)]
    report = ConfusionReport(example(100, errors), [f'class {i}' for i in range(100)])
    table = report.text().split('\n\n')[-1].splitlines()
    assert table[0] == 'the 20 most frequent confusions:'
    assert table[2].split() == ['class', '39', 'class', '40', '39', '89']
    assert len(table) == 22
    perfect = ConfusionReport(example(100, ()), [f'class {i}' for i in range(100)])
    assert perfect.text().endswith('no errors')


def test_nothing_by_nothing_is_a_dash_and_null():
    confusion = example(3, ())
    confusion[1, 1] = 0
    report = ConfusionReport(confusion, ['a', 'b', 'c'])
    assert 'b              -         -         -        0' in report.text()
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content['classes'][1] == {
        'name': 'b',
        'precision': None,
        'recall': None,
        'f1': None,
        'support': 0,
    }
    assert content['loss'] is None
    assert content['confusion'] == confusion.tolist()
    empty = ConfusionReport(np.zeros((2, 2), int), ['a', 'b'], math.nan)
    assert empty.text().startswith('accuracy  - (0 of 0)')
    assert empty.to_json()['accuracy'] is None


def test_matrices_that_are_none_are_refused():
    with pytest.raises(ValueError, match='2 classes, but a matrix of shape'):
        ConfusionReport(np.zeros((3, 3), int), ['a', 'b'])
    for wrong in (np.full((2, 2), 0.5), np.full((2, 2), -1)):
        with pytest.raises(ValueError, match='counts'):
            ConfusionReport(wrong, ['a', 'b'])


@pytest.mark.parametrize('classes', [2, 10, 40])
def test_heat_map_shows_single_errors(tmp_path, classes):
    perfect = ConfusionReport(1000 * np.eye(classes, dtype=int), range(classes))
    confusion = perfect.confusion.copy()
    confusion[0, 1] = 1  # one error among thousands
    picture = imread(
        ConfusionReport(confusion, range(classes)).confusion_png(tmp_path / 'a.png', 'test')
    )
    clean = imread(perfect.confusion_png(tmp_path / 'b.png', 'test'))
    square = picture[np.abs(picture - clean).max(axis=-1) > 0.1]
    assert len(square) > 200
    # Its colour is red, and not the faintest one.
    assert (square[:, 0] - square[:, 2] > 0.1).sum() > 100


def test_heat_map_without_errors_or_examples(tmp_path):
    for confusion in (np.eye(2, dtype=int), np.zeros((2, 2), int)):
        path = ConfusionReport(confusion, ['no', 'yes']).confusion_png(tmp_path / 'confusion.png')
        assert imread(path).shape[0] > 300


def test_a_rare_error_is_not_the_darkest_red(tmp_path):
    confusion = example(10, ())
    confusion[0, 0], confusion[0, 1] = 35, 1  # one of 36
    few = imread(ConfusionReport(confusion, DIGITS).confusion_png(tmp_path / 'a.png'))
    confusion[0, 0], confusion[0, 1] = 18, 18  # half of the class
    many = imread(ConfusionReport(confusion, DIGITS).confusion_png(tmp_path / 'b.png'))

    def lightness(picture):
        matrix = picture[:, : int(0.8 * picture.shape[1])]  # without the bar of colors
        reds = matrix[matrix[..., 0] > matrix[..., 2] + 0.2]
        return np.median(reds[:, 1])  # green is what red takes away from white

    assert lightness(few) > 0.4
    assert lightness(many) < 0.1


def test_names_that_look_like_formulas_or_are_long(tmp_path, recwarn):
    names = ['$\\frac{1$', '$5 or $10', '猫', 'x' * 5000]
    path = ConfusionReport(np.eye(4, dtype=int), names).confusion_png(tmp_path / 'a.png')
    assert max(imread(path).shape) < 1500
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]


def test_a_page_shows_what_the_text_says():
    by_class, confusions = ConfusionReport(example(), DIGITS, loss=0.04567).sections()
    words, table = by_class.parts
    assert 'Precision' in words
    assert ('3', '100.00 %', '96.15 %', '98.04 %', '52') in table.rows
    picture, matrix, errors = confusions.parts
    assert imread(io.BytesIO(picture.png)).shape[0] > 400
    assert matrix.rows[4] == ('3', *'000', '50', '0', '2', *'0000')
    assert errors.rows[1:] == [('3', '5', '2', '52'), ('9', '4', '1', '51')]


def test_a_page_of_many_classes_has_confusions_and_no_matrix():
    errors = [(i, i + 1, i) for i in range(1, 40)]
    report = ConfusionReport(example(100, errors), [f'class {i}' for i in range(100)])
    by_class, confusions = report.sections()
    assert by_class.parts[1].folded
    (table,) = confusions.parts
    assert len(table.rows) == 21
    perfect = ConfusionReport(example(100, ()), [f'class {i}' for i in range(100)])
    assert perfect.sections()[1].parts == ['There are no errors.']
