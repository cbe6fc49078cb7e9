"""Which place learns which object, against loops over places and objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks import box_losses
from tasks.assignment import assigned, ranges

SIZE, STRIDES = (64, 96), (4, 8, 16)
ROWS = 5
NOTHING = np.zeros(6, np.float32)


def grid():
    """Places and strides of three maps of an image, the finest first, in row-major order."""
    places, strides = [], []
    for stride in STRIDES:
        height, width = (side // stride for side in SIZE)
        y, x = np.mgrid[:height, :width]
        places.append(np.stack([y.ravel() + 0.5, x.ravel() + 0.5], -1) * stride)
        strides.append(np.full(height * width, stride, np.int32))
    return np.concatenate(places).astype(np.float32), np.concatenate(strides)


PLACES, OF = grid()
learned = jax.jit(lambda objects: assigned(objects, PLACES, OF))


def rows(*objects):
    """Objects (y0, x0, y1, x1[, class[, crowd]]) as float32 [ROWS, 6]."""
    result = np.zeros((ROWS, 6), np.float32)
    for row, given_ in zip(result, objects, strict=False):
        row[: len(given_)] = given_
    return result


def edge(high):
    # Quarters, so that float32 has all distances and areas as they are.
    return st.integers(0, high * 4).map(lambda quarter: quarter / 4)


@st.composite
def scene(draw):
    """Objects float32 [ROWS, 6]: any, tiny, thin, none, and several in one box."""
    objects = []
    for _ in range(draw(st.integers(0, ROWS))):
        y, x = draw(edge(SIZE[0] - 1)), draw(edge(SIZE[1] - 1))
        sides = st.sampled_from([0.25, 2.0, 20.0]) | edge(64)
        high, wide = draw(sides), draw(sides)
        end = min(y + high, SIZE[0]), min(x + wide, SIZE[1])
        objects.append((y, x, *end, 0, draw(st.sampled_from([0, 0, 0, 1]))))
    return rows(*objects)


# --- the slow version -------------------------------------------------------------------------


def distances(place, box):
    return place[0] - box[0], place[1] - box[1], box[2] - place[0], box[3] - place[1]


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1]) if box[2] > box[0] and box[3] > box[1] else 0


def from_centre(place, box):
    return place[0] - (box[0] + box[2]) / 2, place[1] - (box[1] + box[3]) / 2


def by_the_rules(place, stride, box):
    """Whether a place can learn an object by the rules of FCOS."""
    low = 0 if stride == STRIDES[0] else 8 * stride // 2
    high = np.inf if stride == STRIDES[-1] else 8 * stride
    to_edges = distances(place, box)
    near = max(abs(offset) for offset in from_centre(place, box)) < 1.5 * stride
    return min(to_edges) > 0 and near and low < max(to_edges) <= high


def smallest(numbers, objects):
    return min(numbers, key=lambda n: (area(objects[n]), n), default=-1)


def map_for(box):
    """The stride of the map on which an object without place gets one, and whether inside it."""
    half = max(box[2] - box[0], box[3] - box[1]) / 2
    fine = [stride for stride in STRIDES if stride == STRIDES[0] or half > 8 * stride // 2]
    for stride in reversed(fine):
        if any(min(distances(p, box)) > 0 for p in PLACES[stride == OF]):
            return stride, True
    return fine[-1], False


def nearest(box):
    stride, inside = map_for(box)
    allowed = [
        i
        for i, place in enumerate(PLACES)
        if OF[i] == stride and (not inside or min(distances(place, box)) > 0)
    ]
    return min(allowed, key=lambda i: (sum(o**2 for o in from_centre(PLACES[i], box)), i))


def slow(objects):
    """(index, ignored, places that were claimed) by loops."""
    objects = objects.astype(np.float64)
    single = [n for n, box in enumerate(objects) if area(box) and not box[5]]
    owner = np.array(
        [
            smallest([n for n in single if by_the_rules(*where, objects[n])], objects)
            for where in zip(PLACES, OF, strict=True)
        ]
    )
    claims = {}
    for n in single:
        if n not in owner:
            claims.setdefault(nearest(objects[n]), []).append(n)
    index = owner.copy()
    for place, numbers in claims.items():
        holder = owner[place]
        kept = [p for p in np.flatnonzero(owner == holder) if p not in claims]
        if holder < 0 or kept:
            index[place] = smallest(numbers, objects)
    crowds = [box for box in objects if area(box) and box[5]]
    ignored = [
        index[i] < 0 and any(min(distances(place, box)) > 0 for box in crowds)
        for i, place in enumerate(PLACES)
    ]
    return index, np.array(ignored), np.flatnonzero(index != owner)


# --- tests ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(scene())
def test_places_learn_what_loops_find(objects):
    found = jax.tree.map(np.asarray, learned(objects))
    index, ignored, claimed = slow(objects)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.ignored, ignored)
    expected = np.array([distances(p, objects[i]) for p, i in zip(PLACES, index, strict=True)])
    expected[index < 0] = 0
    np.testing.assert_array_equal(found.distances, expected)
    centred = np.array(box_losses.centerness(expected))
    centred[claimed] = 1
    centred[index < 0] = 0
    np.testing.assert_allclose(found.centerness, centred, rtol=1e-6)
    assert found.index.dtype == np.int32


@settings(max_examples=60)
@given(scene(), st.permutations(range(ROWS)))
def test_the_order_of_the_rows_changes_the_index_alone(objects, order):
    order = np.array(order)
    there = [area(box) for box in objects if area(box)]
    assume(len(set(there)) == len(there))
    found, other = learned(objects), learned(objects[order])
    row = np.asarray(other.index)
    np.testing.assert_array_equal(found.index, np.where(row >= 0, order[row], -1))
    for one, another in zip(found[1:], other[1:], strict=True):
        np.testing.assert_array_equal(one, another)


@settings(max_examples=30)
@given(scene(), st.integers(0, ROWS))
def test_absent_rows_change_nothing(objects, where):
    more = np.insert(objects, [where, where], NOTHING, axis=0)
    found, other = learned(objects), learned(more)
    row = np.asarray(other.index)
    np.testing.assert_array_equal(found.index, np.where(row >= where + 2, row - 2, row))
    for one, another in zip(found[1:], other[1:], strict=True):
        np.testing.assert_array_equal(one, another)


@settings(max_examples=60)
@given(scene())
def test_an_object_has_a_place_unless_a_smaller_one_has_the_only_one(objects):
    index = np.asarray(learned(objects).index)
    for n, box in enumerate(objects):
        if area(box) and not box[5] and n not in index:
            holder = objects[index[nearest(box.astype(np.float64))]]
            assert 0 < area(holder) <= area(box) or (index == index[nearest(box)]).sum() == 1
        if box[5] or not area(box):
            assert n not in index


def test_ranges_are_eight_strides_of_a_map_and_of_the_finer_one():
    found = ranges(np.array([8, 8, 16, 64]))
    expected = [[0, 64], [0, 64], [64, 128], [128, np.inf]]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(ranges(np.array([32, 32])), [[0, np.inf]] * 2)


def test_places_near_the_centre_of_a_box_learn_it():
    # Within 6 pixels of (16, 16) are those at 10 < y, x < 22: 14 and 18.
    found = learned(rows((0, 0, 32, 32)))
    places = {tuple(place) for place in PLACES[np.asarray(found.index) == 0]}
    assert places == {(y, x) for y in (14, 18) for x in (14, 18)}
    np.testing.assert_array_equal(
        found.distances[PLACES.tolist().index([14, 18])], [14, 18, 18, 14]
    )


@pytest.mark.parametrize(('side', 'stride'), [(24, 4), (64, 8)])
def test_larger_objects_are_learned_on_coarser_maps(side, stride):
    found = np.asarray(learned(rows((0, 0, side, side))).index)
    assert set(OF[found == 0]) == {stride}


def test_a_distance_of_exactly_eight_strides_is_still_for_the_finer_map():
    index = np.asarray(learned(rows((2, 2, 66, 66))).index)
    assert PLACES[(index == 0) & (OF == 4)].tolist() == [[34, 34]]


def test_the_smaller_of_two_objects_wins_where_both_could_be_learned():
    both = np.asarray(learned(rows((4, 4, 32, 32, 1), (16, 16, 32, 32, 2))).index)
    assert {tuple(place) for place in PLACES[both == 1]} == {
        (y, x) for y in (22, 26) for x in (22, 26)
    }
    large = {(y, x) for y in (14, 18, 22) for x in (14, 18, 22)} - {(22, 22)}
    assert {tuple(place) for place in PLACES[both == 0]} == large


def test_of_equal_objects_the_first_wins_and_the_other_gets_the_place_nearest_to_its_centre():
    index = np.asarray(learned(rows((16, 16, 33, 33, 1), (16, 16, 33, 33, 2))).index)
    assert (index == 0).sum() == 8
    assert PLACES[index == 1].tolist() == [[26, 26]]
    tiny = np.asarray(learned(rows((1.5, 1.5, 2.5, 2.5, 1), (1.5, 1.5, 2.5, 2.5, 2))).index)
    assert (tiny == 0).sum() == 1  # whose only place is not taken from it
    assert 1 not in tiny


def test_an_object_between_places_gets_the_nearest_one_and_full_centerness():
    found = learned(rows((3.5, 11.5, 4.25, 12.75)))
    [place] = np.flatnonzero(np.asarray(found.index) == 0)
    assert PLACES[place].tolist() == [2, 14] or PLACES[place].tolist() == [2, 10]
    assert float(found.distances[place].min()) < 0
    assert float(found.centerness[place]) == 1


def test_a_thin_object_is_learned_where_a_place_lies_in_it():
    # For stride 8 by its width, but there y is 4, 12, ...
    index = np.asarray(learned(rows((4.5, 1, 7, 95))).index)
    assert PLACES[index == 0].tolist() == [[6, 46]]
    assert OF[index == 0].tolist() == [4]


def test_an_object_does_not_lose_its_last_places_to_several_others():
    # The smallest lies in (2, 2) and (2, 6); each of the others lies in one of them alone.
    objects = rows((0.5, 0.5, 3.5, 7.5), (0, 0, 5.75, 5.75), (0, 2.25, 5.75, 9.75))
    index = np.asarray(learned(objects).index)
    assert PLACES[index == 0].tolist() == [[2, 2], [2, 6]]
    one = np.asarray(learned(objects[[0, 1, 4, 4, 4]]).index)
    assert PLACES[one == 0].tolist() == [[2, 6]]
    assert PLACES[one == 1].tolist() == [[2, 2]]


def test_places_in_a_crowd_are_ignored_unless_they_learn_another_object():
    crowd = (0, 0, 32, 48, 0, 1)
    alone, both = learned(rows(crowd)), learned(rows((8, 8, 24, 24), crowd))
    inside = (PLACES < [32, 48]).all(-1)
    np.testing.assert_array_equal(alone.ignored, inside)
    assert (np.asarray(alone.index) == -1).all()
    np.testing.assert_array_equal(both.ignored, inside & (np.asarray(both.index) == -1))
    assert (np.asarray(both.index) == 0).sum() == 4


def test_each_example_of_a_batch_is_on_its_own():
    batch = np.stack([rows((0, 0, 32, 32)), rows(), rows((8, 8, 9, 9), (0, 0, 64, 96, 0, 1))])
    each = jax.vmap(lambda objects: assigned(objects, PLACES, OF, ranges(OF)))
    found = jax.jit(each)(jnp.array(batch))
    for row, objects in enumerate(batch):
        alone = learned(objects)
        for one, another in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one, another[row])
