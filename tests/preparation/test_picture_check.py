"""The check of pictures and their resizing, on real JPEGs."""

import io
import random
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from preparation import picture_check
from tests.support_pictures import imagenet_files


@pytest.fixture(scope='module')
def jpegs():
    return [path.read_bytes() for path in imagenet_files()]


def encode(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def decode(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture


def difference(found, expected):
    return np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).mean()


def test_every_real_picture_passes_unchanged(jpegs):
    for data in jpegs:
        assert picture_check.check(data) == picture_check.Checked(data)


def test_a_cut_anywhere_is_found_as_by_a_full_decode(jpegs):
    """Decoding at an eighth of the size finds every truncation that full decoding finds."""
    rng = random.Random(0)
    found = 0
    for data in jpegs[::4]:
        for cut in (len(data) - 3, len(data) - 100, *(rng.randrange(len(data)) for _ in range(4))):
            try:
                decode(data[:cut])
                whole = True
            except Exception:
                whole = False
            checked = picture_check.check(data[:cut])
            assert bool(checked.fault) == (not whole)
            assert checked.data == (data[:cut] if whole else b'')
            found += not whole
    assert found > 250


def test_a_cut_progressive_jpeg_is_found(jpegs):
    data = encode(decode(jpegs[0]), 'JPEG', progressive=True)
    assert not picture_check.check(data).fault
    for share in (0.3, 0.6, 0.9, 0.99):
        checked = picture_check.check(data[: int(share * len(data))])
        assert checked.fault.startswith('does not decode: ')


def png_header(width, height):
    """A PNG file of a few bytes that says it is very large."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)

    header = struct.pack('>2I5B', width, height, 8, 2, 0, 0, 0)
    body = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + body


@pytest.mark.filterwarnings('ignore:Image size')
@pytest.mark.parametrize(
    ('data', 'fault'),
    [
        (b'', 'empty (zero bytes)'),
        (b'This is no picture.', 'not a picture'),
        (bytes(5000), 'not a picture'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'not a picture'),
        (b'\xff\xd8\xff\xe0', 'not a picture'),
        (png_header(64, 64), 'does not decode: '),
        (
            png_header(10_001, 10_000),
            'too large to be decoded safely (10001x10000 pixels; ',
        ),
        (png_header(50_000, 50_000), 'too large to be decoded safely ('),
    ],
)
def test_what_is_rejected(data, fault):
    checked = picture_check.check(data)
    assert checked.fault.startswith(fault)
    assert checked.data == b''


def test_a_file_too_large_for_a_record_is_rejected(monkeypatch, jpegs):
    monkeypatch.setattr(picture_check, 'MAX_BYTES', 1 << 20)
    assert picture_check.check(jpegs[0] + bytes(1 << 20)).fault == 'larger than 1 MiB'


@pytest.mark.filterwarnings('ignore:Image size')
def test_the_largest_that_passes():
    data = encode(Image.new('L', (10_000, 10_000)), 'PNG')
    assert picture_check.check(data).kinds == ('PNG',)


OTHERS = {  # name -> (what it is counted as, how to make it of a real picture)
    'CMYK': (('CMYK',), lambda real: encode(real.convert('CMYK'), 'JPEG')),
    'grey': ((), lambda real: encode(real.convert('L'), 'JPEG')),
    'PNG': (('PNG',), lambda real: encode(real, 'PNG')),
    'RGBA': (('PNG',), lambda real: encode(real.convert('RGBA'), 'PNG')),
    'palette': (('PNG',), lambda real: encode(real.convert('P'), 'PNG')),
    '16 bits': (
        ('PNG',),
        lambda _: encode(Image.fromarray(np.eye(9, dtype=np.uint16)), 'PNG'),
    ),
    'animation': (
        ('GIF',),
        lambda real: encode(real, 'GIF', save_all=True, append_images=[real]),
    ),
    'several': ((), lambda real: encode(real, 'MPO', save_all=True, append_images=[real])),
    'WEBP': (('WEBP',), lambda real: encode(real, 'WEBP')),
    'BMP': (('BMP',), lambda real: encode(real, 'BMP')),
    'TIFF': (('TIFF',), lambda real: encode(real, 'TIFF')),
    'PPM': (('PPM',), lambda real: encode(real, 'PPM')),
}


@pytest.mark.parametrize('name', OTHERS)
def test_other_formats_are_kept_and_counted(name, jpegs):
    kinds, make = OTHERS[name]
    data = make(decode(jpegs[0]))
    assert picture_check.check(data) == picture_check.Checked(data, kinds=kinds)
    smaller = picture_check.check(data, 7)
    assert smaller.kinds == (*kinds, 'resized')
    picture = decode(smaller.data)
    assert (picture.format, min(picture.size)) == ('JPEG', 7)
    assert picture.mode == ('L' if name == 'grey' else 'RGB')


def test_cmyk_keeps_its_colours(jpegs):
    """Adobe's CMYK is stored inverted; the smaller version must look like the original."""
    real = decode(jpegs[0])
    data = encode(real.convert('CMYK'), 'JPEG', quality=95)
    small = decode(picture_check.check(data, 125).data)
    assert difference(small, real.resize(small.size, Image.Resampling.BICUBIC)) < 4


@pytest.mark.parametrize('shorter_side', [64, 200, 256])
def test_smaller_versions(jpegs, shorter_side):
    resized = 0
    for data in jpegs[::5]:
        original, checked = decode(data), picture_check.check(data, shorter_side)
        if min(original.size) <= shorter_side:
            assert checked == picture_check.Checked(data)
            continue
        resized += 1
        small = decode(checked.data)
        assert checked.kinds == ('resized',)
        assert small.mode == original.mode
        assert min(small.size) == shorter_side
        ratios = [s / o for s, o in zip(small.size, original.size, strict=True)]
        assert abs(ratios[0] - ratios[1]) * max(original.size) <= 1  # to within a pixel
        expected = original.resize(small.size, Image.Resampling.BICUBIC)
        # What JPEG of quality 95 costs in luma; 4:2:0 costs more in colours.
        assert difference(small.convert('L'), expected.convert('L')) < 3
        assert difference(small, expected) < 8
        assert picture_check.check(data, shorter_side) == checked
    assert resized > 20


def test_the_shorter_side_of_thin_pictures():
    for size in ((3000, 9), (9, 3000), (8, 3000), (3000, 11)):
        picture = decode(picture_check.check(encode(Image.new('RGB', size), 'PNG'), 8).data)
        assert min(picture.size) == 8
        assert max(picture.size) == (3000 if 8 in size else round(3000 * 8 / min(size)))


def test_in_order_keeps_the_order_and_runs_only_a_little_ahead():
    taken = []

    def given():
        for number in range(100):
            taken.append(number)
            yield number

    def slow(number):
        time.sleep(0.002 * (number % 3))
        return number, threading.current_thread()

    results, threads = [], set()
    for number, thread in picture_check.in_order(slow, given(), threads=4):
        results.append(number)
        threads.add(thread)
        assert len(taken) - len(results) <= 9
    assert results == list(range(100))
    assert 1 < len(threads) <= 4


def test_in_order_ends_its_threads_and_passes_errors_on():
    before = threading.active_count()
    results = picture_check.in_order(lambda number: 1 / (number - 5), range(100), threads=2)
    with pytest.raises(ZeroDivisionError):
        list(results)
    abandoned = picture_check.in_order(abs, range(100), threads=2)
    next(abandoned)
    abandoned.close()
    assert threading.active_count() == before
