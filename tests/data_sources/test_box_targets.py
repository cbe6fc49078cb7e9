"""Objects and placements: they move as drawn rectangles do, and are read from any tfds set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from augmentation import augment
from data_sources import arrays, geometry, host_augment, images, record_source, stream, tfds_sets
from data_sources.box_targets import Boxes, Objects, Placement
from data_sources.draws import Draws
from data_sources.targets import TargetError
from errors import UserError
from tests.data_sources.test_decoding import encode
from tests.support_boxes import stock_features, stock_record
from tests.support_targets import write_set

SEEDS = st.integers(0, 2**32 - 1)
SIDE = 48
KINDS = {'objects': Objects(4), 'placement': Placement()}
STRENGTHS = {
    'affine': {'shift': 6.0, 'rotate': 40.0, 'scale': 0.3},
    'crop': {'crop': 9.0},
    'flip': {'flip': 0.5},
    'quarter_turns': {'quarter_turns': 0.8},
}


ORDERS = [
    *(
        pytest.param((name,), id=name, marks=[pytest.mark.slow] * (name != 'crop'))
        for name in STRENGTHS
    ),
    pytest.param(tuple(STRENGTHS), id='all'),
]


def drawn(shape, boxes):
    """White rectangles on black, float32 [h, w, n]: each box in a channel of its own."""
    image = np.zeros((*shape, len(boxes)), np.float32)
    for channel, (top, left, bottom, right) in enumerate(boxes):
        image[top:bottom, left:right, channel] = 1
    return image


def around(pixels, least=0.5):
    """The box around the pixels [h, w] that are at least so bright; None if there are none."""
    y, x = np.nonzero(pixels >= least)
    return [y.min(), x.min(), y.max() + 1, x.max() + 1] if len(y) else None


def random_boxes(rng, shape, count=4, smallest=6):
    """Boxes int [count, 4] of at least some pixels a side."""
    sides = rng.integers(smallest, 20, (count, 2))
    corner = rng.integers(0, np.array(shape) - sides + 1)
    return np.concatenate([corner, corner + sides], -1)


def objects_of(boxes):
    """Objects float32 [4, 6] of these boxes, of classes 0, 1, ...; every other one a crowd."""
    rows = np.zeros((4, 6), np.float32)
    rows[: len(boxes), :4] = boxes
    rows[: len(boxes), 4] = np.arange(len(boxes))
    rows[: len(boxes), 5] = np.arange(len(boxes)) % 2
    return rows


@functools.partial(jax.jit, static_argnames='names')
def moved(images, values, hyper, names):
    """Pixels, targets and all matrices, as training/inputs.py moves them."""
    count, shape = len(images), images.shape[1:3]
    batch = {'index': jnp.arange(count), 'epoch': jnp.zeros(count, jnp.int32)}
    every = []
    for name in names:
        images, matrices = getattr(augment, name)(images, batch, hyper)
        every.append(matrices())
        values = {n: KINDS[n].moved_batch(v, every[-1], shape) for n, v in values.items()}
    return images, values, jnp.stack(every, 1)


@pytest.mark.parametrize('names', ORDERS)
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS)
def test_boxes_move_as_the_pixels_of_a_batch_do(names, seed):
    rng, count, shape = np.random.default_rng(seed), 8, (SIDE, SIDE)
    boxes = np.stack([random_boxes(rng, shape) for _ in range(count)])
    pixels = np.stack([drawn(shape, own) for own in boxes])
    values = {
        'objects': np.stack([objects_of(own) for own in boxes]),
        'placement': KINDS['placement'].empty(count, (*shape, 1)),
    }
    hyper = {k: np.float32(v) for name in names for k, v in STRENGTHS[name].items()}
    seen, found, matrices = moved(pixels, values, hyper | {'seed': np.uint32(seed)}, names)
    alone = 'affine' not in names or len(names) == 1
    checked = gone = 0
    for row, number in np.ndindex(count, 4):
        box = boxes[row, number].astype(np.float64)
        centre = (box[:2] + box[2:]) / 2 - 0.5
        inside = True
        for matrix in np.asarray(matrices[row]):
            centre = geometry.moved_points(centre, matrix)
            inside &= bool((centre > -0.5).all() and (centre < SIDE - 0.5).all())
        kept = found['objects'][row, number]
        if not inside:
            # Of a box that was cut off before, what is left has another centre.
            assert not kept.any() or len(names) > 1
            gone += 1
            continue
        if not kept.any():
            assert len(names) > 1
            continue
        assert kept[4:].tolist() == [number, number % 2]
        where = around(np.asarray(seen)[row, ..., number], 0.1 if 'affine' in names else 0.5)
        # Where the picture is turned, corners are blurred, and a later turn sees a box's box.
        loose = 2.0 if 'affine' in names else 1e-3
        cut = 'affine' in names and ((kept[:2] == 0).any() or (kept[2:4] == SIDE).any())
        if alone and not cut:
            np.testing.assert_allclose(kept[:4], where, atol=loose)
        elif where:
            assert (np.array(where)[:2] >= kept[:2] - loose).all()
            assert (np.array(where)[2:] <= kept[2:4] + loose).all()
        checked += 1
    assert checked
    if names == ('crop',):
        assert gone or checked == 4 * count


@pytest.mark.parametrize('names', ORDERS)
def test_a_placement_takes_boxes_back_to_the_picture(names):
    """What is found in the image lies in the picture where its pixels came from."""
    rng, count, shape = np.random.default_rng(0), 8, (SIDE, SIDE)
    values = {name: kind.empty(count, (*shape, 1)) for name, kind in KINDS.items()}
    hyper = {k: np.float32(v) for name in names for k, v in STRENGTHS[name].items()}
    nothing = np.zeros((count, *shape, 4), np.float32)
    _, found, matrices = moved(nothing, values, hyper | {'seed': np.uint32(7)}, names)
    points = rng.uniform(0, SIDE, (count, 5, 2))
    placements = np.asarray(found['placement'])
    for row in range(count):
        there = points[row] - 0.5
        for matrix in np.asarray(matrices[row]):
            there = geometry.moved_points(there, matrix)
        corner = there + 0.5
        # A box without area is a point, and comes back as one.
        back = geometry.taken_back(np.concatenate([corner, corner], -1), placements[row, :, :3])
        assert placements[row, :, 3].tolist() == [SIDE, SIDE]
        np.testing.assert_allclose(back[:, :2], points[row], atol=1e-3)
        np.testing.assert_allclose(back[:, 2:], points[row], atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    size=st.tuples(st.integers(20, 400), st.integers(20, 400)),
    frame=st.tuples(st.integers(32, 96), st.integers(32, 96)),
    zoom=st.sampled_from([None, (0.5, 2.0), (0.4, 0.6), (1.5, 3.0)]),
    flip=st.booleans(),
)
def test_boxes_move_as_the_pixels_of_a_fitted_picture_do(seed, size, frame, zoom, flip):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, size)[:3]
    picture = np.rint(255 * drawn(size, boxes)).astype(np.uint8)
    pipeline = (
        host_augment.Pipeline(((host_augment.flip, {'flip': float(flip)}),)) if zoom else None
    )
    transform = stream.FitTransform(seed if zoom else None, frame, zoom or (1.0, 1.0), pipeline)
    image, matrices = transform.with_matrices(encode(picture, 'PNG'), 1, 2)
    np.testing.assert_array_equal(image, transform(encode(picture, 'PNG'), 1, 2))
    assert len(matrices) == (2 if zoom and flip else 1)
    assert image.shape == (*frame, 3)
    objects, placement = objects_of(boxes), KINDS['placement'].default(size)
    for matrix in matrices:
        objects = KINDS['objects'].moved(objects, matrix, frame)
        placement = KINDS['placement'].moved(placement, matrix, frame)
    assert objects.dtype == placement.dtype == np.float32
    assert not objects[3].any()
    scale = 1 / abs(placement[0, 0]), 1 / np.abs(placement[1, 1])
    for number, box in enumerate(boxes):
        kept = objects[number]
        if zoom is None:
            assert kept.any()  # nothing is lost
            back = geometry.taken_back(kept[None, :4], placement[:, :3])[0]
            np.testing.assert_allclose(back, box, atol=1e-3)
        if not kept.any():
            continue
        sides = kept[2:4] - kept[:2]
        if (sides < 4).any():
            continue  # too little is seen to measure it
        where = around(image[..., number], 128)
        np.testing.assert_allclose(kept[:4], where, atol=0.51 + 0.5 * max(*scale, 1) / 4)
        assert kept[4:].tolist() == [number, number % 2]


def test_an_object_whose_centre_leaves_the_image_is_gone():
    kind = Objects(4)
    objects = objects_of([[0, 0, 10, 10], [0, 2, 10, 12], [4, 4, 6, 30], [20, 20, 30, 30]])
    found = kind.moved(objects, geometry.translation(0, 6), (24, 24))
    assert not found[0].any()
    assert found[1].tolist() == [0, 0, 10, 6, 1, 1]  # its centre was at 7, and is at 1
    assert found[2].tolist() == [4, 0, 6, 24, 2, 0]
    assert not found[3].any()  # its centre is at (25, 19)
    # A centre on the first edge is in the image, and one on the last is not.
    assert kind.moved(objects, geometry.translation(0, 5), (24, 24))[0].tolist() == [
        0,
        0,
        10,
        5,
        0,
        0,
    ]
    assert not kind.moved(objects, geometry.translation(0, -19), (24, 24))[0].any()


def test_what_has_no_area_stays_absent_wherever_it_is_moved():
    kind = Objects(3)
    rows = np.array([[5, 5, 5, 9, 1, 0], [5, 5, 9, 5, 1, 1], [0, 0, 0, 0, 0, 0]], np.float32)
    for matrix in (geometry.IDENTITY, geometry.rotation(0.5, (20, 20)), geometry.mirror(20)):
        assert not kind.moved(rows, matrix, (20, 20)).any()
        batch = kind.moved_batch(jnp.asarray(rows)[None], jnp.asarray(matrix)[None], (20, 20))
        assert not np.asarray(batch).any()


@settings(max_examples=200)
@given(seed=SEEDS)
def test_joined_is_one_change_after_another(seed):
    rng = np.random.default_rng(seed)
    first, second = (
        geometry.rotation(rng.uniform(-3, 3), (30, 40), rng.uniform(0.5, 2), rng.uniform(-9, 9, 2))
        for _ in range(2)
    )
    points = rng.uniform(-10, 50, (6, 2))
    apart = geometry.moved_points(geometry.moved_points(points, first), second)
    together = geometry.moved_points(points, geometry.joined(first, second))
    np.testing.assert_allclose(together, apart, atol=1e-3)
    product = np.vstack([first, [0, 0, 1]]) @ np.vstack([second, [0, 0, 1]])
    np.testing.assert_allclose(geometry.joined(first, second), product[:2], atol=1e-9)


@settings(max_examples=100)
@given(seed=SEEDS)
def test_boxes_around_boxes_hold_every_point_of_them(seed):
    """`surrounding` there, `taken_back` again: each is the smallest box around moved points."""
    rng = np.random.default_rng(seed)
    matrix = geometry.rotation(rng.uniform(-3, 3), (30, 40), rng.uniform(0.5, 2))
    box = np.sort(rng.uniform(-5, 45, (2, 2)), 0).ravel()
    grid = np.stack(np.meshgrid(*(np.linspace(box[i], box[i + 2], 9) for i in (0, 1))), -1)
    there = geometry.moved_points(grid.reshape(-1, 2) - 0.5, matrix) + 0.5
    smallest = [*there.min(0), *there.max(0)]
    np.testing.assert_allclose(geometry.surrounding(box, matrix), smallest, atol=1e-3)
    back = grid.reshape(-1, 2) - 0.5
    back = (matrix[:, :2] @ back.T).T + matrix[:, 2] + 0.5
    np.testing.assert_allclose(
        geometry.taken_back(box[None], matrix)[0], [*back.min(0), *back.max(0)], atol=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    frame=st.tuples(st.integers(16, 64), st.integers(16, 64)),
)
def test_fit_matrix_says_where_the_picture_of_a_user_lies(seed, size, frame):
    """By a picture of two colors whose border is known."""
    from PIL import Image

    edge = int(np.random.default_rng(seed).integers(0, size[1]))
    pixels = np.zeros(size, np.uint8)
    pixels[:, edge:] = 200
    fitted = images.fitted(Image.fromarray(pixels), *frame, 'no')[..., 0]
    matrix = images.fit_matrix(size, *frame)
    whole = geometry.surrounding(np.array([0, 0, *size]), matrix)
    slack = np.array([1.01, 1.01, 1.01, 1.01])
    assert (whole[:2] >= -slack[:2]).all()
    assert (whole[2:] <= np.array(frame) + slack[2:]).all()
    assert np.isclose(whole[2:] - whole[:2], frame, atol=1.01).any()  # it fills the frame one way
    left = geometry.surrounding(np.array([0, edge, size[0], size[1]]), matrix)[1]
    row = fitted[int(np.clip((whole[0] + whole[2]) / 2, 0, frame[0] - 1))]
    own = row[max(0, round(float(whole[1]))) : round(float(whole[3]))]
    scale = frame[0] / size[0] if whole[3] - whole[1] < frame[1] - 1 else frame[1] / size[1]
    bright = int((own > 100).sum())
    assert bright == pytest.approx(float(whole[3] - left), abs=1 + scale)


# --- in records of tfds -------------------------------------------------------------------------

NOISE = np.random.default_rng(1).integers(0, 255, (20, 40, 3)).astype(np.uint8)
BOXES = [[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 1.0, 0.1]]


@pytest.mark.parametrize('form', ['voc', 'coco'])
def test_a_stock_set_is_read_with_edges_in_pixels(tmp_path, form):
    own = stock_record(NOISE, BOXES, [2, 0], crowd=[0, 1] if form == 'coco' else None)
    empty = stock_record(NOISE, [], [], crowd=[] if form == 'coco' else None)
    splits = {split: [own, empty] for split in ('train', 'validation', 'test')}
    write_set(tmp_path, 'stock', stock_features(form), splits)
    source = record_source.load('stock', 'train', str(tmp_path), {**KINDS})
    assert source.class_names == ('ant', 'bee', 'cat')
    read, nothing = source.read([0, 1])
    crowd = float(form == 'coco')
    assert read.targets['objects'].tolist() == [
        [5, 20, 15, 40, 2, 0], [0, 0, 20, 4, 0, crowd], [0] * 6, [0] * 6
    ]  # fmt: skip
    assert not nothing.targets['objects'].any()
    np.testing.assert_array_equal(read.targets['placement'][:, :3], geometry.IDENTITY)


@pytest.mark.parametrize('held', [False, True], ids=['streamed', 'in memory'])
@pytest.mark.parametrize(
    ('boxes', 'labels', 'sentence'),
    [
        (BOXES * 3, [0] * 6, r'Record 1 of split "train" in .* has objects with 6 boxes, more than '
         r'config\.data\.max_boxes=4: set it to 6 or more'),
        ([[0.5, 0, 0.25, 1]], [0], r'Record 1 .*\(0\.5, 0\.0, 0\.25, 1\.0\)|\[0\.5, 0\.0, 0\.25, '
         r'1\.0\], which ends before it starts'),
        ([[0, 0, np.nan, 1]], [0], 'Record 1 .*not finite'),
        (BOXES, [0, 7], 'Record 1 .*class 7, out of range for 3 classes'),
    ],
    ids=['too many', 'reversed', 'not finite', 'unknown class'],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_the_name_of_its_record(
    tmp_path, held, boxes, labels, sentence
):
    splits = {'train': [stock_record(NOISE, BOXES, [0, 1]), stock_record(NOISE, boxes, labels)]}
    splits |= {split: [stock_record(NOISE, BOXES, [0, 1])] for split in ('validation', 'test')}
    write_set(tmp_path, 'stock', stock_features(shape=(20, 40, 3)), splits)
    load = tfds_sets.load if held else record_source.load
    with pytest.raises(UserError, match=sentence):
        getattr(load('stock', 'train', str(tmp_path), KINDS), 'read', list)([1])


def test_a_set_of_one_size_is_held_in_memory(tmp_path):
    splits = {
        split: [stock_record(NOISE, BOXES, [0, 1]), stock_record(NOISE, [], [])]
        for split in ('train', 'test')
    }
    splits['validation'] = splits['test']
    write_set(tmp_path, 'stock', stock_features(shape=(20, 40, 3)), splits)
    source = arrays.load('stock', 'train', str(tmp_path), KINDS)
    assert source.targets['objects'][0, 0].tolist() == [5, 20, 15, 40, 0, 0]
    assert not source.targets['objects'][1].any()
    assert source.targets['placement'].shape == (2, 2, 4)


@pytest.mark.parametrize(
    'feature',
    [
        tfds.features.ClassLabel(num_classes=2),
        tfds.features.Sequence(tfds.features.BBoxFeature()),
        tfds.features.Sequence({'bbox': tfds.features.BBoxFeature()}),
        tfds.features.Sequence({'bbox': tfds.features.Tensor(shape=(4,), dtype=np.float32),
                                'label': tfds.features.ClassLabel(num_classes=2)}),
    ],
    ids=['label', 'boxes', 'no labels', 'no boxes'],
)  # fmt: skip
def test_other_features_are_no_objects(feature):
    assert not Objects().accepts(feature)


def test_more_boxes_than_a_set_in_memory_may_have_are_refused():
    with pytest.raises((TargetError, UserError), match='max_boxes=3: set it to 6 or more'):
        arrays.load('scenes', 'test', '', {'objects': Objects(3)})
    wide = arrays.load('scenes', 'test', '', {'objects': Objects(9)})
    narrow = arrays.load('scenes', 'test', '', {'objects': Objects(6)})
    np.testing.assert_array_equal(wide.targets['objects'][:, :6], narrow.targets['objects'])
    assert not wide.targets['objects'][:, 6:].any()


def test_boxes_alone_are_no_objects():
    assert Objects().taken(np.zeros((2, 3, 6)), Boxes((3,))) is None


# --- what rounding must not decide --------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS, size=st.tuples(st.integers(64, 40_000), st.integers(64, 40_000)))
def test_whole_pixels_are_whole_after_fractions_frame_and_back(seed, size):
    """A box of 32 x 32 pixels is on COCO's border between small and medium objects."""
    from tasks.detection import Detection

    rng = np.random.default_rng(seed)
    corner = rng.integers(0, np.array(size) - 31)
    box = np.array([*corner, *(corner + 32)])
    fractions = (box / np.array([*size, *size])).astype(np.float32)
    kind, transform = Objects(1), stream.FitTransform(None, (240, 320))
    objects = kind.in_pixels(np.array([[*fractions, 0, 0]], np.float32), size)
    from data_sources import fitting

    matrix = fitting.matrix(fitting.fit(size, transform.frame), size, transform.frame)
    rows = {
        'objects': kind.moved(objects, matrix, transform.frame)[None],
        'placement': Placement().moved(Placement().default(size), matrix, transform.frame)[None],
        'boxes': np.zeros((1, 1, 4), np.float32),
        'scores': np.zeros((1, 1), np.float32),
    }
    found = Detection(1).collected(rows)['objects'][0, 0, :4]
    assert found.tolist() == box.tolist()
    assert (found[2] - found[0]) * (found[3] - found[1]) == 32 * 32


def test_draws_of_a_fit_depend_on_visit_and_example_alone():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    transform = stream.FitTransform(3, (32, 32), (0.5, 2.0))
    encoded = encode(pixels, 'PNG')
    first = transform(encoded, 0, 5)
    np.testing.assert_array_equal(first, transform(encoded, 0, 5))
    assert (first != transform(encoded, 1, 5)).any()
    assert (first != transform(encoded, 0, 6)).any()
    assert Draws(3, 'crop', 0, 5).uniform(0, 1) == Draws(3, 'crop', 0, 5).uniform(0, 1)
