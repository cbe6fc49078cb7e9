"""Every operation against Pillow, whose pixels it promises, and against a slow, obvious version."""

import colorsys
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageEnhance, ImageOps

from data_sources import host_ops
from tests.support_pictures import imagenet_files

FILL = (124, 116, 104)
BILINEAR, AFFINE = Image.Resampling.BILINEAR, Image.Transform.AFFINE


def noise(height=37, width=23, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photographs():
    return [np.array(Image.open(file).convert('RGB')) for file in imagenet_files()[:4]]


def enhance(name):
    return lambda picture, change: getattr(ImageEnhance, name)(picture).enhance(1 + change)


def affine(matrix):
    return lambda picture, value: picture.transform(
        picture.size, AFFINE, matrix(value), BILINEAR, fillcolor=FILL
    )


def add_to_dark(picture, amount):
    return picture.point([min(255, v + amount) if v < 128 else v for v in range(256)] * 3)


def turn_hue(picture, turns):
    h, s, v = picture.convert('HSV').split()
    # As torchvision's adjust_hue: 255 steps to a turn, towards zero, and around.
    h = h.point([(value + int(turns * 255)) % 256 for value in range(256)])
    return Image.merge('HSV', (h, s, v)).convert('RGB')


CHANGES = (-1.0, -0.9, -0.37, 0.0, 0.41, 0.99)
# name -> (Pillow's, values)
PILLOW = {
    'flip': (lambda p, _: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (0,)),
    'invert': (lambda p, _: ImageOps.invert(p), (0,)),
    'auto_contrast': (lambda p, _: ImageOps.autocontrast(p), (0,)),
    'equalize': (lambda p, _: ImageOps.equalize(p), (0,)),
    'posterize': (ImageOps.posterize, range(1, 9)),
    'solarize': (ImageOps.solarize, (0, 1, 76.5, 128, 255, 256)),
    'solarize_add': (add_to_dark, (0, 1, 77, 110, 128)),
    'brightness': (enhance('Brightness'), CHANGES),
    'contrast': (enhance('Contrast'), CHANGES),
    'color': (enhance('Color'), CHANGES),
    'sharpness': (enhance('Sharpness'), CHANGES),
    'hue': (turn_hue, (-0.5, -0.13, 0.0, 0.1, 0.3, 0.5)),
    'rotate': (lambda p, v: p.rotate(v, BILINEAR, fillcolor=FILL), (-135, -30, 0, 7.3, 90, 135)),
    'shear_x': (affine(lambda v: (1, v, 0, 0, 1, 0)), (-0.99, -0.1, 0, 0.3)),
    'shear_y': (affine(lambda v: (1, 0, 0, v, 1, 0)), (-0.99, -0.1, 0, 0.3)),
    'translate_x': (affine(lambda v: (1, 0, -int(v), 0, 1, 0)), (-32, -1.9, 0, 5, 5000)),
    'translate_y': (affine(lambda v: (1, 0, 0, 0, 1, -int(v))), (-32, -1.9, 0, 5, 5000)),
}


@pytest.mark.parametrize('name', PILLOW)
@pytest.mark.parametrize('kind', ['noise', 'photographs'])
def test_equals_pillow(name, kind):
    images = photographs() if kind == 'photographs' else [noise(), noise(1, 1), noise(2, 50)]
    definition, values = PILLOW[name]
    for image, value in itertools.product(images, values):
        expected = np.asarray(definition(Image.fromarray(image), value))
        found = getattr(host_ops, name)(image, value, FILL)
        np.testing.assert_array_equal(found, expected, f'{name}({value}) of {image.shape}')


# --- slow, obvious versions, within the one level by which Pillow rounds down -------------------


def blend(ground, image, change):
    return np.clip(ground + (1 + change) * (image.astype(float) - ground), 0, 255)


def grey(image):
    """ITU-R 601 luma, with Pillow's weights: 0.299, 0.587, 0.114 in 16 bits."""
    return (image @ np.array([19595, 38470, 7471]) + 2**15) >> 16


def smoothed(image):
    result = image.astype(float)
    for y, x in itertools.product(range(1, image.shape[0] - 1), range(1, image.shape[1] - 1)):
        around = image[y - 1 : y + 2, x - 1 : x + 2].astype(int)
        result[y, x] = np.rint((around.sum((0, 1)) + 4 * around[1, 1]) / 13)
    return result


def sampled(image, source):
    """Bilinear, with pixel centres at halves; what lies outside the image is FILL."""
    height, width, _ = image.shape
    result = np.empty(image.shape)
    for y, x in itertools.product(range(height), range(width)):
        from_x, from_y = source(x + 0.5, y + 0.5)
        if not (0 <= from_x < width and 0 <= from_y < height):
            result[y, x] = FILL
            continue
        left, top = math.floor(from_x - 0.5), math.floor(from_y - 0.5)
        right, down = from_x - 0.5 - left, from_y - 0.5 - top
        result[y, x] = 0
        for dy, dx in itertools.product((0, 1), (0, 1)):
            share = (down if dy else 1 - down) * (right if dx else 1 - right)
            inside = image[np.clip(top + dy, 0, height - 1), np.clip(left + dx, 0, width - 1)]
            result[y, x] += share * inside
    return result


def turned(image, degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    height, width, _ = image.shape
    cx, cy = width / 2, height / 2
    # The picture turns counter-clockwise where y points down, so the source turns clockwise.
    return sampled(
        image,
        lambda x, y: (cos * (x - cx) - sin * (y - cy) + cx, sin * (x - cx) + cos * (y - cy) + cy),
    )


def moved(image, right, down):
    result = np.empty(image.shape)
    for y, x in itertools.product(range(image.shape[0]), range(image.shape[1])):
        there = 0 <= y - down < image.shape[0] and 0 <= x - right < image.shape[1]
        result[y, x] = image[y - down, x - right] if there else FILL
    return result


def stretched(image):
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    return (image - low) * 255 / (high - low)


def equalized(image):
    result = np.empty(image.shape)
    for c in range(3):
        values = image[..., c].ravel()
        step = (values < values.max()).sum() // 255
        for y, x in itertools.product(range(image.shape[0]), range(image.shape[1])):
            result[y, x, c] = min(255, ((values < image[y, x, c]).sum() + step // 2) // step)
    return result


SLOW = {
    'identity': (lambda i, _: i, 0),
    'flip': (lambda i, _: i[:, ::-1], 0),
    'invert': (lambda i, _: 255 - i.astype(int), 0),
    'posterize': (lambda i, bits: i // 2 ** (8 - bits) * 2 ** (8 - bits), 3),
    'solarize': (lambda i, t: np.where(i < t, i, 255 - i.astype(int)), 76.5),
    'solarize_add': (lambda i, a: np.where(i < 128, np.minimum(i.astype(int) + a, 255), i), 77),
    'brightness': (lambda i, v: blend(0, i, v), 0.63),
    'contrast': (lambda i, v: blend(np.rint(grey(i).mean()), i, v), 0.63),
    'color': (lambda i, v: blend(grey(i)[..., None], i, v), 0.63),
    'sharpness': (lambda i, v: blend(smoothed(i), i, v), 0.63),
    'auto_contrast': (lambda i, _: stretched(i), 0),
    'equalize': (lambda i, _: equalized(i), 0),
    'rotate': (turned, 21.0),
    'shear_x': (lambda i, v: sampled(i, lambda x, y: (x + v * y, y)), 0.27),
    'shear_y': (lambda i, v: sampled(i, lambda x, y: (x, y + v * x)), -0.27),
    'translate_x': (lambda i, v: moved(i, int(v), 0), -7.9),
    'translate_y': (lambda i, v: moved(i, 0, int(v)), 7.9),
    'translate_x_share': (lambda i, v: moved(i, round(v * i.shape[1]), 0), 0.31),
    'translate_y_share': (lambda i, v: moved(i, 0, round(v * i.shape[0])), -0.31),
}


@pytest.mark.parametrize('name', SLOW)
def test_equals_slow_version(name):
    slow, value = SLOW[name]
    image = noise(41, 30) // 2 + 20
    found = getattr(host_ops, name)(image, value, FILL).astype(float)
    error = np.abs(found - slow(image, value))
    # At a border within 1e-6 of a pixel a bilinear sample may count as in or out.
    assert (error > 1.01).mean() < 1e-3
    assert error.mean() < 0.6


@pytest.mark.parametrize('turns', [-0.5, -0.13, 0.0, 0.25, 0.5])
def test_hue_turns_the_hue(turns):
    """Against exact HSV: Pillow's 256 hues to a turn cost a few levels."""
    image = noise(16, 16)
    found = host_ops.hue(image, turns)
    for pixel, result in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + turns) % 1, s, v))
        assert np.abs(result - expected).max() < 16
        assert result.max() == pixel.max()


ALL = [*SLOW, 'hue']
VALUES = {'posterize': 2, 'solarize': 90, 'solarize_add': 60, 'rotate': 33, 'hue': 0.2}


@settings(deadline=None, max_examples=60)
@given(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40), st.integers(0, 9))
@example((1, 1), 0)
@example((4000, 30), 0)
@example((30, 4000), 0)
@example((1, 4000), 0)
@example((4000, 1), 0)
def test_any_size_and_the_input_stays(size, seed):
    image = noise(*size, seed)
    before = image.copy()
    image.flags.writeable = False
    for name in ALL:
        found = getattr(host_ops, name)(image, VALUES.get(name, -0.4), FILL)
        assert found.dtype == np.uint8, name
        assert found.shape == image.shape, name
        assert found.flags.c_contiguous, name
    np.testing.assert_array_equal(image, before)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(
    lambda s: (*s, 3)), elements=st.integers(0, 255)))  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_tables_equal_pillow_on_odd_images(image):
    """Few values, one value: where means round and histograms are thin."""
    picture = Image.fromarray(image)
    for name in ('brightness', 'contrast', 'sharpness', 'auto_contrast', 'equalize'):
        for value in PILLOW[name][1]:
            expected = np.asarray(PILLOW[name][0](picture, value))
            np.testing.assert_array_equal(getattr(host_ops, name)(image, value), expected, name)
