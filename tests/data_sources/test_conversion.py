"""Any picture becomes the same 8-bit RGB wherever it is read, against a slow and plain version."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sources import conversion, decoding, images
from preparation import picture_check
from tests.support_pictures import png_chunk as chunk

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
COLORS = Image.fromarray(LEVELS).resize((60, 44), Image.Resampling.BICUBIC)
ALPHA = Image.fromarray(LEVELS[..., 0]).resize((60, 44), Image.Resampling.BICUBIC)
DEEP = np.asarray(COLORS)[..., 0].astype(np.uint16) * 257


def with_alpha(mode):
    picture = COLORS.convert(mode)
    picture.putalpha(ALPHA)
    return picture


def deep(kind):
    return Image.frombytes('I;16' + kind, (60, 44), DEEP.astype(f'{">" if kind == "B" else "<"}u2'))


def palette(alpha):
    picture = COLORS.quantize(16)
    if alpha:
        picture.info['transparency'] = bytes(range(0, 256, 16))
    return picture


MODES = {
    '1': COLORS.convert('1'),
    'L': COLORS.convert('L'),
    'LA': with_alpha('L'),
    'La': with_alpha('L').convert('La'),
    'P': palette(False),
    'P transparent': palette(True),
    'PA': with_alpha('RGB').convert('PA'),
    'RGB': COLORS,
    'RGBA': with_alpha('RGB'),
    'RGBa': with_alpha('RGB').convert('RGBa'),
    'RGBX': COLORS.convert('RGBX'),
    'CMYK': COLORS.convert('CMYK'),
    'YCbCr': COLORS.convert('YCbCr'),
    'LAB': COLORS.convert('LAB'),
    'HSV': COLORS.convert('HSV'),
    'I': Image.fromarray(DEEP.astype(np.int32)),
    'I;16': deep(''),
    'I;16L': deep('L'),
    'I;16B': deep('B'),
    'F': Image.fromarray(DEEP.astype(np.float32) / 65535),
    'F with gaps': Image.fromarray(np.where(DEEP > 9000, DEEP, np.nan).astype(np.float32)),
}


def plainly(picture):
    """The whole picture at once, with floats, as the rule is written."""
    deep, alpha = picture.mode.startswith(('I', 'F')), None
    if deep:
        values = np.nan_to_num(np.asarray(picture).astype(np.float64))
        tops = (65535,) if picture.mode.startswith('I;16') else (255, 65535)
        tops = (1, *tops) if picture.mode == 'F' else tops
        top = next(top for top in tops if values.max() <= top)
        levels = np.rint(values / top * 255)
        colors = np.stack([levels] * 3, -1)
        if 'transparency' in picture.info:
            alpha = np.where(values == picture.info['transparency'], 0.0, 255.0)
    else:
        picture = picture.convert({'La': 'LA', 'RGBa': 'RGBA'}.get(picture.mode, picture.mode))
        if picture.has_transparency_data:
            picture = picture.convert('RGBA')
            alpha = np.asarray(picture)[..., 3].astype(np.float64)
        colors = np.asarray(picture.convert('RGB')).astype(np.float64)
    if alpha is None:
        return colors
    grey = np.asarray(Image.fromarray(colors.astype(np.uint8)).convert('L'), np.float64)
    ground = 255 if (grey * alpha).sum() <= 127 * alpha.sum() else 0
    return colors * alpha[..., None] / 255 + ground * (1 - alpha[..., None] / 255)


@pytest.mark.parametrize('strip', [7 * 60 + 3, 1 << 20])
@pytest.mark.parametrize('mode', MODES)
def test_every_mode_of_pillow(mode, strip, monkeypatch):
    """In strips of seven rows, and whole."""
    monkeypatch.setattr(conversion, '_STRIP', strip)
    found = conversion.to_rgb(MODES[mode].copy())
    assert (found.shape, found.dtype) == ((44, 60, 3), np.uint8)
    assert np.abs(found - plainly(MODES[mode])).max() <= 1
    np.testing.assert_array_equal(conversion.to_mode(MODES[mode].copy(), 'RGB'), found)
    grey = Image.fromarray(found).convert('L')
    difference = np.asarray(conversion.to_mode(MODES[mode].copy(), 'L'), int) - np.asarray(grey)
    assert np.abs(difference).max() <= 1


def test_no_mode_is_forgotten():
    of_other_names = {'I;16N'}  # the byte order of the machine
    assert {mode.split()[0] for mode in MODES} >= set(Image.MODES) - of_other_names


def png(kind, depth, rows, transparent=None, palette_=None):
    """The file of a PNG of any depth; rows are the bytes of each row."""
    height, width = len(rows), {16: 2, 8: 1}.get(depth, 1)
    width = len(rows[0]) * (8 if depth < 8 else 1) // (depth if depth < 8 else width)
    width //= {2: 3, 6: 4, 4: 2}.get(kind, 1)
    data = zlib.compress(b''.join(b'\0' + row for row in rows))
    parts = [chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0))]
    parts += [chunk(b'PLTE', palette_)] if palette_ else []
    parts += [chunk(b'tRNS', transparent)] if transparent else []
    return b'\x89PNG\r\n\x1a\n' + b''.join((*parts, chunk(b'IDAT', data), chunk(b'IEND', b'')))


WHITE, INK = 65535, 9000
SHEET = np.full((40, 48), WHITE, np.uint16)
SHEET[8:32, 8:24] = INK


def bits(levels, depth):
    """The rows of a grey PNG of 1, 2 or 4 bits."""
    per = 8 // depth
    shifts = np.arange(per)[::-1] * depth
    return [(row.reshape(-1, per) << shifts).sum(1).astype(np.uint8).tobytes() for row in levels]


SMALL = (SHEET == WHITE).astype(np.uint8)
TRANSPARENT = {  # a dark block on transparent white; what shows it is white ground
    'grey, 16 bits': png(0, 16, [r.astype('>u2').tobytes() for r in SHEET], b'\xff\xff'),
    'grey, 8 bits': png(0, 8, [(r >> 8).astype(np.uint8).tobytes() for r in SHEET], b'\0\xff'),
    'grey, 4 bits': png(0, 4, bits(SMALL * 13 + 2, 4), b'\0\x0f'),
    'grey, 2 bits': png(0, 2, bits(SMALL * 3, 2), b'\0\x03'),
    'grey, 1 bit': png(0, 1, bits(SMALL, 1), b'\0\x01'),
    'RGB, 8 bits': png(
        2, 8, [np.repeat((r >> 8).astype(np.uint8), 3).tobytes() for r in SHEET], b'\0\xff' * 3
    ),
    'RGB, 16 bits': png(
        2, 16, [np.repeat(r.astype('>u2'), 3).tobytes() for r in SHEET], b'\xff\xff' * 3
    ),
    'palette': png(3, 8, [r.tobytes() for r in SMALL], b'\xff\0', b'\x20\x20\x20\xff\xff\xff'),
}


@pytest.mark.parametrize('name', TRANSPARENT)
def test_a_transparent_color_shows_what_is_below_it(name):
    """Dark ink on transparent paper is laid on white."""
    found = decoding.decode(TRANSPARENT[name])
    assert (found[0, 0] == 255).all()
    assert (found[20, 12] < 60).all()
    with Image.open(io.BytesIO(TRANSPARENT[name])) as picture:
        assert picture.has_transparency_data


def test_the_transparent_color_is_not_seen_where_the_rest_is_bright():
    """Bright ink on transparent black paper: without the transparency it would be the same."""
    sheet = np.where(SHEET == WHITE, 12000, 60000)  # paper of a dark grey, which is transparent
    rows = [row.astype('>u2').tobytes() for row in sheet]
    found = decoding.decode(png(0, 16, rows, (12000).to_bytes(2)))
    assert (found[0, 0] == 0).all()
    assert (found[20, 12] == round(60000 / 65535 * 255)).all()


FILES = {
    **{f'tRNS, {name}': data for name, data in TRANSPARENT.items()},
    'palette, half': png(3, 8, [r.tobytes() for r in SMALL], b'\xff\x80', bytes(3) + b'\xff' * 3),
    'LA, 16 bits': png(
        4, 16, [np.stack([r, WHITE - r], -1).astype('>u2').tobytes() for r in SHEET]
    ),
    'grey, 16 bits': png(0, 16, [r.astype('>u2').tobytes() for r in SHEET // 5]),
}
WRITABLE = ('1', 'L', 'LA', 'P', 'P transparent', 'RGB', 'RGBA', 'I;16')
TIFFS = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'LAB', 'I', 'I;16', 'F')


def written():
    """Every file that a mode can be stored in."""
    yield from FILES.items()
    for form, modes in {'PNG': WRITABLE, 'TIFF': (*TIFFS, 'I;16B', 'F with gaps')}.items():
        for mode in modes:
            file = io.BytesIO()
            MODES[mode].save(file, form)
            yield f'{mode}.{form}', file.getvalue()


ALL = dict(written())


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(ALL)), shorter_side=st.integers(8, 50))
def test_stored_at_any_size_is_the_decoded_original_resized(name, shorter_side):
    """As JPEG of quality 95."""
    original = Image.fromarray(decoding.decode(ALL[name]))
    checked = picture_check.check(ALL[name], shorter_side)
    assert not checked.fault
    small = decoding.decode(checked.data)
    if min(original.size) <= shorter_side:
        assert checked.data == ALL[name]
        return
    file = io.BytesIO()
    wanted = original.resize(small.shape[1::-1], Image.Resampling.BICUBIC)
    wanted.save(file, 'JPEG', quality=95, subsampling='4:2:0')
    difference = np.abs(small.astype(int) - decoding.decode(file.getvalue()))
    assert difference.max() <= 12  # a grey picture is stored as such
    assert difference.mean() <= 1


@pytest.mark.parametrize('name', sorted(ALL))
def test_predict_sees_what_is_decoded(tmp_path, name):
    (tmp_path / 'picture').write_bytes(ALL[name])
    pixels = decoding.decode(ALL[name])
    found = images.read_image(tmp_path / 'picture', *pixels.shape)
    np.testing.assert_array_equal(found, pixels)
