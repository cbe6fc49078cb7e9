"""Objects are told apart and counted as slow, obvious versions do it."""

import heapq
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from tasks import objects
from tasks.objects import THRESHOLDS

UNKNOWN = -1


def areas(instances):
    return {int(k): int(n) for k, n in zip(*np.unique(instances, return_counts=True), strict=True)}


def square(shape, *boxes):
    """Returns an instance map with the k-th box (y0, x0, y1, x1) as object k."""
    result = np.zeros(shape, np.int32)
    for k, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        result[y0:y1, x0:x1] = k
    return result


def probabilities(inside, border):
    """Returns the probabilities of masks bool [h, w], 0.9 for the class and 0.05 for the others."""
    result = np.full((*inside.shape, 3), 0.05, np.float32)
    chosen = np.where(inside, 2, np.where(border, 1, 0))
    np.put_along_axis(result, chosen[..., None], 0.9, axis=-1)
    return result


# --- told apart -----------------------------------------------------------------------------------


def connected(mask):
    """Yields the sets of pixels (y, x) that are connected by their edges, in reading order."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    for pixel in sorted(left):
        if pixel not in left:
            continue
        part, stack = set(), [pixel]
        while stack:
            y, x = stack.pop()
            if (y, x) in left:
                left.remove((y, x))
                part.add((y, x))
                stack += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        yield part


def flooded(height, markers, allowed):
    """Meyer's flooding with a queue, pixel by pixel."""
    owner, queue, age = {}, [], 0
    for number, part in enumerate(markers):
        for y, x in sorted(part):
            owner[y, x] = number
    for y, x in sorted(owner):
        heapq.heappush(queue, (height[y, x], 0, y, x))
    while queue:
        _, _, y, x = heapq.heappop(queue)
        for near in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if near in allowed and near not in owner:
                owner[near] = owner[y, x]
                age += 1
                heapq.heappush(queue, (height[near], age, *near))
    result = [set() for _ in markers]
    for pixel, number in owner.items():
        result[number].add(pixel)
    return result


def slowly_separated(classes, least_area):
    """The docstring of `objects.separated`, sentence by sentence."""
    covered = classes[..., 1] + classes[..., 2] > 0.5
    allowed = {pixel for part in connected(covered) for pixel in part}

    def with_missing(markers):
        taken = set().union(*markers)
        return markers + [part for part in connected(covered) if not part & taken]

    markers = with_missing(list(connected((classes[..., 2] > 0.5) & covered)))
    found = flooded(-classes[..., 2], markers, allowed)
    large = [m for m, own in zip(markers, found, strict=True) if len(own) >= least_area]
    if len(large) < len(markers):
        found = flooded(-classes[..., 2], with_missing(large), allowed)
    result = np.zeros(covered.shape, np.int32)
    large = sorted((own for own in found if len(own) >= least_area), key=min)
    for number, own in enumerate(large, start=1):
        for pixel in own:
            result[pixel] = number
    return result


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14), st.integers(1, 9))
def test_objects_are_those_of_a_flooding_pixel_by_pixel(seed, height, width, least_area):
    draw = np.random.default_rng(seed)
    # Some smoothness, so that there are objects of several pixels, and no two equal heights.
    coarse = draw.normal(size=(-(-height // 3), -(-width // 3), 3)).repeat(3, 0).repeat(3, 1)
    logits = 2 * coarse[:height, :width] + draw.normal(size=(height, width, 3))
    odds = np.exp(logits)
    classes = (odds / odds.sum(-1, keepdims=True)).astype(np.float32)
    found = objects.separated(classes, least_area)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, slowly_separated(classes, least_area))


def test_touching_objects_are_parted_at_their_border():
    inside, covered = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    covered[4:16, 3:27] = True
    inside[6:14, 5:14] = inside[6:14, 16:25] = True
    found = objects.separated(probabilities(inside, covered))
    assert set(np.unique(found)) == {0, 1, 2}
    np.testing.assert_array_equal(found > 0, covered)
    assert (found[inside[:, :15].nonzero()] == 1).all()
    assert (found[6:14, 16:25] == 2).all()
    assert (found[4:16, 3:14] == 1).all()
    assert (found[4:16, 16:27] == 2).all()


def test_an_object_that_is_all_border_is_one_object():
    covered = np.zeros((12, 12), bool)
    covered[2:8, 3:9] = True
    found = objects.separated(probabilities(np.zeros_like(covered), covered))
    np.testing.assert_array_equal(found, covered)


def test_a_speck_beside_an_object_becomes_part_of_it_and_one_alone_is_dropped():
    inside, covered = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    covered[2:12, 2:12] = inside[3:11, 3:9] = True
    inside[5, 10] = True  # a marker of its own, which wins a few pixels of border
    covered[15:18, 20:25] = inside[16, 21:23] = True  # 15 pixels
    classes = probabilities(inside, covered)
    assert len(areas(objects.separated(classes, least_area=1))) == 4
    assert areas(objects.separated(classes, least_area=15)) == {0: 485, 1: 100, 2: 15}
    found = objects.separated(classes, least_area=16)
    assert areas(found) == {0: 500, 1: 100}
    assert (found[2:12, 2:12] == 1).all()


def test_thresholds_widen_and_narrow():
    classes = np.zeros((20, 20, 3), np.float32)
    classes[..., 0] = 1
    classes[5:15, 5:15] = 0.55, 0.1, 0.35
    assert not objects.separated(classes).any()
    found = objects.separated(classes, inside=0.3, foreground=0.4)
    assert areas(found) == {0: 300, 1: 100}


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (33, 17), (0, 5)])
def test_a_picture_without_objects_gives_zeros(shape):
    classes = np.zeros((*shape, 3), np.float32)
    classes[..., 0] = 1
    found = objects.separated(classes)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.zeros(shape))


def test_a_picture_that_is_all_inside_is_one_object():
    classes = np.zeros((9, 9, 3), np.float32)
    classes[..., 2] = 1
    np.testing.assert_array_equal(objects.separated(classes), np.ones((9, 9)))


def test_other_than_three_classes_are_refused():
    with pytest.raises(ValueError, match=r'probabilities \[h, w, 3\] are needed, not \[4, 4, 2\]'):
        objects.separated(np.zeros((4, 4, 2), np.float32))


def test_numbers_follow_reading_order_and_the_rest_stays():
    found = objects.numbered(np.array([[-1, 70_000, 0], [7, 70_000, 3]]))
    np.testing.assert_array_equal(found, [[-1, 1, 0], [2, 1, 3]])


# --- compared -------------------------------------------------------------------------------------


def slowly_matched(answer, truth):
    """As the Data Science Bowl counted: a matrix of IoUs, then hits, misses and false alarms."""
    known = (answer != UNKNOWN) & (truth != UNKNOWN)
    own = [(answer == k) & known for k in sorted({*answer[known].tolist()} - {0})]
    true = [(truth == k) & known for k in sorted({*truth[known].tolist()} - {0})]
    iou = [[Fraction(int((t & a).sum()), int((t | a).sum())) for a in own] for t in true]
    rows = []
    for part in range(10, 20):
        hit = np.array([[value > Fraction(part, 20) for value in row] for row in iou], bool)
        hit = hit.reshape(len(true), len(own))
        rows.append([(hit.sum(1) == 1).sum(), (hit.sum(0) == 0).sum(), (hit.sum(1) == 0).sum()])
    return rows


@st.composite
def pairs_of_maps(draw):
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    numbers = st.sampled_from([0, 0, 0, UNKNOWN, 1, 2, 5, 65_535])
    truth = draw(hypothesis_numpy.arrays(np.int32, shape, elements=numbers))
    if draw(st.booleans()):
        return draw(hypothesis_numpy.arrays(np.int32, shape, elements=numbers)), truth
    answer = np.where(truth > 0, 100 - truth % 90, 0)  # the same objects by other numbers ...
    changed = draw(hypothesis_numpy.arrays(bool, shape))
    few = changed & (np.arange(truth.size).reshape(shape) % 3 == 0)
    return np.where(few, 0, answer).astype(np.int32), truth  # ... a little smaller


@settings(max_examples=300, deadline=None)
@given(pairs_of_maps())
def test_counts_are_those_of_the_matrix_of_all_pairs(maps):
    found = objects.matched(*maps)
    assert found.dtype == np.int64
    assert found.shape == (10, 3)
    np.testing.assert_array_equal(found, slowly_matched(*maps))


SHAPE = (20, 40)
ONE, TWO = (2, 2, 12, 12), (2, 20, 12, 30)
CASES = {
    # name: (answer, truth, at 0.50, at 0.75, at 0.95)
    'equal': ([ONE, TWO], [ONE, TWO], (2, 0, 0), (2, 0, 0), (2, 0, 0)),
    'merged': ([(2, 2, 12, 30)], [ONE, TWO], (0, 1, 2), (0, 1, 2), (0, 1, 2)),
    # Sixty and forty of a hundred pixels: the larger part is the object until IoU 0.60.
    'split': ([(2, 2, 8, 12), (8, 2, 12, 12)], [ONE], (1, 1, 0), (0, 2, 1), (0, 2, 1)),
    # Moved by one of ten pixels: IoU 90 / 110 = 0.82.
    'shifted': ([(3, 2, 13, 12), TWO], [ONE, TWO], (2, 0, 0), (2, 0, 0), (1, 1, 1)),
    'nothing found': ([], [ONE, TWO], (0, 0, 2), (0, 0, 2), (0, 0, 2)),
    'nothing there': ([ONE, TWO], [], (0, 2, 0), (0, 2, 0), (0, 2, 0)),
    'nothing at all': ([], [], (0, 0, 0), (0, 0, 0), (0, 0, 0)),
}


@pytest.mark.parametrize('name', CASES)
def test_hand_made_cases(name):
    answer, truth, *expected = CASES[name]
    found = objects.matched(square(SHAPE, *answer), square(SHAPE, *truth))
    assert [tuple(found[THRESHOLDS.index(t)].tolist()) for t in (0.5, 0.75, 0.95)] == expected


def test_an_overlap_of_exactly_the_threshold_is_no_hit():
    answer, truth = square((4, 8), (0, 0, 2, 5)), square((4, 8), (0, 0, 4, 5))
    assert objects.matched(answer, truth)[0].tolist() == [0, 1, 1]
    # 7 / 10, which is not a finite binary fraction; nor is the threshold.
    answer, truth = square((1, 10), (0, 0, 1, 7)), square((1, 10), (0, 0, 1, 10))
    assert objects.matched(answer, truth)[:, 0].tolist() == [1] * 4 + [0] * 6


def test_what_lies_where_nothing_is_known_is_not_counted():
    answer, truth = square(SHAPE, ONE, TWO), square(SHAPE, ONE)
    truth[:, 15:] = UNKNOWN  # the second answer may be right
    assert objects.matched(answer, truth).tolist() == [[1, 0, 0]] * 10
    truth[:, 7:] = UNKNOWN  # and half of the first object is not known
    assert objects.matched(answer, truth).tolist() == [[1, 0, 0]] * 10


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r'shapes \[4, 4\] and \[4, 5\]'):
        objects.matched(np.zeros((4, 4), int), np.zeros((4, 5), int))


def test_precision_of_a_picture_without_objects_is_one_and_of_false_alarms_none():
    counts = np.array([[3, 1, 2], [0, 0, 0], [0, 2, 0], [0, 0, 2]])
    np.testing.assert_allclose(objects.precision(counts), [0.5, 1, 0, 0])
