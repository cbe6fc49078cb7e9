"""Targets that move with their pixels: every augmentation and crop against the moved pixels."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from augmentation import augment
from augmentation import registry as augmentations
from configs import base
from data_sources import (
    box_targets,
    cropping,
    decoding,
    geometry,
    host_augment,
    host_ops,
    label_maps,
    targets,
)
from data_sources.draws import Draws
from tests.data_sources.test_decoding import encode

SIDES = st.integers(24, 40)
SEEDS = st.integers(0, 2**32 - 1)
ROOM = 6  # a blob's pixels reach as far from its centre
KINDS = {
    'points': targets.Points(),
    'boxes': box_targets.Boxes(),
    'map': label_maps.LabelMap(fill=9),
}


def blob(shape, point):
    """A smooth spot, float64 [h, w] in [0, 1], whose brightness is centred on a point (y, x)."""
    y, x = (np.arange(side) for side in shape)
    distance = (y[:, None] - point[0]) ** 2 + (x[None, :] - point[1]) ** 2
    return np.exp(-distance / 4.0)


def centroid(image):
    """Where the brightness of an image [h, w] is."""
    y, x = (np.arange(side) for side in image.shape)
    return np.array([(image.sum(1) * y).sum(), (image.sum(0) * x).sum()]) / image.sum()


def inside(point, shape, room=ROOM):
    return all(room <= p <= side - 1 - room for p, side in zip(point, shape, strict=True))


def follow(kind, values, matrices, shape):
    for matrix in matrices:
        values = kind.moved(values, matrix, shape)
    return values


# --- on the device ----------------------------------------------------------------------------

STRENGTHS = {
    'affine': {'shift': 4.0, 'rotate': 60.0, 'scale': 0.3},
    'crop': {'crop': 5.0},
    'flip': {'flip': 0.5},
}


@functools.partial(jax.jit, static_argnames='names')
def moved(images, values, hyper, names):
    """Pixels and targets after augmentations by name, as training/inputs.py moves them."""
    count = len(images)
    batch = {'index': jnp.arange(count), 'epoch': jnp.zeros(count, jnp.int32)}
    every, shape = [], images.shape[1:3]
    for name in names:
        images, matrices = getattr(augment, name)(images, batch, hyper)
        every.append(matrices())
        values = {n: KINDS[n].moved_batch(v, every[-1], shape) for n, v in values.items()}
    return images, values, jnp.stack(every, 1)


def hyper_of(names, seed):
    strengths = {k: v for name in names for k, v in STRENGTHS[name].items()}
    return {k: np.float32(v) for k, v in strengths.items()} | {'seed': np.uint32(seed)}


ORDERS = [('affine',), ('crop',), ('flip',), ('affine', 'crop', 'flip')]


@pytest.mark.parametrize('names', ORDERS, ids='+'.join)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_points_follow_the_pixels_of_a_batch(names, seed):
    shape, count = (32, 27), 16
    points = np.random.default_rng(seed).uniform(ROOM, (31 - ROOM, 26 - ROOM), (count, 2))
    points = points.astype(np.float32)
    images = np.float32([blob(shape, point) for point in points])[..., None]
    images, found, matrices = moved(images, {'points': points}, hyper_of(names, seed), names)
    checked = 0
    for row, point in enumerate(points):
        steps = np.asarray(matrices[row])
        on_the_way = [follow(KINDS['points'], point, steps[:n], shape) for n in range(len(steps))]
        # A spot that left the image in part has another centre.
        if all(inside(place, shape) for place in (*on_the_way, found['points'][row])):
            where = centroid(np.asarray(images)[row, ..., 0])
            np.testing.assert_allclose(where, found['points'][row], atol=0.1)
            checked += 1
    assert checked


@pytest.mark.parametrize('names', ORDERS, ids='+'.join)
def test_a_label_map_follows_the_pixels_of_a_batch(names):
    """Regions of one colour each: away from edges, pixels are the colour of the moved label."""
    shape, count = (32, 27), 24
    maps = np.random.default_rng(0).integers(1, 4, (count, 4, 3)).repeat(8, 1).repeat(9, 2)
    images = maps[..., None].astype(np.float32)
    images, found, _ = moved(images, {'map': maps.astype(np.uint8)}, hyper_of(names, 3), names)
    pixels, labels = np.asarray(images)[..., 0], np.asarray(found['map'])
    assert labels.dtype == np.uint8
    assert labels.shape == (count, *shape)
    colours = np.where(labels == 9, 0, labels)  # zeros come from outside
    np.testing.assert_array_less(np.abs(pixels - colours)[flat(labels)], 1e-4)
    assert flat(labels).mean() > 0.3
    if 'affine' not in names:  # whole pixels: equal everywhere
        np.testing.assert_array_equal(pixels, colours)


def flat(labels):
    """Which pixels have all eight neighbours of their own label; not those at the border."""
    same = np.zeros(labels.shape, bool)
    same[:, 1:-1, 1:-1] = True
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            same &= np.roll(labels, (y, x), (1, 2)) == labels
    return same


@pytest.mark.parametrize('names', ORDERS, ids='+'.join)
def test_the_host_moves_a_target_as_the_device_does(names):
    draw, shape, count = np.random.default_rng(1), (32, 27), 12
    ends = np.sort(draw.uniform(0, 27, (count, 5, 2, 2)), axis=2).astype(np.float32)
    values = {
        'points': draw.uniform(0, 26, (count, 7, 2)).astype(np.float32),
        'boxes': ends.reshape(count, 5, 4),
        'map': draw.integers(0, 5, (count, *shape)).astype(np.int32),
    }
    images = np.zeros((count, *shape, 1), np.float32)
    _, found, matrices = moved(images, values, hyper_of(names, 5), names)
    for row, name in itertools.product(range(count), KINDS):
        alone = follow(KINDS[name], values[name][row], np.asarray(matrices[row]), shape)
        assert alone.dtype == found[name].dtype
        if name == 'map':
            # A source on the border between two pixels may be rounded to either.
            assert (alone != found[name][row]).mean() < 0.01
        else:
            np.testing.assert_allclose(alone, found[name][row], atol=1e-3)


def test_a_label_stays():
    label = targets.Label()
    assert not label.moves
    assert label.moved(3, geometry.mirror(4), (4, 4)) == 3
    labels = np.arange(2)
    assert label.moved_batch(labels, None, (4, 4)) is labels


# --- on the host ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    height=st.integers(48, 90),
    width=st.integers(48, 90),
    size=SIDES,
    flip=st.booleans(),
)
def test_points_follow_a_crop_and_a_flip(seed, height, width, size, flip):
    """Far larger than a pixel, so that the resizing does not move the spot's middle."""
    draw = np.random.default_rng(seed)
    point = draw.uniform(8, (height - 9, width - 9))
    picture = np.rint(200 * blob((height, width), point)[..., None].repeat(3, -1)).astype(np.uint8)
    encoded = encode(picture, 'PNG')
    frame = decoding.read_frame(encoded)
    sides = height, width, size
    box = cropping.crop_box(Draws(seed, 'crop', 0, 0), *sides, (0.3, 1.0), (0.75, 4 / 3))
    image = cropping.decode_crop(encoded, frame, box, size)
    matrix = cropping.crop_matrix(box, size)
    image, flipped = host_augment.flip(image, Draws(seed, 'augment', 0, 0), float(flip))
    assert len(flipped) == flip
    found = follow(targets.Points(), point, (matrix, *flipped), (size, size))
    assume(inside(found, (size, size), 7))
    np.testing.assert_allclose(centroid(image[..., 0].astype(float)), found, atol=0.2)


def test_points_follow_the_centre_crop():
    point = np.array([40.0, 61.0])
    picture = np.rint(200 * blob((90, 120), point)[..., None].repeat(3, -1)).astype(np.uint8)
    image = cropping.centre(encode(picture, 'PNG'), 60, 70)
    found = targets.Points().moved(point, cropping.centre_matrix(90, 120, 60, 70), (60, 60))
    np.testing.assert_allclose(centroid(image[..., 0].astype(float)), found, atol=0.1)


def test_a_label_map_follows_a_crop_and_a_flip():
    """A crop that is not scaled has the picture's own pixels, and the map's own labels."""
    labels = np.random.default_rng(0).integers(0, 200, (50, 40)).astype(np.uint8)
    picture = np.ascontiguousarray(labels[..., None].repeat(3, -1))
    box = decoding.Box(7, 3, 24, 24)
    image = cropping.resize(picture, (24, 24), (box.left, box.top, box.width, box.height))
    image, flipped = host_augment.flip(image, Draws(0, 'augment', 0, 0), 1.0)
    matrices = (cropping.crop_matrix(box, 24), *flipped)
    found = follow(label_maps.LabelMap(), labels, matrices, (24, 24))
    np.testing.assert_array_equal(found, image[..., 0])
    # Of half the size: each label is one of the four pixels that become one.
    half = label_maps.LabelMap().moved(labels, cropping.crop_matrix(box, 12), (12, 12))
    blocks = labels[7:31, 3:27].reshape(12, 2, 12, 2).transpose(0, 2, 1, 3).reshape(12, 12, 4)
    assert (blocks == half[..., None]).any(-1).all()


VALUES = {'rotate': 33, 'shear_x': 0.3, 'shear_y': -0.3, 'translate_x': -5, 'translate_y': 4,
          'translate_x_share': 0.2, 'translate_y_share': -0.15, 'flip': 0}  # fmt: skip


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('name', VALUES)
def test_points_follow_each_operation_of_the_policies(name, sign):
    assert host_ops.MATRICES.keys() == VALUES.keys()
    shape, value = (36, 31), sign * VALUES[name]
    for seed in range(20):
        point = np.random.default_rng(seed).uniform(8, (27, 22))
        image = np.rint(200 * blob(shape, point)[..., None].repeat(3, -1)).astype(np.uint8)
        changed = getattr(host_ops, name)(image, value, (0, 0, 0))
        found = targets.Points().moved(point, host_ops.MATRICES[name](value, shape), shape)
        if inside(found, shape):
            np.testing.assert_allclose(centroid(changed[..., 0].astype(float)), found, atol=0.1)


@pytest.mark.parametrize('policy', ['randaugment', 'trivialaugment'])
def test_a_pipeline_says_by_what_matrices_pixels_moved(policy):
    config = base.get_config()
    config.augment.update({'policy': policy, 'flip': 0.5, 'magnitude': 6.0})
    pipeline = augmentations.on_host(config)
    shape, point, checked = (64, 60), np.array([30.0, 34.0]), 0
    image = np.rint(200 * blob(shape, point)[..., None].repeat(3, -1)).astype(np.uint8)
    for number in range(60):
        changed, matrices = pipeline.with_matrices(image, Draws(0, 'augment', 0, number))
        np.testing.assert_array_equal(changed, pipeline(image, Draws(0, 'augment', 0, number)))
        if not matrices:
            continue
        found = follow(targets.Points(), point, matrices, shape)
        y, x = np.rint(found).astype(int)
        # Colours change, too; what is far from the spot is of one colour, or uncovered.
        if inside(found, shape, 12):
            assert np.ptp(changed[y - 2 : y + 3, x - 2 : x + 3]) > 0 or changed.std() < 1
            checked += 1
    assert checked > 15


# --- by hand ----------------------------------------------------------------------------------


def test_boxes_by_hand():
    boxes = np.array([[0, 0, 10, 20], [2, 3, 5, 9], [0, 0, 0, 0]], np.float32)
    mirrored = geometry.moved_boxes(boxes, geometry.mirror(20), (10, 20))
    assert mirrored.tolist() == [[0, 0, 10, 20], [2, 11, 5, 17], [0, 20, 0, 20]]
    # Pixel (0, 0) was at (4, 6): up and to the left, and what lies outside is cut off.
    cropped = geometry.moved_boxes(boxes, geometry.translation(4, 6), (10, 20))
    assert cropped.tolist() == [[0, 0, 6, 14], [0, 0, 1, 3], [0, 0, 0, 0]]
    halved = geometry.moved_boxes(boxes, geometry.resized(0, 0, 10, 20, (5, 10)), (5, 10))
    np.testing.assert_allclose(halved[1], [1, 1.5, 2.5, 4.5])
    turned = geometry.moved_boxes(boxes[1:2], geometry.rotation(np.pi / 2, (20, 20)), (20, 20))
    np.testing.assert_allclose(turned, [[11, 2, 17, 5]], atol=1e-5)


def test_a_map_may_have_further_axes_and_is_filled_outside():
    labels = np.arange(24).reshape(3, 4, 2).astype(np.int16)
    found = geometry.moved_map(labels, geometry.translation(-1, 2), (3, 4), -1)
    assert found.dtype == np.int16
    assert (found[0] == -1).all()
    assert (found[:, 2:] == -1).all()
    np.testing.assert_array_equal(found[1:, :2], labels[:2, 2:])
