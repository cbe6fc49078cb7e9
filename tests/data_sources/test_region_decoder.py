"""Decoding with and without libjpeg-turbo 3 gives the same pixels, so that it may come and go."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_sources import cropping, decoding, region_decoder
from data_sources.draws import Draws
from tests.data_sources.test_decoding import BROKEN, FORMATS, by_pillow, encode, photograph
from tests.support_pictures import imagenet_files

needs_library = pytest.mark.skipif(
    region_decoder._library() is None, reason='no libjpeg-turbo 3 (pip install turbojpeg)'
)


@pytest.fixture
def without(monkeypatch):
    """Runs the test as where there is no such library."""
    monkeypatch.setattr(region_decoder, '_library', lambda: None)


@needs_library
@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    form=st.sampled_from(['4:4:4', '4:2:2', '4:2:0', '4:1:1']),
    progressive=st.booleans(),
    grey=st.booleans(),
    data=st.data(),
)
def test_any_part_of_any_jpeg(height, width, form, progressive, grey, data):
    encoded = encode(
        photograph(height, width),
        mode='L' if grey else 'RGB',
        quality=95,
        subsampling=form,
        progressive=progressive,
    )
    top, left = (data.draw(st.integers(0, side - 1)) for side in (height, width))
    tall, wide = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    found, warned = region_decoder.decode(encoded, top, left, tall, wide)
    assert not warned
    expected = by_pillow(encoded)[top : top + tall, left : left + wide]
    np.testing.assert_array_equal(found, expected)


def crops():
    for number, path in enumerate(imagenet_files()[::3]):
        encoded = path.read_bytes()
        frame = decoding.read_frame(encoded)
        for visit in range(3):
            draws = Draws(0, 'crop', visit, number)
            scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
            box = cropping.crop_box(draws, frame.height, frame.width, 224, scale, ratio)
            yield cropping.decode_crop(encoded, frame, box, 224)


@needs_library
def test_crops_of_real_pictures_do_not_depend_on_it(monkeypatch):
    with_it = list(crops())
    monkeypatch.setattr(region_decoder, '_library', lambda: None)
    for ours, theirs in zip(with_it, crops(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_without_it(without, name):
    encoded = encode(photograph(), **FORMATS[name])
    box = decoding.Box(10, 20, 30, 50)
    found = decoding.decode_box(encoded, decoding.read_frame(encoded), box)
    np.testing.assert_array_equal(found, by_pillow(encoded)[10:40, 20:70])


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_broken_without_it(without, name):
    with pytest.raises(decoding.DecodeError):
        decoding.decode(BROKEN[name])


@needs_library
@pytest.mark.parametrize('encoded', [b'', b'no picture', b'\xff\xd8\xff\xc0'])
def test_what_is_no_jpeg_is_left_to_others(encoded):
    assert region_decoder.decode(encoded, 0, 0, 1, 1) is None


@needs_library
def test_a_damaged_picture_leaves_nothing_behind():
    """In libjpeg-turbo, a bad Huffman table is an error of whatever is decoded next as well."""
    encoded = encode(photograph(40, 60), quality=80)
    sound, _ = region_decoder.decode(encoded, 3, 5, 20, 30)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(encoded)
        for place in rng.integers(0, len(encoded), 4):
            damaged[place] = rng.integers(256)
        region_decoder.decode(bytes(damaged), 0, 0, 8, 8)
        again, _ = region_decoder.decode(encoded, 3, 5, 20, 30)
        np.testing.assert_array_equal(again, sound)


def test_a_library_that_is_too_old_is_passed_over(monkeypatch):
    found = []
    monkeypatch.setattr(region_decoder, '_candidates', lambda: iter(['old', 'missing']))

    def load(path):
        found.append(path)
        if path == 'missing':
            raise OSError(path)
        return object()

    monkeypatch.setattr(ctypes, 'CDLL', load)
    assert region_decoder._library.__wrapped__() is None
    assert found == ['old', 'missing']
