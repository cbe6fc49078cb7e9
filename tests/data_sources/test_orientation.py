"""EXIF orientation against Pillow's own transposition, whole and in part, and damaged EXIF."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_sources import decoding, images, orientation, region_decoder, stream
from data_sources.decoding import Box
from preparation import picture_check
from tests.data_sources.test_decoding import photograph
from tests.support import most_slow

ORIENTATIONS = range(1, 9)
PHOTO = photograph(96, 136, seed=5)
FORMATS = {
    'JPEG': {'form': 'JPEG', 'quality': 90, 'subsampling': 0},
    '4:2:0': {'form': 'JPEG', 'quality': 90, 'subsampling': 2},
    'progressive': {'form': 'JPEG', 'progressive': True},
    'CMYK': {'form': 'JPEG', 'mode': 'CMYK'},
    'grey': {'form': 'JPEG', 'mode': 'L'},
    'PNG': {'form': 'PNG'},
    'RGBA': {'form': 'PNG', 'mode': 'RGBA'},
    'WebP': {'form': 'WEBP', 'lossless': True},
    'TIFF': {'form': 'TIFF'},
}


def encode(number, form='JPEG', mode='RGB', pixels=PHOTO, **options):
    """A picture whose EXIF says `number`, which may be anything."""
    exif = Image.Exif()
    exif[0x0112] = number
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, exif=exif, **options)
    return file.getvalue()


def by_pillow(encoded):
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert('RGB'))


@pytest.fixture(params=['with libjpeg-turbo 3', 'without'], scope='module')
def decoders(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'without':
            patch.setattr(region_decoder, '_library', lambda: None)
        yield


@pytest.mark.parametrize('name', most_slow(FORMATS, ['JPEG', 'CMYK', 'PNG', 'TIFF']))
@pytest.mark.parametrize('number', ORIENTATIONS)
def test_a_picture_is_turned_where_the_set_asks_for_it(tmp_path, decoders, number, name):
    encoded = encode(number, **FORMATS[name])
    upright = by_pillow(encoded)
    frame = decoding.read_frame(encoded, upright=True)
    assert (frame.height, frame.width) == upright.shape[:2]
    np.testing.assert_array_equal(decoding.decode(encoded, upright=True), upright)
    if name != 'TIFF':  # Pillow turns TIFF upright whatever is asked for
        with Image.open(io.BytesIO(encoded)) as picture:
            stored = np.asarray(picture.convert('RGB'))
        np.testing.assert_array_equal(decoding.decode(encoded), stored)
    (tmp_path / 'a').write_bytes(encoded)
    found = images.read_image(tmp_path / 'a', *upright.shape)  # for networks of sets in memory
    np.testing.assert_array_equal(found, upright)
    assert picture_check.check(encoded, upright=True).data == encoded
    file = io.BytesIO()
    Image.fromarray(upright).convert('L' if name == 'grey' else 'RGB').save(file, 'PNG')
    small = picture_check.check(encoded, 32, upright=True).data
    assert small == picture_check.check(file.getvalue(), 32).data
    with Image.open(io.BytesIO(small)) as picture:
        assert picture.getexif().get(0x0112) is None


@settings(max_examples=100, deadline=None)
@given(
    number=st.sampled_from(ORIENTATIONS),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    shrink=st.sampled_from([1, 2, 4, 8]),
    name=st.sampled_from(['JPEG', '4:2:0', 'PNG']),
    data=st.data(),
)
def test_any_part_at_any_scale(number, height, width, shrink, name, data):
    encoded = encode(number, pixels=photograph(height, width), **FORMATS[name])
    whole, frame = by_pillow(encoded), decoding.read_frame(encoded, upright=True)
    sides = [side // shrink for side in whole.shape[:2]]
    if not all(sides):
        return
    top, left = (data.draw(st.integers(0, side - 1)) for side in sides)
    tall, wide = (
        data.draw(st.integers(1, sides[0] - top)),
        data.draw(st.integers(1, sides[1] - left)),
    )
    box = Box(*(shrink * start for start in (top, left, tall, wide)))
    found = decoding.decode_box(encoded, frame, box, shrink)
    assert found.shape == (tall, wide, 3)
    part = whole[box.top : box.top + box.height, box.left : box.left + box.width].astype(float)
    mean = part.reshape(tall, shrink, wide, shrink, 3).mean((1, 3))
    if shrink == 1:
        np.testing.assert_array_equal(found, part)
    assert np.abs(found - mean).mean() < 8  # JPEG is shrunk by its low frequencies


@pytest.mark.parametrize('number', ORIENTATIONS)
def test_crops_are_those_of_a_picture_that_was_stored_upright(number):
    """The draws know nothing of the orientation."""
    encoded, plain = encode(number, form='PNG'), io.BytesIO()
    Image.fromarray(by_pillow(encoded)).save(plain, 'PNG')
    train = stream.TrainTransform(3, 32, (0.08, 1.0), (0.75, 4 / 3), upright=True)
    middle = stream.EvalTransform(32, 37, upright=True)
    for visit in range(5):
        found = train.with_matrices(encoded, visit, 7)
        wanted = train.with_matrices(plain.getvalue(), visit, 7)
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])
    found, wanted = middle.with_matrices(encoded), middle.with_matrices(plain.getvalue())
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


def with_exif(segment):
    """A JPEG whose APP1 is this."""
    plain = io.BytesIO()
    Image.fromarray(PHOTO).save(plain, 'JPEG')
    app1 = b'\xff\xe1' + (len(segment) + 2).to_bytes(2) + segment
    return plain.getvalue()[:2] + app1 + plain.getvalue()[2:]


def entry(kind, value):
    """EXIF whose orientation is of another kind of TIFF's than a short number."""
    field = struct.pack('>HHI4s', 0x0112, kind, 4, value)
    return b'Exif\0\0MM\0*' + struct.pack('>IH', 8, 1) + field + bytes(4)


EXIF = Image.Exif()
EXIF[0x0112] = 6
WHOLE = b'Exif\0\0' + EXIF.tobytes().removeprefix(b'Exif\0\0')
DAMAGED = {
    **{f'orientation {n}': encode(n) for n in (0, 9, 6 * 256)},
    'text': with_exif(entry(2, b'up\0\0')),
    'the figure as text': with_exif(entry(2, b'6\0\0\0')),
    **{f'cut after {n} bytes': with_exif(WHOLE[:n]) for n in (6, 8, 11, 14, 16, 20)},
    'no TIFF': with_exif(b'Exif\0\0' + b'\xff' * 40),
    'a table far away': with_exif(b'Exif\0\0MM\0*' + b'\xff\xff\xff\xf0' + bytes(20)),
}


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged_exif_is_ignored(tmp_path, name):
    plain = decoding.decode(DAMAGED[name])
    np.testing.assert_array_equal(decoding.decode(DAMAGED[name], upright=True), plain)
    assert picture_check.check(DAMAGED[name], upright=True).data == DAMAGED[name]
    assert not picture_check.check(DAMAGED[name], 32, upright=True).fault
    (tmp_path / 'a.jpg').write_bytes(DAMAGED[name])
    found = images.read_image(tmp_path / 'a.jpg', *plain.shape)
    np.testing.assert_array_equal(found, plain)


def test_whole_exif_beside_the_damaged_is_heeded():
    upright = decoding.decode(with_exif(WHOLE), upright=True)
    assert upright.shape == (136, 96, 3)


def test_a_damaged_png_does_not_pass_because_of_its_exif():
    encoded = bytearray(encode(6, form='PNG'))
    encoded[len(encoded) // 2] ^= 0xFF
    for upright in (False, True):
        with pytest.raises(decoding.DecodeError):
            decoding.decode(bytes(encoded), upright)
    assert orientation.exchanges_sides(6)
