"""The fast PNG path against Pillow, both ways."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sources import png

MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}


def smooth(seed, height, width, channels):
    """Images with gradients and noise, on which encoders choose many filters."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-3, 4, (height, width, channels))
    return (rng.integers(256) + np.cumsum(np.cumsum(steps, 0), 1)).astype(np.uint8)


def by_pillow(image):
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, 'PNG')
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 40), st.integers(1, 40), st.sampled_from(list(MODES)))
def test_reads_what_pillow_writes_and_pillow_reads_what_it_writes(seed, height, width, channels):
    image = smooth(seed, height, width, channels)
    with Image.open(io.BytesIO(png.encode(image))) as opened:
        assert opened.mode == MODES[channels]
        np.testing.assert_array_equal(np.asarray(opened).reshape(image.shape), image)
    files = [by_pillow(image), png.encode(image)]
    for decoded in png.decode_many(files, image.shape):
        np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize('kind', range(5))
def test_each_row_filter_is_undone(kind):
    """A file whose rows all use one filter, filtered here as the specification writes it down."""
    image = smooth(kind, 9, 7, 3).astype(int)
    rows = b''
    for y, x_bytes in enumerate(image.reshape(9, 21)):
        above = image.reshape(9, 21)[y - 1] if y else np.zeros(21, int)
        row = []
        for i, value in enumerate(x_bytes):
            a = x_bytes[i - 3] if i >= 3 else 0
            b, c = above[i], above[i - 3] if i >= 3 else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row.append((value - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        rows += bytes([kind, *row])
    start = by_pillow(image.astype(np.uint8))[:33]
    data = zlib.compress(rows)
    check = zlib.crc32(b'IDAT' + data)
    file = start + struct.pack('>I', len(data)) + b'IDAT' + data + struct.pack('>I', check)
    file += b'\0\0\0\0IEND\xaeB`\x82'
    np.testing.assert_array_equal(png.decode_many([file], (9, 7, 3))[0], image)


def test_other_formats_go_through_pillow():
    image = np.full((8, 8, 3), 200, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=95)
    decoded = png.decode_many([buffer.getvalue(), png.encode(image)], (8, 8, 3))
    assert np.abs(decoded.astype(int) - 200).max() <= 2


def test_damage_and_wrong_shapes_raise():
    image = smooth(1, 28, 28, 1)
    file = bytearray(png.encode(image))
    file[len(file) // 2] ^= 0xFF
    with pytest.raises((zlib.error, OSError)):
        png.decode_many([bytes(file)], (28, 28, 1))
    with pytest.raises(ValueError, match=r'not uint8 \(27, 28, 1\)'):
        png.decode_many([png.encode(image)], (27, 28, 1))
