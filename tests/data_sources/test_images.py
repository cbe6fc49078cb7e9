"""Pictures from outside: modes, geometry, ink on paper, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sources import images
from errors import UserError

RAMP = (np.arange(28 * 28).reshape(28, 28) % 251).astype(np.uint8)


def save(path, picture, **options):
    picture.save(path, **options)
    return path


@pytest.mark.parametrize('channels', [1, 3])
def test_a_picture_of_the_right_size_and_mode_passes_unchanged(tmp_path, channels):
    pixels = RAMP if channels == 1 else np.stack([RAMP, RAMP.T, 255 - RAMP], -1)
    path = save(tmp_path / 'a.png', Image.fromarray(pixels))
    read = images.read_image(path, 28, 28, channels, invert='no')
    assert (read.shape, read.dtype) == ((28, 28, channels), np.uint8)
    np.testing.assert_array_equal(read.squeeze(), pixels)
    read = images.read_image(path, 28, 28, channels, invert='yes')
    np.testing.assert_array_equal(read.squeeze(), 255 - pixels)
    read[:] = 0  # the caller owns the array


def drawing(ink, paper):
    """A vertical stroke, 4 wide, in the middle of a 28x28 sheet."""
    pixels = np.full((28, 28), paper, np.uint8)
    pixels[4:24, 12:16] = ink
    return pixels


WANTED = drawing(255, 0)
BLACK_ON_WHITE = Image.fromarray(drawing(0, 255))
ALPHA = Image.fromarray(WANTED)  # opaque where the stroke is


def with_alpha(mode, level):
    picture = Image.new(mode[:-1], (28, 28), (level,) * (len(mode) - 1))
    picture.putalpha(ALPHA)
    return picture


def palette_with_transparency():
    picture = Image.fromarray((WANTED > 0).astype(np.uint8)).convert('P')
    picture.putpalette([255, 0, 0, 0, 0, 0])  # index 0 is red, and transparent
    picture.info['transparency'] = 0
    return picture


VARIANTS = {
    '1.png': BLACK_ON_WHITE.convert('1'),
    'L.png': BLACK_ON_WHITE,
    'L.bmp': BLACK_ON_WHITE,
    'bright.png': Image.fromarray(WANTED),
    'LA_black_ink.png': with_alpha('LA', 0),
    'LA_white_ink.png': with_alpha('LA', 255),
    'RGBA_black_ink.png': with_alpha('RGBA', 0),
    'RGBA_white_ink.png': with_alpha('RGBA', 255),
    'RGBA_white_ink.webp': with_alpha('RGBA', 255),
    'P.gif': BLACK_ON_WHITE.convert('P'),
    'P_transparent.png': palette_with_transparency(),
    'RGB.png': BLACK_ON_WHITE.convert('RGB'),
    'CMYK.tiff': BLACK_ON_WHITE.convert('RGB').convert('CMYK'),
    'I16.png': Image.fromarray(drawing(0, 255).astype(np.uint16) * 257),
    'I16.tiff': Image.fromarray(drawing(0, 255).astype(np.uint16) * 257),
    'I.tiff': Image.fromarray(drawing(0, 255).astype(np.int32)),
    'I_wide.tiff': Image.fromarray(drawing(0, 255).astype(np.int32) * 100_000),
    'F.tiff': Image.fromarray(drawing(0, 255).astype(np.float32)),
    'F_unit.tiff': Image.fromarray(drawing(0, 1).astype(np.float32)),
}


@pytest.mark.parametrize('name', VARIANTS)
def test_the_same_drawing_in_any_mode_reads_the_same(tmp_path, name):
    options = {'lossless': True} if name.endswith('webp') else {}
    path = save(tmp_path / name, VARIANTS[name], **options)
    np.testing.assert_array_equal(images.read_image(path, 28, 28, 1)[..., 0], WANTED)


def test_a_jpeg_is_turned_upright(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = (250, 10, 10)  # red above black
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    path = save(tmp_path / 'a.jpg', Image.fromarray(pixels), exif=exif, quality=95)
    read = images.read_image(path, 40, 40, 3).astype(int)
    assert read[:, 24:, 0].min() > 200
    assert read[:, :16, 0].max() < 50


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    width=st.one_of(st.integers(1, 60), st.integers(61, 900)),
    height=st.one_of(st.integers(1, 60), st.integers(61, 900)),
    frame=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    channels=st.sampled_from([1, 3]),
)
def test_geometry(tmp_path, width, height, frame, channels):
    """A flat picture fills the frame with its colour; a bright disc keeps its shape and place."""
    flat = save(tmp_path / 'flat.png', Image.new('RGB', (width, height), (90, 90, 90)))
    read = images.read_image(flat, *frame, channels)
    assert (read.shape, read.dtype) == ((*frame, channels), np.uint8)
    assert (read == 90).all()

    sheet = np.zeros((height, width), np.uint8)
    sheet[height // 4 : height - height // 4, width // 4 : width - width // 4] = 200
    if min(*frame, *sheet.shape) < 16 or max(width / height, height / width) > 2:
        return
    path = save(tmp_path / 'box.png', Image.fromarray(sheet))
    bright = images.read_image(path, *frame, channels)[..., 0] > 100
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    scale = min(frame[0] / height, frame[1] / width)
    assert abs(len(rows) - scale * (height - 2 * (height // 4))) <= 2
    assert abs(len(columns) - scale * (width - 2 * (width // 4))) <= 2
    assert abs(rows.mean() - (frame[0] - 1) / 2) <= 1.5
    assert abs(columns.mean() - (frame[1] - 1) / 2) <= 1.5


def test_the_padding_has_the_colour_of_the_edge(tmp_path):
    picture = Image.new('RGB', (20, 10), (10, 200, 30))
    picture.paste((250, 0, 0), (8, 4, 12, 6))
    read = images.read_image(save(tmp_path / 'a.png', picture), 20, 20, 3)
    assert (read[[0, 4, 15, 19]] == (10, 200, 30)).all()


def png_that_claims(width, height):
    """The file of a picture of that size, with next to nothing in it."""
    parts = {
        b'IHDR': struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0),
        b'IDAT': zlib.compress(bytes(1000)),
        b'IEND': b'',
    }
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in parts.items()
    )


def encoded(form):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        buffer, form
    )
    return buffer.getvalue()


BAD = {
    'empty.png': (b'', r'is empty \(zero bytes\)'),
    'text.png': (b'hello, world' * 9, 'is not a picture that can be read'),
    'cut.png': (encoded('PNG')[:2000], 'cannot be read as a picture'),
    'cut.jpg': (encoded('JPEG')[:1500], 'cannot be read as a picture'),
    'garbled.png': (encoded('PNG')[:3000] + b'\xff' * 3000, 'cannot be read as a picture'),
    'header.png': (encoded('PNG')[:33] + b'\xff' * 40, 'is not a picture that can be read'),
    'bomb.png': (png_that_claims(60_000, 60_000), 'is too large to be read safely'),
    'large.png': (png_that_claims(11_000, 11_000), 'is too large to be read safely'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_pictures_are_refused_by_name(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f'{tmp_path / name} {message}'):
        images.read_image(tmp_path / name, 28, 28, 1)


def test_missing_pictures_and_folders(tmp_path):
    with pytest.raises(UserError, match=r'a\.png does not exist'):
        images.read_image(tmp_path / 'a.png', 28, 28, 1)
    with pytest.raises(UserError, match=f'{tmp_path} cannot be read as a picture: .*directory'):
        images.read_image(tmp_path, 28, 28, 1)


def test_what_systems_leave_in_a_folder_is_not_predicted(tmp_path):
    own = ['a.jpg', 'more/b.png']
    for name in (*own, '._a.jpg', '__MACOSX/more/b.png', 'more/@eaDir/b.png', '.thumbnails/a.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    assert images.list_images([tmp_path]) == [tmp_path / name for name in own]


def test_list_images_expands_folders(tmp_path):
    for name in ('b.PNG', 'a.jpeg', 'notes.txt', 'sub/c.gif', 'empty/readme.md'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert images.list_images([tmp_path / 'notes.txt', str(tmp_path)]) == [
        tmp_path / name for name in ('notes.txt', 'a.jpeg', 'b.PNG', 'sub/c.gif')
    ]
    with pytest.raises(UserError, match='empty has no pictures'):
        images.list_images([tmp_path / 'empty'])
    with pytest.raises(UserError, match='none does not exist'):
        images.list_images([tmp_path / 'none'])
