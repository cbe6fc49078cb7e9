"""Average precision against pycocotools; matching and its numbers against a slow version."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.average_precision import (
    Curve,
    Curves,
    Found,
    Truth,
    best_threshold,
    count_errors,
    curves,
    evaluate,
    matched,
)
from tests.golden import average_precision as golden
from tests.golden.make_average_precision import judged

CLASSES = 3


# --- the slow version -------------------------------------------------------------------------


def overlap(box, other):
    high = min(box[2], other[2]) - max(box[0], other[0])
    wide = min(box[3], other[3]) - max(box[1], other[1])
    return max(high, 0) * max(wide, 0)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def slow_match(found, truth, threshold, iou):
    """What is right and wrong of a picture, {row: bool}, and which objects were found."""
    right, taken = {}, set()
    order = [i for i in range(len(found.scores)) if found.scores[i] >= threshold]
    for i in sorted(order, key=lambda i: -found.scores[i]):
        best, partner, ignored = 0.0, None, False
        for k in range(len(truth.classes)):
            if truth.classes[k] != found.classes[i] or k in taken:
                continue
            both = overlap(found.boxes[i], truth.boxes[k])
            own = area(found.boxes[i])
            if truth.crowd[k]:
                ignored |= both > 0 and both / own >= iou
            else:
                share = both / (own + area(truth.boxes[k]) - both)
                if share >= iou and share >= best:
                    best, partner = share, k
        if partner is not None:
            taken.add(partner)
            right[i] = True
        elif not ignored:
            right[i] = False
    return right, taken


def slow_totals(found, truth, threshold, iou, label=None):
    """(right, wrong, objects) of all pictures, of a class or of all of them."""
    right = wrong = objects = 0
    for picture, true in zip(found, truth, strict=True):
        answers, _ = slow_match(picture, true, threshold, iou)
        of_class = [ok for i, ok in answers.items() if label in (None, picture.classes[i])]
        right += sum(of_class)
        wrong += len(of_class) - sum(of_class)
        objects += sum(
            not c and label in (None, k) for k, c in zip(true.classes, true.crowd, strict=True)
        )
    return right, wrong, objects


def divided(part, whole):
    return part / whole if whole else math.nan


# --- cases ------------------------------------------------------------------------------------


@st.composite
def boxes(draw, most):
    """Boxes with whole edges in a small picture, so that many overlap and some do alike."""
    edges = st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(1, 4)] * 2)
    drawn = draw(st.lists(edges, max_size=most))
    rows = [(y, x, y + high, x + wide) for y, x, high, wide in drawn]
    return np.array(rows, np.float64).reshape(-1, 4)


@st.composite
def pictures(draw):
    """([Found], [Truth]) of up to three pictures; scores are sixteenths, so that many are equal."""
    found, truth = [], []
    labels = st.integers(0, CLASSES - 2)  # of the last class there is nothing
    for _ in range(draw(st.integers(0, 3))):
        objects, answers = draw(boxes(5)), draw(boxes(7))

        def each(values, count):
            return np.array(draw(st.lists(values, min_size=count, max_size=count)))

        classes, crowd = each(labels, len(objects)), each(st.integers(0, 4), len(objects)) == 4
        truth.append(Truth(objects, classes.astype(int), crowd.astype(bool)))
        scores = each(st.integers(1, 9), len(answers)).astype(np.float32) / 16
        found.append(Found(answers, scores, each(labels, len(answers)).astype(int)))
    return found, truth


def of_case(case):
    found = [Found(p.boxes, p.scores, p.classes) for p in case.pictures]
    truth = [Truth(p.true_boxes, p.true_classes, p.crowd) for p in case.pictures]
    return found, truth


def assert_same(case, expected):
    precision = evaluate(*of_case(case), case.num_classes, case.most)
    for key in golden.KEYS:
        if expected[key] is None:
            assert getattr(precision, key) is None
        else:
            assert getattr(precision, key) == pytest.approx(expected[key], abs=1e-6)
    for key in ('class_ap', 'class_ap50'):
        values = [math.nan if v is None else v for v in expected[key]]
        np.testing.assert_allclose(getattr(precision, key), values, atol=1e-6)


# --- average precision ------------------------------------------------------------------------


def test_it_is_what_pycocotools_said():
    cases = json.loads(golden.FILE.read_text())['cases']
    assert len(cases) == golden.GOLDEN
    for seed, expected in cases.items():
        assert_same(golden.case(int(seed)), expected)


def test_it_is_what_pycocotools_says_of_other_cases():
    pytest.importorskip('pycocotools', reason='pycocotools is for comparison only')
    for seed in range(golden.GOLDEN, 120):
        case = golden.case(seed)
        assert_same(case, judged(case))


def test_nothing_is_printed(capfd):
    evaluate(*of_case(golden.case(0)), 4)
    assert capfd.readouterr() == ('', '')


def test_it_is_the_area_below_the_curve():
    """COCO's AP50 of a class: at 101 recalls the best precision of that recall or more."""
    draws = np.random.default_rng(0)
    low = draws.uniform(0, 200, (40, 2))
    objects = np.concatenate([low, low + draws.uniform(10, 40, (40, 2))], 1)
    answers = np.concatenate([objects[:30] + draws.normal(0, 4, (30, 4)), objects[:20] + 0.5])
    scores = draws.permutation(50) / 50  # no two are equal: COCO's code takes those one by one
    found, truth = (
        Found(answers, scores, np.zeros(50, int)),
        Truth(objects, np.zeros(40, int), np.zeros(40, bool)),
    )
    curve = curves([found], [truth], 1).together
    recalls = np.linspace(0, 1, 101)
    reached = [curve.precision[curve.recall >= r].max(initial=0) for r in recalls]
    precision = evaluate([found], [truth], 1)
    assert 0.3 < precision.ap50 < 0.9
    assert precision.ap50 == pytest.approx(np.mean(reached))
    assert precision.objects.tolist() == [40]


def empty(boxes=0):
    return Found(np.zeros((boxes, 4)), np.zeros(boxes), np.zeros(boxes, int))


def test_without_objects_there_is_no_precision():
    box = np.array([(0.0, 0.0, 9.0, 9.0)])
    crowd = Truth(box, np.zeros(1, int), np.ones(1, bool))
    nothing = Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    for truth in ([], [nothing], [crowd, nothing]):
        found = [Found(box, np.ones(1), np.zeros(1, int))] * len(truth)
        precision = evaluate(found, truth, 2)
        assert all(getattr(precision, key) is None for key in golden.KEYS)
        assert np.isnan([precision.class_ap, precision.class_ap50]).all()
        assert precision.objects.tolist() == [0, 0]


def test_without_detections_it_is_zero():
    truth = Truth(np.array([(0.0, 0.0, 40.0, 40.0)]), np.zeros(1, int), np.zeros(1, bool))
    precision = evaluate([empty()], [truth], 2)
    assert (precision.ap, precision.ap50, precision.ap75, precision.medium) == (0, 0, 0, 0)
    assert precision.small is precision.large is None
    np.testing.assert_array_equal(precision.class_ap, [0, np.nan])


# --- at a threshold ---------------------------------------------------------------------------

LEVELS = st.integers(0, 10).map(lambda level: level / 16)
IOUS = st.sampled_from([0.25, 0.5, 0.75, 1.0])


@settings(max_examples=200)
@given(pictures(), LEVELS, IOUS)
def test_matches_are_those_of_the_slow_version(case, threshold, iou):
    found, truth = case
    matches = matched(found, truth, threshold, iou)
    assert len(matches) == len(found)
    for match, picture, true in zip(matches, found, truth, strict=True):
        right, taken = slow_match(picture, true, threshold, iou)
        rows = range(len(picture.scores))
        assert match.right.tolist() == [right.get(i) is True for i in rows]
        assert match.wrong.tolist() == [right.get(i) is False for i in rows]
        missed = [not true.crowd[k] and k not in taken for k in range(len(true.classes))]
        assert match.missed.tolist() == missed


def test_of_two_objects_that_it_overlaps_as_much_a_detection_takes_the_last():
    """As COCO's code does; it decides what is left for the next detection."""
    objects = np.array([(0.0, 0.0, 4.0, 4.0), (2.0, 0.0, 6.0, 4.0)])
    truth = Truth(objects, np.zeros(2, int), np.zeros(2, bool))
    first, last = (1.0, 0.0, 5.0, 4.0), (3.0, 0.0, 7.0, 4.0)
    found = Found(np.array([first, last]), np.array([0.9, 0.8]), np.zeros(2, int))
    [match] = matched([found], [truth], 0)
    assert match.right.tolist() == [True, False]
    assert match.missed.tolist() == [True, False]


@settings(max_examples=100)
@given(pictures(), IOUS)
def test_curves_say_what_is_right_at_each_threshold(case, iou):
    found, truth = case
    answer = curves(found, truth, CLASSES, iou)
    assert len(answer.per_class) == CLASSES
    for label, curve in [*enumerate(answer.per_class), (None, answer.together)]:
        counts = [slow_totals(found, truth, s, iou, label) for s in np.arange(11) / 16]
        for score, (right, wrong, objects) in zip(np.arange(11) / 16, counts, strict=True):
            quality = curve.at(score)
            expected = (divided(right, right + wrong), divided(right, objects),
                        divided(2 * right, right + wrong + objects))  # fmt: skip
            assert quality == pytest.approx(expected, nan_ok=True)
            assert curve.objects == objects
        occurring = {counts[i][:2] for i in range(11)} - {(0, 0)}
        assert set(zip(curve.right.tolist(), curve.wrong.tolist(), strict=True)) == occurring
        assert (np.diff(curve.scores) < 0).all()
        for i, score in enumerate(curve.scores):
            values = curve.precision[i], curve.recall[i], curve.f1[i]
            assert curve.at(score) == pytest.approx(values, nan_ok=True)


@settings(max_examples=100)
@given(pictures())
def test_the_best_threshold_is_the_highest_of_the_best_f1(case):
    found, truth = case
    best = best_threshold(curves(found, truth, CLASSES))
    values = {}
    for score in {float(s) for picture in found for s in picture.scores}:
        right, wrong, objects = slow_totals(found, truth, score, 0.5)
        if right + wrong:
            values[score] = 2 * right / (right + wrong + objects)
    if not any(values.values()):
        assert best.threshold == 0.5
        return
    assert best.f1 == pytest.approx(max(values.values()))
    least = max(s for s, f1 in values.items() if f1 == max(values.values()))
    lower = max((s for s in values if s < least), default=least)
    assert best.threshold == pytest.approx((least + lower) / 2)
    matches = matched(found, truth, best.threshold)
    right, wrong, missed = (sum(m[i].sum() for m in matches) for i in range(3))
    assert best.precision == pytest.approx(divided(right, right + wrong), nan_ok=True)
    assert best.recall == pytest.approx(divided(right, right + missed), nan_ok=True)


def test_a_threshold_from_scores_of_float32_keeps_the_detection_that_it_came_from():
    scores = np.array([0.1, 0.7], np.float32)
    box = np.array([(0.0, 0.0, 9.0, 9.0)])
    found = [Found(np.repeat(box, 2, 0), scores, np.zeros(2, int))]
    truth = [Truth(box, np.zeros(1, int), np.zeros(1, bool))]
    best = best_threshold(curves(found, truth, 1))
    again = matched(found, truth, float(json.loads(json.dumps(best.threshold))))
    assert again[0].right.tolist() == [False, True]


def test_without_any_detection_the_threshold_is_in_the_middle():
    truth = Truth(np.array([(0.0, 0.0, 9.0, 9.0)]), np.zeros(1, int), np.zeros(1, bool))
    best = best_threshold(curves([empty()], [truth], 1))
    assert best.threshold == 0.5
    assert math.isnan(best.precision)
    assert (best.recall, best.f1) == (0, 0)
    nothing = Curve(np.zeros(0), np.zeros(0, int), np.zeros(0, int), 0)
    assert best_threshold(Curves((), nothing)).threshold == 0.5


def test_without_any_object_the_surest_false_alarm_does_not_choose_the_threshold():
    box = np.array([(0.0, 0.0, 9.0, 9.0)])
    found = Found(box, np.array([0.1]), np.zeros(1, int))
    nothing = Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    assert best_threshold(curves([found], [nothing], 1)).threshold == 0.5


@settings(max_examples=100)
@given(pictures(), LEVELS)
def test_errors_of_counts_are_those_of_the_slow_version(case, threshold):
    found, truth = case
    counts = count_errors(found, truth, threshold, CLASSES)
    for label in range(CLASSES):
        pairs = [
            (sum(t.classes == label), sum((f.classes == label) & (f.scores >= threshold)))
            for f, t in zip(found, truth, strict=True)
            if not any(t.crowd[t.classes == label])
        ]
        expected = (
            divided(sum(n for n, _ in pairs), len(pairs)),
            divided(sum(n for _, n in pairs), len(pairs)),
            divided(sum(abs(n - m) for n, m in pairs), len(pairs)),
        )
        values = counts.true[label], counts.found[label], counts.error[label]
        assert values == pytest.approx(expected, nan_ok=True)
