"""The report of a detector: its numbers, what does not exist, and classes of any name."""

import json

import numpy as np
import pytest
from PIL import Image

from tasks.average_precision import Found, Truth, best_threshold, count_errors, curves, evaluate
from tasks.detection_report import DetectionReport

CELL, WIDE = (10.0, 10.0, 50.0, 50.0), (60.0, 0.0, 90.0, 100.0)
NEAR, LOW = (12.0, 10.0, 52.0, 50.0), (70.0, 0.0, 90.0, 100.0)  # IoU 0.90 and 0.67


def picture(objects, answers):
    """A picture of [(box, class)] and [(box, class, score)]."""
    boxes = np.array([o[0] for o in objects]).reshape(-1, 4)
    truth = Truth(boxes, np.array([o[1] for o in objects], int), np.zeros(len(boxes), bool))
    boxes = np.array([a[0] for a in answers], float).reshape(-1, 4)
    scores = np.array([a[2] for a in answers], float)
    return Found(boxes, scores, np.array([a[1] for a in answers], int)), truth


def report(pictures, names=('red', 'white', 'none'), threshold=None):
    found, truth = zip(*pictures, strict=True) if pictures else ((), ())
    lines = curves(found, truth, len(names))
    threshold = best_threshold(lines).threshold if threshold is None else threshold
    precision = evaluate(found, truth, len(names))
    metrics = {'AP': precision.ap or 0.0, 'AP50': precision.ap50 or 0.0,
               'AP75': precision.ap75 or 0.0, 'loss': 0.5}  # fmt: skip
    counts = count_errors(found, truth, threshold, len(names))
    return DetectionReport(metrics, precision, lines, counts, threshold, names, len(pictures))


PICTURES = [
    # 'red' is found twice of three times, and once wrongly; 'white' once, and there is no 'none'.
    picture([(CELL, 0), (WIDE, 1)], [(CELL, 0, 0.9), (WIDE, 1, 0.8), (WIDE, 0, 0.6)]),
    picture([(CELL, 0), (WIDE, 0)], [(NEAR, 0, 0.7), (LOW, 0, 0.2)]),
]


def test_the_numbers():
    found = report(PICTURES, threshold=0.5).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found['loss'], found['threshold'], found['examples'], found['objects']) == (
        0.5, 0.5, 2, 4,
    )  # fmt: skip
    assert (found['precision'], found['recall'], found['F1']) == (0.75, 0.75, 0.75)
    assert found['best_here']['threshold'] == 0.2
    assert found['best_here']['F1'] == pytest.approx(8 / 9)
    red, white, none = (found['classes'][name] for name in ('red', 'white', 'none'))
    assert red['objects'] == 3
    assert (red['precision'], red['recall'], red['F1']) == pytest.approx((2 / 3,) * 3)
    assert (red['mean_count'], red['mean_count_found'], red['count_error']) == (1.5, 1.5, 1)
    assert white == {
        'objects': 1, 'AP': pytest.approx(1), 'AP50': pytest.approx(1), 'precision': 1,
        'recall': 1, 'F1': 1, 'mean_count': 0.5, 'mean_count_found': 0.5, 'count_error': 0,
    }  # fmt: skip
    assert found['AP'] == pytest.approx((red['AP'] + 1) / 2)
    assert found['AP50'] == pytest.approx((red['AP50'] + 1) / 2)
    assert none['objects'] == none['mean_count'] == none['count_error'] == 0
    assert none['AP'] is none['AP50'] is none['precision'] is none['recall'] is none['F1'] is None
    assert found['AP_small'] is found['AP_large'] is None
    assert found['AP_medium'] == found['AP']


def test_the_text():
    text = report(PICTURES, threshold=0.5).text()
    metrics, classes, counts = text.split('\n\n')
    found = report(PICTURES).to_json()
    assert 0 < found['AP75'] < found['AP'] < found['AP50'] < 1
    for row, name in zip(metrics.splitlines()[1:4], ('AP', 'AP50', 'AP75'), strict=True):
        assert row.split() == [name, f'{100 * found[name]:.2f}', '%']
    assert metrics.splitlines()[4].split()[-1] == '-'
    assert '0.5000' in metrics
    assert 'score of 0.500 or more' in classes
    assert '88.89 % from 0.200' in classes
    rows = {line.split()[0]: line.split()[1:] for line in classes.splitlines()[1:]}
    assert rows['red'][0] == '3'
    assert rows['red'][-6:] == ['66.67', '%', '66.67', '%', '66.67', '%']
    assert rows['none'] == ['0', '-', '-', '-', '-', '-']
    assert rows['all'][:2] == ['classes', '4']
    assert rows['all'][-6:] == ['75.00', '%', '75.00', '%', '75.00', '%']
    assert counts.splitlines()[2].split() == ['red', '1.50', '1.50', '1.00']


@pytest.mark.parametrize(
    'pictures',
    [[], [picture([], [])], [picture([], [(CELL, 0, 0.5)])], [picture([(CELL, 0)], [])]],
    ids=['no pictures', 'nothing', 'no objects', 'no detections'],
)
def test_what_does_not_exist_is_null_and_a_dash(pictures, tmp_path, recwarn):
    answer = report(pictures)
    found = answer.to_json()
    json.dumps(found, allow_nan=False)
    objects = found['objects']
    assert (found['AP'] is None) == (objects == 0)
    assert found['classes']['white']['AP50'] is None
    assert 'nan' not in answer.text()
    assert '-' in answer.text()
    assert answer.pictures(tmp_path, 'test', '')[0].is_file()
    assert not recwarn.list


def test_names_that_look_like_formulas_or_are_long(tmp_path, recwarn):
    names = ['$\\frac{1$', '$5 or $10', '\u732b', 'x' * 5000]
    answer = report(PICTURES, names)
    [path] = answer.pictures(tmp_path, 'test', '$\\frac{1$')
    assert path == tmp_path / 'precision_recall_test.png'
    with Image.open(path) as drawn:
        assert max(drawn.size) < 1500
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]


def test_of_many_classes_the_most_frequent_ones_are_drawn(tmp_path):
    pictures = [picture([(CELL, i)] * (1 + i % 7), [(CELL, i, 0.5)]) for i in range(80)]
    answer = report(pictures, [f'class {i}' for i in range(80)])
    [path] = answer.pictures(tmp_path, 'test', '')
    with Image.open(path) as drawn:
        assert max(drawn.size) < 1500
    [section] = answer.sections()
    assert [part.folded for part in section.parts[2:4]] == [True, True]
    assert len(section.parts[2].rows) == 82


def test_the_page_has_the_tables_and_the_curves():
    [section] = report(PICTURES).sections()
    text = report(PICTURES).text()
    meaning, *tables, curve = section.parts
    assert 'IoU' in meaning
    for shown in tables:
        for row in shown.rows:
            assert row[0] in text
            assert row[-1] in text
    assert curve.png.startswith(b'\x89PNG')
