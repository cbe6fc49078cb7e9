"""Augmentation against slow, obvious versions, its draws, and what those depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.stats import chisquare, kstest, uniform

import rng
from augmentation import augment, mixing
from data_sources.targets import Label
from tests.support import QUICKLY
from tests.training import probe
from training import step

LABELS = {'label': Label()}
quickly = functools.partial(jax.jit, compiler_options=QUICKLY)
erased_box = quickly(augment.erased_box)
mixed = quickly(lambda images, batch, hyper: mixing.mixed(images, batch, hyper, LABELS))


@jax.jit
def affine(images, example, epoch, seed, shift, rotate, scale):
    scalars = {'shift': shift, 'rotate': rotate, 'scale': scale}
    return augment.affine(images, *who(example, epoch, seed, **scalars))[0]


@quickly
def crop(images, example, epoch, seed, padding):
    return augment.crop(images, *who(example, epoch, seed, crop=padding))[0]


@quickly
def flip(images, example, epoch, seed, probability):
    return augment.flip(images, *who(example, epoch, seed, flip=probability))[0]


@functools.partial(quickly, static_argnames='noise')
def erase(images, example, epoch, seed, probability, noise):
    mode = 'noise' if noise else 'zero'
    return augment.erase(images, *who(example, epoch, seed, erase=probability), mode)


def who(example, epoch, seed, **scalars):
    """The entries of the batch and the scalars that an augmentation asks for."""
    return {'index': example, 'epoch': epoch}, {'seed': seed, **scalars}


def pixels(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def plan(count, first=0, epoch=0):
    return np.arange(first, first + count, dtype=np.int32), np.full(count, epoch, np.int32)


def draws(example, epoch, seed):
    """The four numbers in [-1, 1) of each example, from the documented keys."""
    result = []
    for e, i in zip(epoch, example, strict=True):
        key = jax.random.fold_in(jax.random.fold_in(rng.stream(seed, 'augment'), e), i)
        result.append(np.asarray(jax.random.uniform(key, (4,), minval=-1.0), np.float64))
    return np.array(result)


@pytest.mark.parametrize('shape', [(6, 28, 28, 1), (4, 9, 14, 3)])
@pytest.mark.parametrize('strength', [(3.0, 0.0, 0.0), (0.0, 45.0, 0.0), (0.0, 0.0, 0.3),
                                      (2.5, 180.0, 0.5)])  # fmt: skip
def test_equals_scipy(shape, strength):
    """Target pixel (y, x) shows the source at zoom x rotation of (y, x) - centre - shift."""
    images, seed = pixels(shape), np.uint32(11)
    example, epoch = plan(len(images), first=40, epoch=3)
    found = affine(images, example, epoch, seed, *np.float32(strength))
    shift, rotate, scale = strength
    centre = (np.array(shape[1:3]) - 1) / 2
    for image, result, draw in zip(images, found, draws(example, epoch, seed), strict=True):
        angle, zoom = draw[0] * np.deg2rad(rotate), (1 + scale) ** -draw[1]
        matrix = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        # SciPy has its own rule at the border, so there is none: 20 pixels of zeros all round.
        wide = np.pad(image.astype(np.float64), ((20, 20), (20, 20), (0, 0)))
        offset = (centre + 20) - matrix @ (centre + 20 + draw[2:] * shift)
        expected = [
            affine_transform(wide[..., c], matrix, offset, order=1) for c in range(shape[-1])
        ]
        np.testing.assert_allclose(result, np.stack(expected, -1)[20:-20, 20:-20], atol=1e-4)


def test_whole_shifts_move_pixels():
    image = np.zeros((1, 7, 7, 1), np.float32)
    image[0, 3, 3] = 1
    move = np.array([[2.0, -1.0]], np.float32)
    zero = np.zeros(1, np.float32)
    moved = jax.vmap(augment.sampled)(image, zero, zero + 1, move)
    assert np.argwhere(np.asarray(moved)[0, ..., 0] == 1).tolist() == [[5, 2]]
    assert np.asarray(moved).sum() == 1


def test_no_strength_changes_nothing():
    images = pixels((5, 28, 28, 1))
    found = affine(images, *plan(5), np.uint32(0), *np.float32([0, 0, 0]))
    np.testing.assert_array_equal(found, images)


def test_an_image_depends_on_seed_epoch_and_example_alone():
    images, strength = pixels((8, 12, 12, 1)), np.float32([2, 20, 0.2])
    example, epoch = plan(8)
    whole = np.asarray(affine(images, example, epoch, np.uint32(1), *strength))
    order = np.array([5, 0, 7])
    some = affine(images[order], example[order], epoch[order], np.uint32(1), *strength)
    np.testing.assert_allclose(some, whole[order], atol=1e-6)
    others = {
        'epoch': affine(images, example, epoch + 1, np.uint32(1), *strength),
        'seed': affine(images, example, epoch, np.uint32(2), *strength),
        'example': affine(images, example + 8, epoch, np.uint32(1), *strength),
    }
    for name, other in others.items():
        difference = np.abs(np.asarray(other) - whole).max((1, 2, 3))
        assert (difference > 0.01).all(), name


def test_the_draws_are_uniform():
    """Read off the moments of a blob: where it went, how far it turned and grew."""
    count, shift, rotate, scale = 1500, 3.0, 40.0, 0.25
    size = 33
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    blob = np.exp(-(y**2 / 6 + x**2 / 18)).astype(np.float32)
    images = jnp.broadcast_to(blob[None, :, :, None], (count, size, size, 1))
    strength = np.float32([shift, rotate, scale])
    found = np.asarray(affine(images, *plan(count), np.uint32(4), *strength))[..., 0]
    mass = found.sum((1, 2))
    centre = [(found * axis).sum((1, 2)) / mass for axis in (y, x)]
    dy, dx = (axis - c[:, None, None] for axis, c in zip((y, x), centre, strict=True))
    yy, xx, yx = ((found * p).sum((1, 2)) / mass for p in (dy * dy, dx * dx, dy * dx))
    angle = 0.5 * np.arctan2(2 * yx, xx - yy)
    grown = np.log(mass / blob.sum()) / 2 / np.log1p(scale)
    # The blob's own axis is along x; a right-handed turn in (y, x) is a left-handed one in (x, y).
    for draw in (centre[0] / shift, centre[1] / shift, np.rad2deg(angle) / rotate, grown):
        assert np.abs(draw).max() < 1.03
        inside = np.sort(np.clip(draw, -1, 1))
        uniform = np.linspace(-1, 1, count)
        # Kolmogorov-Smirnov at one in ten thousand, and a little for reading off a blob.
        assert np.abs(inside - uniform).max() / 2 < 2.2 / np.sqrt(count) + 0.015
    values = np.stack([centre[0], centre[1], angle, grown])
    assert np.abs(np.corrcoef(values) - np.eye(4)).max() < 0.12


def test_training_shows_augmented_images_and_evaluation_plain_ones():
    shape = (4, 10, 10, 1)
    data = {'image': (pixels(shape) * 255).astype(np.uint8), 'label': np.arange(4, dtype=np.int32)}
    example, epoch = plan(4, epoch=2)
    batch = {'index': example, 'epoch': epoch, 'mask': np.ones(4, np.float32)}
    hyper = probe.hyper(9, shift=2, rotate=20, scale=0.1)
    spec = probe.spec(4, augmentations=probe.applied('affine'))
    first = probe.start(shape[1:])
    _, metrics = jax.jit(lambda *a: step.train_step(spec, *a))(first, hyper, batch, data)
    plain = data['image'].astype(np.float32) / 255
    expected = affine(plain, example, epoch, np.uint32(9), *np.float32([2, 20, 0.1]))
    np.testing.assert_allclose(metrics['seen'], expected.reshape(4, -1), atol=1e-6)
    assert np.abs(metrics['seen'] - plain.reshape(4, -1)).max() > 0.1

    sums, _ = step.eval_step(spec, first.variables(), batch, data)
    np.testing.assert_array_equal(sums['seen'], plain.reshape(4, -1))

    off = dataclasses.replace(spec, augmentations=())
    _, metrics = step.train_step(off, first, probe.hyper(9), batch, data)
    np.testing.assert_array_equal(metrics['seen'], plain.reshape(4, -1))


@pytest.mark.parametrize('padding', [1, 4])
def test_crop_equals_padding_and_cutting(padding):
    images, seed = pixels((30, 9, 14, 3)), np.uint32(3)
    example, epoch = plan(30, first=7, epoch=2)
    found = crop(images, example, epoch, seed, np.float32(padding))
    for image, result, e, i in zip(images, found, epoch, example, strict=True):
        key = rng.stream(seed, 'crop', e, i)
        top, left = jax.random.randint(key, (2,), -padding, padding + 1) + padding
        wide = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        np.testing.assert_array_equal(result, wide[top : top + 9, left : left + 14])


def test_every_crop_is_equally_likely():
    count, padding = 4000, 2
    image = np.zeros((9, 9, 1), np.float32)
    image[4, 4] = 1
    images = np.broadcast_to(image, (count, 9, 9, 1))
    found = crop(images, *plan(count), np.uint32(0), np.float32(padding))
    places = np.asarray(found)[..., 0].sum(0)
    assert places.sum() == count
    inner = places[2:7, 2:7]
    assert inner.sum() == count
    assert chisquare(inner.ravel()).pvalue > 1e-3


def test_flip_mirrors_with_the_probability():
    count = 3000
    images = pixels((count, 2, 3, 2))
    found = np.asarray(flip(images, *plan(count), np.uint32(0), np.float32(0.3)))
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (found == images).all((1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.3) < 4 * np.sqrt(0.21 / count)
    for probability, expected in ((0, images), (1, images[:, :, ::-1])):
        found = flip(images, *plan(count), np.uint32(0), np.float32(probability))
        np.testing.assert_array_equal(found, expected)


def erased_slowly(image, key, probability, noise):
    """The box of one image by plain words; draws from the documented keys."""
    height, width, _ = image.shape
    key, noise_key = jax.random.split(key)
    draws = np.asarray(jax.random.uniform(key, (41,)), np.float64)
    filling = np.asarray(jax.random.normal(noise_key, image.shape)) if noise else np.zeros(())
    result = image.copy()
    for u, v, y, x in draws[1:].reshape(10, 4):
        area = (0.02 + (1 / 3 - 0.02) * u) * height * width
        ratio = np.exp(np.log(0.3) + (np.log(1 / 0.3) - np.log(0.3)) * v)
        tall, wide = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if tall <= height and wide <= width:
            top, left = int(y * (height - tall + 1)), int(x * (width - wide + 1))
            where = np.s_[top : top + tall, left : left + wide]
            if draws[0] < probability:
                result[where] = np.broadcast_to(filling, image.shape)[where]
            return result
    return result


@pytest.mark.parametrize('noise', [True, False])
@pytest.mark.parametrize('shape', [(12, 17, 3), (5, 40, 1)])
def test_erase_equals_the_slow_one(noise, shape):
    count, seed = 40, np.uint32(5)
    images = 10 + pixels((count, *shape))
    example, epoch = plan(count, first=3, epoch=1)
    found = erase(images, example, epoch, seed, np.float32(0.7), noise=noise)
    for image, result, e, i in zip(images, found, epoch, example, strict=True):
        expected = erased_slowly(image, rng.stream(seed, 'erase', e, i), 0.7, noise)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_boxes_have_the_area_ratio_and_place_that_is_said():
    count, size = 3000, 100
    images = np.ones((count, size, size, 1), np.float32)
    found = np.asarray(erase(images, *plan(count), np.uint32(2), np.float32(0.6), noise=False))
    gone = found[..., 0] == 0
    some = gone.any((1, 2))
    assert abs(some.mean() - 0.6) < 4 * np.sqrt(0.24 / count)
    gone = gone[some]
    tall, wide = gone.any(2).sum(1), gone.any(1).sum(1)
    np.testing.assert_array_equal(gone.sum((1, 2)), tall * wide)
    area, ratio = tall * wide / size**2, tall / wide
    # Whole pixels, and the few boxes too tall to fit, move both a little.
    assert 0.017 < area.min() < 0.03
    assert 0.32 < area.max() < 0.345
    assert kstest(area, uniform(0.02, 1 / 3 - 0.02).cdf).statistic < 0.05
    low = np.log(0.3)
    assert kstest(np.log(ratio), uniform(low, -2 * low).cdf).statistic < 0.05
    for starts, length in ((gone.any(2).argmax(1), tall), (gone.any(1).argmax(1), wide)):
        place = (starts + 0.5) / (size - length + 1)
        assert kstest(place, uniform(0, 1).cdf).pvalue > 1e-3


def test_noise_is_standard_normal_and_new_for_every_image():
    images = np.full((200, 20, 20, 3), 50, np.float32)
    found = np.asarray(erase(images, *plan(200), np.uint32(0), np.float32(1), noise=True))
    noise = found[found != 50]
    assert kstest(noise, 'norm').pvalue > 1e-3
    assert len(np.unique(noise)) > 0.99 * len(noise)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 1, exclude_max=True, width=32, allow_subnormal=False),
             min_size=40, max_size=40),
    st.integers(1, 4000), st.integers(1, 4000),
)  # fmt: skip
def test_an_erased_box_lies_in_the_image(draws, height, width):
    draws = np.array(draws, np.float32).reshape(10, 4)
    top, left, tall, wide = map(int, erased_box(draws, height, width))
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    room = (tall + wide + 1) / (height * width)
    assert tall * wide / (height * width) < 1 / 3 + room


@pytest.mark.parametrize('name', ['crop', 'flip', 'erase'])
def test_each_depends_on_seed_epoch_and_example_alone(name):
    images = pixels((64, 12, 12, 1))
    call = {'crop': crop, 'flip': flip, 'erase': functools.partial(erase, noise=True)}[name]
    strength = np.float32(3 if name == 'crop' else 0.5)
    example, epoch = plan(64)
    whole = np.asarray(call(images, example, epoch, np.uint32(1), strength))
    order = np.array([5, 0, 7])
    some = call(images[order], example[order], epoch[order], np.uint32(1), strength)
    np.testing.assert_allclose(some, whole[order], atol=1e-6)
    for other in (
        (example, epoch + 1, np.uint32(1)),
        (example, epoch, np.uint32(2)),
        (example + 64, epoch, np.uint32(1)),
    ):
        changed = np.abs(np.asarray(call(images, *other, strength)) - whole).max((1, 2, 3)) > 0
        assert changed.mean() > 0.3


def test_the_order_in_the_step():
    """Crop, flip, normalize, erase, mix: each from the result of the one before."""
    count, shape = 8, (10, 12, 1)
    data = {
        'image': np.random.default_rng(2).integers(0, 256, (count, *shape)).astype(np.uint8),
        'label': np.arange(count, dtype=np.int32),
    }
    example, epoch = plan(count, epoch=1)
    batch = {'index': example, 'epoch': epoch, 'mask': np.ones(count, np.float32)}
    hyper = probe.hyper(4, crop=2, flip=0.5, cutmix=1, mix_probability=1, erase=0.5)
    applied = probe.applied('crop', 'flip', 'erase', 'mixing', erase_mode='zero')
    spec = probe.spec(count, augmentations=applied)
    spec = dataclasses.replace(spec, mean=(0.4,), std=(0.2,))
    run = quickly(lambda *a: step.train_step(spec, *a))
    _, metrics = run(probe.start(shape), hyper, batch, data)
    own = example, epoch, np.uint32(4)
    images = crop(data['image'].astype(np.float32) / 255, *own, np.float32(2))
    images = (flip(images, *own, np.float32(0.5)) - 0.4) / 0.2
    labelled = batch | {'label': data['label']}
    images = erase(images, *own, np.float32(0.5), noise=False)
    images, _ = mixed(images, labelled, hyper)
    np.testing.assert_allclose(metrics['seen'], np.reshape(images, (count, -1)), atol=1e-5)
