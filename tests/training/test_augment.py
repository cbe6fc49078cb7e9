"""Augmentation against a slow, obvious warp, and what its draws depend on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from tests.training import probe
from training import augment, rng, step

affine = jax.jit(augment.affine)


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
    moved = jax.vmap(augment._sample)(image, zero, zero + 1, move)
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
    spec = probe.spec(4, augment=True)
    first = probe.start(shape[1:])
    _, metrics = jax.jit(lambda *a: step.train_step(spec, *a))(first, hyper, batch, data)
    plain = data['image'].astype(np.float32) / 255
    expected = affine(plain, example, epoch, np.uint32(9), *np.float32([2, 20, 0.1]))
    np.testing.assert_allclose(metrics['seen'], expected.reshape(4, -1), atol=1e-6)
    assert np.abs(metrics['seen'] - plain.reshape(4, -1)).max() > 0.1

    sums = step.eval_step(spec, first.variables(), batch, data)
    np.testing.assert_array_equal(sums['seen'], plain.reshape(4, -1))

    off = dataclasses.replace(spec, augment=False)
    _, metrics = step.train_step(off, first, probe.hyper(9), batch, data)
    np.testing.assert_array_equal(metrics['seen'], plain.reshape(4, -1))
