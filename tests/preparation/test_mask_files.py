"""The numbers of masks of every depth, from files that are put together here bit by bit."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from preparation import mask_files
from preparation.mask_files import MaskFaultError
from tests.support_pictures import png_chunk

GREY, RGB, PALETTE = 0, 2, 3  # PNG's color types


def png(values, bits, color=GREY, more=b''):
    """A PNG file of numbers [h, w] of a depth; more: chunks before the pixels."""
    values = np.asarray(values, np.int64)
    if bits == 16:
        rows = values.astype('>u2').view(np.uint8).reshape(len(values), -1)
    else:
        places = np.arange(bits - 1, -1, -1)
        rows = np.packbits((values[..., None] >> places & 1).reshape(len(values), -1), axis=1)
    data = b''.join(b'\0' + row.tobytes() for row in rows)
    header = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], bits, color, 0, 0, 0)
    body = more + png_chunk(b'IDAT', zlib.compress(data)) + png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', header) + body


def palette(size):
    """Colors in which no index can be recognized."""
    return png_chunk(b'PLTE', bytes((7 * n + 100) % 256 for n in range(3 * size)))


def values_of(bits, shape=(5, 13)):
    return np.random.default_rng(bits).integers(0, 2**bits, shape)


def file_of(picture, form='PNG', **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 16])
def test_grey_levels_are_the_numbers_of_the_file(bits):
    found = mask_files.numbers(png(values_of(bits), bits), 'a.png')
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values_of(bits))


@pytest.mark.parametrize('transparent', [b'', png_chunk(b'tRNS', b'\0')])
@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_a_palette_gives_indices_never_colors(bits, transparent):
    data = png(values_of(bits), bits, PALETTE, palette(2**bits) + transparent)
    np.testing.assert_array_equal(mask_files.numbers(data, 'a.png'), values_of(bits))
    covered = mask_files.covered(data, 'a.png')
    np.testing.assert_array_equal(covered, values_of(bits) != 0)


@pytest.mark.parametrize(('form', 'bits'), [('TIFF', 8), ('TIFF', 16), ('BMP', 8), ('TIFF', 1)])
def test_other_formats_that_keep_numbers(form, bits):
    values = values_of(bits)
    picture = Image.fromarray(values.astype(np.uint16 if bits == 16 else np.uint8))
    picture = Image.fromarray(values.astype(bool)) if bits == 1 else picture
    found = mask_files.numbers(file_of(picture, form), 'a')
    np.testing.assert_array_equal(found, values)


def test_32_bits_of_a_tiff():
    values = np.array([[0, 70_000], [3, 2**31 - 1]], np.int32)
    found = mask_files.numbers(file_of(Image.fromarray(values), 'TIFF'), 'a.tif')
    np.testing.assert_array_equal(found, values)
    with pytest.raises(MaskFaultError, match='a pixel of -1: numbers start at 0'):
        mask_files.numbers(file_of(Image.fromarray(np.minimum(values, 1) * -1), 'TIFF'), 'a.tif')


@pytest.mark.parametrize('orientation', range(2, 9))
def test_a_masks_own_orientation_is_applied(orientation):
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(file_of(Image.fromarray(values), exif=exif))) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    found = mask_files.numbers(file_of(Image.fromarray(values), exif=exif), 'a.png')
    np.testing.assert_array_equal(found, expected)


def with_alpha(alpha, color=0):
    grey = values_of(8).astype(np.uint8)
    channels = [grey] * (3 if color else 1)
    return Image.fromarray(np.stack([*channels, np.broadcast_to(alpha, grey.shape)], -1))


def test_an_alpha_channel_that_carries_nothing_is_dropped():
    for alpha in (255, 0):
        data = file_of(with_alpha(np.uint8(alpha)))
        np.testing.assert_array_equal(mask_files.numbers(data, 'a.png'), values_of(8))
        data = file_of(with_alpha(np.uint8(alpha), color=1))
        np.testing.assert_array_equal(mask_files.covered(data, 'a.png'), values_of(8) != 0)


GREYS = Image.fromarray(values_of(8).astype(np.uint8))
FRACTIONS = Image.fromarray(values_of(8).astype(np.float32))
SOUND = png(values_of(8), 8)
FRAMES = {'save_all': True, 'append_images': [GREYS.point(lambda v: 255 - v)]}
REFUSED = {
    'empty': (b'', r'empty \(zero bytes\)'),
    'no picture': (b'Not Found', 'not a picture'),
    'JPEG': (file_of(GREYS, 'JPEG'), 'a JPEG, which does not keep the numbers of pixels'),
    'WebP': (file_of(GREYS, 'WEBP', lossless=True), 'a WEBP file'),
    'colors': (file_of(GREYS.convert('RGB')), r'in color \(mode RGB\)'),
    'transparent': (file_of(with_alpha(GREYS)), 'parts of it are transparent'),
    'fractions': (file_of(FRACTIONS, 'TIFF'), 'it holds fractions'),
    'APNG': (file_of(GREYS, **FRAMES), 'it holds 2 pictures'),
    'GIF': (file_of(GREYS, 'GIF'), 'a GIF file'),
    'pages': (file_of(GREYS, 'TIFF', **FRAMES), 'it holds 2 pictures'),
    'white is zero': (file_of(GREYS, 'TIFF', tiffinfo={262: 0}), 'in which 0 is white'),
    'TIFF with JPEG': (file_of(GREYS, 'TIFF', compression='jpeg'), 'compressed as JPEG'),
    'cut': (SOUND[:-30], 'does not decode'),
    'a wrong checksum': (SOUND[:-20] + bytes([SOUND[-20] ^ 1]) + SOUND[-19:], 'does not decode'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_read_exactly_is_refused(case):
    data, reason = REFUSED[case]
    with pytest.raises(MaskFaultError, match=f'^labels/a: .*{reason}') as caught:
        mask_files.numbers(data, 'labels/a')
    assert caught.value.file == 'labels/a'
    assert 'labels/a' not in caught.value.reason


def test_a_huge_header_is_not_believed():
    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', header) + png_chunk(b'IDAT', b'x')
    with pytest.raises(MaskFaultError, match='too large to be decoded safely'):
        mask_files.numbers(data + png_chunk(b'IEND', b''), 'a.png')
