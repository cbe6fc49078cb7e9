"""Decoding against Pillow: every format that comes, whole and in part, and what is broken."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sources import decoding
from data_sources.decoding import Box, DecodeError
from tests.support_pictures import imagenet_files


def photograph(height=90, width=120, seed=0):
    """Something smooth with edges, as JPEG likes it; uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels, form='JPEG', mode='RGB', **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def by_pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))


FORMATS = {
    'baseline 4:2:0': {'quality': 90},
    'baseline 4:4:4': {'quality': 90, 'subsampling': 0},
    'baseline 4:2:2': {'quality': 90, 'subsampling': 1},
    'progressive': {'quality': 90, 'progressive': True},
    'grey': {'mode': 'L'},
    'CMYK': {'mode': 'CMYK'},
    'restart markers': {'quality': 90, 'restart_marker_rows': 1},
    'PNG': {'form': 'PNG'},
    'palette PNG': {'form': 'PNG', 'mode': 'P'},
    'grey PNG': {'form': 'PNG', 'mode': 'L'},
    'WebP': {'form': 'WEBP', 'lossless': True},
    'BMP': {'form': 'BMP'},
    'GIF': {'form': 'GIF', 'mode': 'P'},
}


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_gives_pillows_pixels(name):
    encoded = encode(photograph(), **FORMATS[name])
    np.testing.assert_array_equal(decoding.decode(encoded), by_pillow(encoded))


@pytest.mark.parametrize('name', FORMATS)
def test_a_part_is_that_part_of_the_whole(name):
    encoded = encode(photograph(), **FORMATS[name])
    whole, frame = by_pillow(encoded), decoding.read_frame(encoded)
    assert (frame.height, frame.width) == (90, 120)
    for box in (Box(0, 0, 1, 1), Box(3, 5, 20, 31), Box(40, 60, 50, 60), Box(89, 119, 1, 1)):
        part = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        np.testing.assert_array_equal(decoding.decode_box(encoded, frame, box), part)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    subsampling=st.integers(0, 2),
    data=st.data(),
)
def test_any_box_of_any_jpeg(height, width, subsampling, data):
    """The decoder is stopped below the box; chroma is interpolated across that line."""
    encoded = encode(photograph(height, width), quality=95, subsampling=subsampling)
    top = data.draw(st.integers(0, height - 1))
    left = data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(1, height - top)), 1 + (width - left) // 2)
    part = by_pillow(encoded)[top : top + box.height, left : left + box.width]
    found = decoding.decode_box(encoded, decoding.read_frame(encoded), box)
    np.testing.assert_array_equal(found, part)


@pytest.mark.parametrize('shrink', [2, 4, 8])
@pytest.mark.parametrize('name', ['baseline 4:2:0', 'progressive', 'PNG'])
def test_a_shrunk_part_is_close_to_the_average(name, shrink):
    encoded = encode(photograph(128, 160), **FORMATS[name])
    box = Box(16, 32, 64, 96)
    found = decoding.decode_box(encoded, decoding.read_frame(encoded), box, shrink)
    assert found.shape == (64 // shrink, 96 // shrink, 3)
    part = by_pillow(encoded)[16:80, 32:128].astype(float)
    mean = part.reshape(64 // shrink, shrink, 96 // shrink, shrink, 3).mean((1, 3))
    assert np.abs(found - mean).mean() < 2.5


def test_real_pictures_are_pillows_bit_for_bit():
    for path in imagenet_files()[::10]:
        encoded = path.read_bytes()
        np.testing.assert_array_equal(decoding.decode(encoded), by_pillow(encoded))


def test_transparency_is_laid_on_what_sets_it_off():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 2:6] = (255, 255, 255, 255)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    found = decoding.decode(file.getvalue())
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[3, 3].tolist() == [255, 255, 255]


def huge():
    """A small file that unpacks to 400 million pixels."""
    file = io.BytesIO()
    Image.new('1', (20_000, 20_000)).save(file, 'PNG')
    return file.getvalue()


WHOLE = encode(photograph(200, 300, seed=3), quality=90)
BROKEN = {
    'nothing': b'',
    'no picture': b'<html>404 Not Found</html>',
    'a signature only': b'\xff\xd8\xff',
    'half a JPEG': WHOLE[: len(WHOLE) // 2],
    'a JPEG without its last tenth': WHOLE[: -len(WHOLE) // 10],
    'half a progressive JPEG': encode(photograph(), progressive=True)[:900],
    'half a PNG': encode(photograph(), 'PNG')[:3000],
    'a bomb': huge(),
}


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_broken_is_an_error(name):
    with pytest.raises(DecodeError, match=r'pixels|cannot be decoded|not a picture'):
        decoding.decode(BROKEN[name])


def test_a_truncated_jpeg_is_noticed_wherever_the_crop_lies():
    """Also where the part that is asked for is there: the same record is bad in every epoch."""
    encoded = BROKEN['half a JPEG']
    with pytest.raises(DecodeError):
        decoding.decode_box(encoded, decoding.read_frame(encoded), Box(0, 0, 8, 8))


def test_junk_after_the_end_does_no_harm():
    np.testing.assert_array_equal(decoding.decode(WHOLE + b'\0' * 100), by_pillow(WHOLE))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_pixels_or_an_error_and_nothing_else(data):
    encoded = bytearray(encode(photograph(40, 60), quality=80))
    for _ in range(data.draw(st.integers(1, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decoding.decode(bytes(encoded))
    except DecodeError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
