"""Suppression against the greedy algorithm, torchvision and what it kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.suppression import boxes_at, chosen
from tests.golden import suppression

SHAPE, PLACES, CLASSES = (24, 32), 12, 3


# --- the slow version -------------------------------------------------------------------------


def iou(box, other):
    high = min(box[2], other[2]) - max(box[0], other[0])
    wide = min(box[3], other[3]) - max(box[1], other[1])
    both = max(high, 0) * max(wide, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return both / (areas - both) if areas else 0.0


def greedy(scores, boxes, shape, least_score, threshold, candidates, most):
    """What `chosen` gives of one image, as [(score, box, class)]: one box after the other."""
    pairs = [(score, place, c) for (place, c), score in np.ndenumerate(scores)]
    best = sorted(pairs, key=lambda pair: -pair[0])[:candidates]  # stable: by place, then class
    kept = []
    for score, place, label in best:
        box = np.clip(boxes[place], 0, [*shape, *shape]).astype(np.float32)
        if score <= least_score or box[0] >= box[2] or box[1] >= box[3]:
            continue
        own = [other for _, other, c in kept if c == label]
        if not any(np.float32(iou(box, other)) > np.float32(threshold) for other in own):
            kept.append((score, box, label))
    return kept[:most]


def assert_is(answer, expected):
    """Compares the answer for one image with rows; what is not used must be 0."""
    count = len(expected)
    assert (np.asarray(answer['scores']) > 0).sum() == count
    for name in answer:
        assert not np.asarray(answer[name][count:]).any()
    for row, (score, box, label) in enumerate(expected):
        assert answer['scores'][row] == score
        np.testing.assert_array_equal(answer['boxes'][row], box)
        assert answer['classes'][row] == label


def of(scores, boxes, least_score=0.1, threshold=0.5, candidates=20, most=6, shape=SHAPE):
    """The answers for a batch as NumPy arrays."""
    answer = chosen(
        jnp.asarray(scores), jnp.asarray(boxes), shape, least_score, threshold, candidates, most
    )
    return jax.tree.map(np.asarray, answer)


def image(answer, row=0):
    return {name: values[row] for name, values in answer.items()}


@st.composite
def outputs(draw):
    """Scores [PLACES, CLASSES], with equal ones, and boxes [PLACES, 4], with whole edges."""
    levels = st.integers(1, 12).map(lambda level: level / 16)
    scores = draw(st.lists(levels, min_size=PLACES * CLASSES, max_size=PLACES * CLASSES))
    edges = st.tuples(
        st.integers(-4, 20), st.integers(-4, 28), st.integers(0, 9), st.integers(0, 9)
    )
    drawn = draw(st.lists(edges, min_size=PLACES, max_size=PLACES))
    boxes = np.array([(y, x, y + high, x + wide) for y, x, high, wide in drawn], np.float32)
    return np.array(scores, np.float32).reshape(PLACES, CLASSES), boxes


# --- tests ------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    outputs(),
    st.sampled_from([0.0, 0.3, 0.75]),
    st.sampled_from([0.25, 0.5, 0.6, 1.0]),
    st.sampled_from([(20, 6), (PLACES * CLASSES, 50), (1000, 6), (3, 3)]),
)
def test_the_answer_is_that_of_the_greedy_algorithm(drawn, least_score, threshold, numbers):
    scores, boxes = drawn
    answer = of(scores[None], boxes[None], least_score, threshold, *numbers)
    assert answer['boxes'].shape == (1, numbers[1], 4)
    assert answer['scores'].dtype == np.float32
    assert answer['classes'].dtype == np.int32
    assert_is(image(answer), greedy(scores, boxes, SHAPE, least_score, threshold, *numbers))


def ours(case):
    """The rows that are kept of a case of tests/golden/suppression.py, the best first."""
    count, side = len(case.scores), suppression.SIDE
    scores = np.zeros((256, 8), np.float32)  # one compiled program for all cases
    scores[np.arange(count), case.classes] = case.scores
    boxes = np.zeros((256, 4), np.float32)
    boxes[:count] = case.boxes[:, [1, 0, 3, 2]]
    answer = of(scores[None], boxes[None], 0.0, case.iou, 256, 256, (side, side))
    row = {score: row for row, score in enumerate(case.scores)}
    return [row[score] for score in answer['scores'][0] if score > 0]


def test_what_is_kept_is_what_torchvision_kept():
    golden = json.loads(suppression.FILE.read_text())['kept']
    assert len(golden) == suppression.GOLDEN
    for seed, kept in golden.items():
        assert ours(suppression.case(int(seed))) == kept


def test_what_is_kept_is_what_torchvision_keeps_of_1000_cases():
    torch = pytest.importorskip('torch', reason='PyTorch is for comparison only')
    ops = pytest.importorskip('torchvision.ops', reason='torchvision is for comparison only')
    for seed in range(1000):
        case = suppression.case(seed)
        kept = ops.batched_nms(*(torch.tensor(values) for values in case[:3]), case.iou)
        assert ours(case) == kept.tolist()


def test_a_box_whose_iou_equals_the_threshold_stays():
    boxes = np.array([(0, 0, 4, 4), (0, 0, 4, 2), (0, 0, 4, 3)], np.float32)  # 1/2, 3/4, 2/3
    scores = np.array([[0.9], [0.8], [0.7]], np.float32)
    for threshold, kept in ((0.25, [0.9]), (0.5, [0.9, 0.8]), (0.75, [0.9, 0.8, 0.7])):
        found = of(scores[None], boxes[None], 0.1, threshold)['scores'][0]
        assert found[found > 0].tolist() == pytest.approx(kept)


def test_each_class_is_on_its_own():
    boxes = np.array([(0, 0, 4, 4), (0, 0, 4, 4)], np.float32)
    scores = np.array([[0.9, 0.2], [0.3, 0.8]], np.float32)
    found = image(of(scores[None], boxes[None]))
    assert found['classes'][:3].tolist() == [0, 1, 0]
    assert found['scores'][:3].tolist() == pytest.approx([0.9, 0.8, 0])


def test_an_answer_does_not_know_the_batch_around_its_image():
    draws = np.random.default_rng(0)
    scores = draws.uniform(size=(5, 300, 4)).astype(np.float32)
    starts = draws.uniform(0, 20, (5, 300, 2))
    boxes = np.concatenate([starts, starts + draws.uniform(2, 12, (5, 300, 2))], -1)
    boxes = boxes.astype(np.float32)
    boxes[3] = chain(300)  # needs many more rounds than the others
    scores[3] = 0.0
    scores[3, :, 1] = np.linspace(0.9, 0.5, 300)
    together = of(scores, boxes, candidates=400, most=300)
    for row in range(5):
        alone = of(scores[row : row + 1], boxes[row : row + 1], candidates=400, most=300)
        for name in alone:
            np.testing.assert_array_equal(alone[name][0], together[name][row])
    reversed_ = of(scores[::-1], boxes[::-1], candidates=400, most=300)
    for name in together:
        np.testing.assert_array_equal(reversed_[name][::-1], together[name])


def chain(count):
    """Boxes of which each has an IoU of 3/5 with the next one, and of 1/3 with the one after."""
    start = np.arange(count) * (SHAPE[1] / (count + 4))
    zero = np.zeros(count)
    return np.stack([zero, start, zero + SHAPE[0], start + 4 * SHAPE[1] / (count + 4)], -1)


@pytest.mark.parametrize('count', [2, 41, 300])
def test_a_chain_of_boxes_loses_every_other_one(count):
    boxes = chain(count).astype(np.float32)
    scores = np.linspace(0.9, 0.2, count, dtype=np.float32)[:, None]
    found = of(scores[None], boxes[None], 0.1, 0.55, count, count)['scores'][0]
    np.testing.assert_array_equal(found[: (count + 1) // 2], scores[::2, 0])
    assert not found[(count + 1) // 2 :].any()


def test_nothing_above_the_least_score_gives_zeros():
    scores = np.full((2, PLACES, CLASSES), 0.1, np.float32)
    boxes = np.tile(np.array([2, 2, 9, 9], np.float32), (2, PLACES, 1))
    for values in of(scores, boxes, 0.1).values():
        assert not values.any()


def test_boxes_outside_the_image_are_cut_off_or_not_there():
    boxes = np.array([(-9, -9, 50, 50), (-9, 3, 0, 9), (3, 40, 9, 50), (4, 4, 4, 9)], np.float32)
    scores = np.full((4, 1), 0.5, np.float32)
    found = image(of(scores[None], boxes[None]))
    assert found['boxes'][0].tolist() == [0, 0, *SHAPE]
    assert not found['scores'][1:].any()
    sizes = np.array([SHAPE, (8, 8)], np.float32)  # each image has its own
    each = of(np.tile(scores, (2, 1, 1)), np.tile(boxes, (2, 1, 1)), shape=sizes)
    assert each['boxes'][1, 0].tolist() == [0, 0, 8, 8]


def test_two_hundred_boxes_are_all_found():
    y, x = np.mgrid[:10, :20]
    starts = np.stack([y.ravel() * 2.4, x.ravel() * 1.6], -1)
    boxes = np.concatenate([starts, starts + np.array([2.5, 1.7])], -1).astype(np.float32)
    scores = np.linspace(0.2, 0.9, 200, dtype=np.float32)[:, None]
    found = image(of(scores[None], boxes[None], candidates=1000, most=256))
    np.testing.assert_array_equal(found['scores'][:200], scores[::-1, 0])
    assert not found['scores'][200:].any()


def test_boxes_are_at_their_places():
    draws = np.random.default_rng(1)
    places = draws.uniform(0, 24, (PLACES, 2)).astype(np.float32)
    distances = draws.uniform(0, 9, (2, PLACES, 4)).astype(np.float32)
    top, left, bottom, right = np.moveaxis(distances, -1, 0)
    y, x = places.T
    expected = np.stack([y - top, x - left, y + bottom, x + right], -1)
    np.testing.assert_array_equal(boxes_at(places, distances), expected)
    np.testing.assert_array_equal(boxes_at(np.stack([places, places]), distances), expected)
