"""Where crops lie and what they hold, against Pillow and the steps of torchvision's transforms."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from data_sources import cropping, decoding
from data_sources.draws import Draws
from tests.data_sources.test_decoding import encode, photograph
from tests.support_pictures import imagenet_files

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def crop_box(seed, height, width, size=224, scale=SCALE, ratio=RATIO):
    return cropping.crop_box(Draws(seed, 'crop', 0, 0), height, width, size, scale, ratio)


def pillow_crop(picture, box, size):
    """The crop as torchvision's resized_crop of a Pillow image makes it."""
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    return np.asarray(picture.crop(corners).resize((size, size), Image.Resampling.BILINEAR))


def torchvision_centre(picture, size, shorter):
    """Resize(shorter) and CenterCrop(size), step by step as torchvision's documentation says."""
    width, height = picture.size
    if width <= height:
        scaled = (shorter, int(shorter * height / width))
    else:
        scaled = (int(shorter * width / height), shorter)
    picture = picture.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2.0) for side in scaled)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


@settings(max_examples=400, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    size=st.integers(1, 300),
)
def test_any_box_lies_in_its_picture(seed, height, width, size):
    box = crop_box(seed, height, width, size)
    assert box.top >= 0
    assert box.left >= 0
    assert box.height >= 1
    assert box.width >= 1
    assert box.top + box.height <= height
    assert box.left + box.width <= width


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(100, 400), width=st.integers(100, 400))
def test_the_box_has_the_area_and_shape_that_were_asked_for(seed, height, width):
    box = crop_box(seed, height, width, scale=(0.2, 0.5))
    # Sides are rounded to pixels; the last resort, after ten boxes that do not fit, has its ratio.
    assert box.height * box.width <= 0.52 * height * width or box.height == height
    assert 0.7 <= box.width / box.height <= 1.4


@pytest.mark.parametrize('shape', [(1, 1), (30, 4000), (4000, 30), (1, 500), (2, 3)])
def test_extreme_pictures(shape):
    encoded = encode(photograph(*shape))
    frame = decoding.read_frame(encoded)
    for seed in range(5):
        box = crop_box(seed, *shape, size=32)
        assert cropping.decode_crop(encoded, frame, box, 32).shape == (32, 32, 3)
    assert cropping.centre(encoded, 32, 36).shape == (32, 32, 3)


def test_boxes_are_spread_as_the_paper_says():
    """Area share and log ratio uniform, in a picture that every box fits."""
    boxes = [crop_box(seed, 10_000, 10_000, scale=(0.08, 0.5)) for seed in range(2000)]
    area = [box.height * box.width / 1e8 for box in boxes]
    ratio = [np.log(box.width / box.height) for box in boxes]
    low = np.log(3 / 4)
    assert stats.kstest(area, 'uniform', (0.08, 0.42)).pvalue > 0.01
    assert stats.kstest(ratio, 'uniform', (low, -2 * low)).pvalue > 0.01
    room = [box.top / (10_000 - box.height) for box in boxes]
    assert stats.kstest(room, 'uniform').pvalue > 0.01


def test_a_picture_that_no_box_fits_gives_its_centre():
    assert crop_box(0, 30, 4000, size=8) == cropping.Box(0, 1980, 30, 40)
    assert crop_box(0, 4000, 30, size=8) == cropping.Box(1980, 0, 40, 30)


def test_crops_of_real_pictures_are_pillows_nearly():
    """At most 1 of 255 away in the mean, the goal; 0.2 is reached."""
    differences = []
    for number, path in enumerate(imagenet_files()[::4]):
        encoded = path.read_bytes()
        frame = decoding.read_frame(encoded)
        box = crop_box(number, frame.height, frame.width)
        ours = cropping.decode_crop(encoded, frame, box, 224)
        theirs = pillow_crop(Image.open(io.BytesIO(encoded)).convert('RGB'), box, 224)
        differences.append(np.abs(ours.astype(int) - theirs).mean())
    assert np.mean(differences) < 0.5
    assert max(differences) < 4


def test_the_evaluation_of_real_pictures_is_torchvisions():
    """Resize(256) and CenterCrop(224): every value within 2 of 255."""
    for path in imagenet_files()[::4]:
        encoded = path.read_bytes()
        theirs = torchvision_centre(Image.open(io.BytesIO(encoded)).convert('RGB'), 224, 256)
        ours = cropping.centre(encoded, 224, 256)
        assert np.abs(ours.astype(int) - theirs).max() <= 2, path.name


def test_the_evaluation_is_torchvisions_own():
    torch = pytest.importorskip('torch')
    library = torch.library.Library('torchvision', 'DEF')  # a CPU build lacks these two
    for signature in (
        'nms(Tensor a, Tensor b, float c) -> Tensor',
        'qnms(Tensor a, Tensor b, float c) -> Tensor',
    ):
        library.define(signature)
    transforms = pytest.importorskip('torchvision.transforms')
    for path in imagenet_files()[::9]:
        for size, shorter in ((224, 256), (224, 236), (160, 183)):
            both = transforms.Compose([transforms.Resize(shorter), transforms.CenterCrop(size)])
            theirs = np.asarray(both(Image.open(path).convert('RGB')))
            ours = cropping.centre(path.read_bytes(), size, shorter)
            assert np.abs(ours.astype(int) - theirs).max() <= 2, (path.name, size)


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 60))
def test_the_evaluation_of_any_picture_is_the_slow_way_round(height, width, size):
    pixels = photograph(height, width)
    shorter = size + size // 7
    theirs = torchvision_centre(Image.fromarray(pixels), size, shorter)
    ours = cropping.centre(encode(pixels, 'PNG'), size, shorter)
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_a_large_crop_is_decoded_at_a_fraction():
    """Four times the size and more: close to the exact one, from a sixteenth of the pixels."""
    encoded = encode(photograph(900, 1200), quality=95)
    frame = decoding.read_frame(encoded)
    box = crop_box(1, 900, 1200, size=64, scale=(0.9, 1.0))
    assert not any(side % 8 for side in box)
    ours = cropping.decode_crop(encoded, frame, box, 64)
    theirs = pillow_crop(Image.open(io.BytesIO(encoded)), box, 64)
    assert np.abs(ours.astype(int) - theirs).mean() < 3
