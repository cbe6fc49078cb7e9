"""A map of labels moves as the image does: the image of these tests is its own map of labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from augmentation import augment
from configs import base
from data_sources import geometry
from data_sources.label_maps import InstanceMap, LabelMap
from errors import UserError
from tests.support import QUICKLY
from training import checks

SIDE, COUNT, CLASSES = 64, 6, 5
HYPER = {
    'seed': np.uint32(3), 'shift': 3.0, 'rotate': 40.0, 'scale': 0.3, 'crop': 4, 'flip': 0.5,
    'quarter_turns': 0.8, 'elastic': 2.0, 'brightness': 0.4, 'contrast': 0.4,
}  # fmt: skip
MOVES = {
    'affine': augment.affine,
    'crop': augment.crop,
    'flip': augment.flip,
    'quarter_turns': augment.quarter_turns,
    'elastic': functools.partial(augment.elastic, elastic_grid=16),
}
WHOLE_PIXELS = ('crop', 'flip', 'quarter_turns')  # these move no pixel by a fraction


@pytest.fixture(scope='module')
def labels():
    """Large patches of classes 1 to 5, uint8 [COUNT, SIDE, SIDE]."""
    coarse = np.random.default_rng(0).integers(1, 1 + CLASSES, (COUNT, 4, 4), np.uint8)
    return coarse.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)


BATCH = {'index': np.arange(COUNT, dtype=np.int32), 'epoch': np.full(COUNT, 2, np.int32)}


@functools.lru_cache
def moved(names):
    """Returns a jitted function of labels: (image, label map, instance map) after the moves."""

    def move(values):
        images = values[..., None].astype(jnp.float32)
        maps, instances = values, values.astype(jnp.int32) * 1000
        for name in names:
            images, changes = MOVES[name](images, BATCH, HYPER)
            maps = LabelMap().moved_batch(maps, changes(), (SIDE, SIDE))
            instances = InstanceMap().moved_batch(instances, changes(), (SIDE, SIDE))
        return images[..., 0], maps, instances

    return jax.jit(move, compiler_options=QUICKLY)


@pytest.mark.parametrize('names', [*((name,) for name in MOVES), tuple(MOVES)], ids='+'.join)
def test_labels_and_pixels_move_alike(names, labels):
    images, maps, instances = map(np.asarray, moved(names)(labels))
    assert (maps != labels).mean() > 0.05, 'something has to move'
    known = maps != 255
    assert set(np.unique(maps[known])) <= set(range(1, 1 + CLASSES))
    # Instances are whole numbers that were there before, unknown where labels are.
    np.testing.assert_array_equal(instances == InstanceMap.UNKNOWN, ~known)
    np.testing.assert_array_equal(instances[known], maps[known].astype(np.int32) * 1000)
    # Away from the borders of patches, an interpolated pixel has the value of its label.
    same = known.copy()
    reach = 0 if set(names) <= set(WHOLE_PIXELS) else 2 if names == ('affine',) else 3
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            same &= np.roll(maps, (down, right), (1, 2)) == maps
    assert same.mean() > (0.3 if len(names) == 1 else 0.1)
    np.testing.assert_allclose(images[same], maps[same], atol=1e-4)
    if reach == 0:
        assert (images[~known] == 0).all()


def test_elastic_is_a_bilinear_sample_at_its_places(labels):
    images = np.random.default_rng(1).random((COUNT, SIDE, SIDE, 1), np.float32)
    found, places = augment.elastic(images, BATCH, HYPER, elastic_grid=8)
    places = np.asarray(places())
    away = places - np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing='ij'), -1)
    assert 1.2 < away.std() < 2.8  # hyper['elastic'] is 2
    # Smooth: neighbours move by nearly the same.
    assert np.abs(np.diff(away, axis=1)).max() < 2.5
    for image, result, place in zip(images, found, places, strict=True):
        padded = np.pad(image[..., 0], 1)
        expected = map_coordinates(padded, np.moveaxis(place, -1, 0) + 1, order=1, cval=0.0)
        np.testing.assert_allclose(result[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize('name', [*MOVES, 'light'])
@pytest.mark.parametrize('side', [33, 96])  # at both, a product or a sum of all had other bits
def test_an_image_has_the_same_bits_in_any_batch(name, side):
    images = np.random.default_rng(1).random((COUNT, side, side, 3), np.float32)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def change(images, batch):
        if name == 'light':
            return augment.light(images, batch, HYPER)
        return MOVES[name](images, batch, HYPER)[0]

    whole = change(images, BATCH)
    for rows in (slice(5, 6), slice(1, 5)):
        part = change(images[rows], {key: value[rows] for key, value in BATCH.items()})
        np.testing.assert_array_equal(part, whole[rows])


def test_quarter_turns_are_all_drawn_and_never_without_probability():
    image = np.random.default_rng(2).random((1, SIDE, SIDE, 1), np.float32).repeat(200, 0)
    batch = {'index': np.arange(200, dtype=np.int32), 'epoch': np.zeros(200, np.int32)}
    hyper = {**HYPER, 'quarter_turns': 1.0}
    turned = np.asarray(augment.quarter_turns(image, batch, hyper)[0])
    counts = [
        sum(np.array_equal(one, np.rot90(image[0], turns)) for one in turned) for turns in range(4)
    ]
    assert sum(counts) == 200
    assert min(counts) > 25
    still = augment.quarter_turns(image, batch, {**HYPER, 'quarter_turns': 0.0})[0]
    np.testing.assert_array_equal(still, image)


def test_quarter_turns_need_squares():
    with pytest.raises(UserError, match='needs square images'):
        augment.quarter_turns(np.zeros((1, 4, 6, 1), np.float32), BATCH, HYPER)


@pytest.mark.parametrize('side', [1, 2, 7])
def test_matrices_of_quarter_turns_are_those_of_rotations(side):
    for turns, matrix in enumerate(geometry.quarter_turns(side)):
        expected = geometry.rotation(turns * np.pi / 2, (side, side))
        np.testing.assert_allclose(matrix, expected, atol=1e-12)
        labels = np.arange(side * side).reshape(side, side)
        moved_ = geometry.moved_map(labels, matrix, (side, side), -1)
        np.testing.assert_array_equal(moved_, np.rot90(labels, turns))


def test_light_keeps_the_range_and_changes_both():
    images = np.random.default_rng(3).random((COUNT, SIDE, SIDE, 1), np.float32)
    found = np.asarray(augment.light(images, BATCH, HYPER))
    assert found.min() >= 0
    assert found.max() <= 1
    off = augment.light(images, BATCH, {**HYPER, 'brightness': 0.0, 'contrast': 0.0})
    np.testing.assert_allclose(off, images, atol=1e-6)
    # A picture without contrast changes by one factor.
    flat = np.full_like(images, 0.5)
    factor = np.asarray(augment.light(flat, BATCH, HYPER))[:, 0, 0, 0] / 0.5
    assert np.abs(factor - 1).max() <= 0.4
    assert factor.std() > 0.05


def test_targets_that_cannot_bend_are_refused(own_are_forgotten):
    from data_sources.targets import Points
    from tasks import registry
    from tasks.segmentation import Segmentation

    @registry.register
    class WithPoints(Segmentation):
        name = 'points'
        targets = {'points': Points()}  # noqa: RUF012

    config = base.get_config()
    config.task = 'points'
    config.augment.elastic = 1.0
    with pytest.raises(UserError, match=r'config.augment.elastic bends images, and points of'):
        checks.check(config)
