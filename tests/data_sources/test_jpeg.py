"""Half a JPEG is a defect in every place that decodes one; what libjpeg-turbo completes is none."""

import base64
import io
import random

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_sources import decoding, images, jpeg, region_decoder
from errors import UserError
from preparation import picture_check
from tests.data_sources.test_decoding import by_pillow, encode, photograph
from tests.support import most_slow
from tests.support_pictures import imagenet_files

END = b'\xff\xd9'
# Made by libjpeg-turbo 3.1: 16x12 pixels, grey = 8x + 5y; of the others the colors are grey,
# 255 - grey and grey / 2.
LOSSLESS_GREY = base64.b64decode(
    '/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAMABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABAMI/9oACAEBAAEA'
    'AM/oQhCEIQhCEIQiqEIQhCEIQhCEIqhCEIQhCEIQhCKoQhCEIQhCEIQiqEIQhCEIQhCEIqhCEIQhCEIQhCKoQhCE'
    'IQhCEIQiqEIQhCEIQhCEIqhCEIQhCEIQhCKoQhCEIQhCEIQiqEIQhCEIQhCEIqhCEIQhCEIQhCP/2Q=='
)
LOSSLESS = base64.b64decode(
    '/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgADAAQA1IRAEcRAEIRAP/EABgAAQEBAQEAAAAAAAAAAAAAAAQDAggH/9oA'
    'DANSAEcAQgABAADn/wB/5/QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZaQeiD0QeiD0QeiD0QeiD0QeiD0Q'
    'eiD0QeiD0QelZbQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZaQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD'
    '0QelZbQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZaQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZbQe'
    'iD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZaQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZbQeiD0QeiD0'
    'QeiD0QeiD0QeiD0QeiD0QeiD0QelZaQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QelZbQeiD0QeiD0QeiD0Qei'
    'D0QeiD0QeiD0QeiD0QelZaQeiD0QeiD0QeiD0QeiD0QeiD0QeiD0QeiD0Qen/9k='
)
ARITHMETIC = base64.b64decode(
    '/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJ'
    'BwYGCAsICQoKCgoKBggLDAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK'
    'CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/yQARCAAMABADAREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIR'
    'AxEAPwDSZHAZph2BfsZ2BNCWfIO6wC2o9OyuIyj4l93Y8dV+eS0atRgvbYutsLnJUbN78tKJzJVdpXU02j3Puum6'
    'WAI/QXQ9gUzKSNCMwP/Z'
)

Y, X = np.mgrid[:12, :16]
GREY = (8 * X + 5 * Y).astype(np.uint8)
COLORS = np.stack([GREY, 255 - GREY, GREY // 2], -1)
PHOTO = photograph(200, 300, seed=3)
NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
KINDS = {
    'baseline': encode(PHOTO, quality=90),
    'noise': encode(NOISE, quality=95),
    '4:4:4': encode(PHOTO, quality=95, subsampling=0, optimize=True),
    'progressive': encode(PHOTO, progressive=True),
    'grey': encode(PHOTO, mode='L'),
    'grey progressive': encode(PHOTO, mode='L', progressive=True),
    'CMYK': encode(PHOTO, mode='CMYK'),
    'restart markers': encode(PHOTO, quality=90, restart_marker_rows=1),
    'lossless': LOSSLESS,
    'lossless grey': LOSSLESS_GREY,
}
FILLS = {
    'cut': lambda part, left: part,
    'closed': lambda part, left: part + END,
    'zeros': lambda part, left: part + bytes(left),
    'zeros, closed': lambda part, left: part + bytes(left) + END,
    'ones': lambda part, left: part + b'\xff' * left,
    'spaces, closed': lambda part, left: part + b' ' * left + END,
    'restarts': lambda part, left: (
        part + b''.join(bytes((0xFF, 0xD0 + n % 8)) for n in range(left))
    ),
}


@pytest.fixture(params=['with libjpeg-turbo 3', 'without'])
def decoders(request, monkeypatch):
    """Runs the test as where there is such a library, and as where there is none."""
    if request.param == 'without':
        monkeypatch.setattr(region_decoder, '_library', lambda: None)


def refused_everywhere(encoded, path):
    path.write_bytes(encoded)
    with pytest.raises(decoding.DecodeError, match='truncated'):
        decoding.decode(encoded)
    with pytest.raises(UserError, match='truncated'):
        images.read_image(path, 28, 28, 1)
    for shorter_side in (None, 9):
        assert 'truncated' in picture_check.check(encoded, shorter_side).fault


@pytest.mark.parametrize('fill', most_slow(FILLS, ['cut', 'closed', 'zeros']))
@pytest.mark.parametrize('kind', most_slow(KINDS, ['noise', 'progressive', 'CMYK', 'lossless']))
def test_half_a_jpeg_is_a_defect(tmp_path, decoders, kind, fill):
    whole = KINDS[kind]
    for share in (0.5, 0.85):
        part = whole[: int(share * len(whole))]
        if kind.startswith('lossless') and fill not in ('cut', 'closed'):
            continue  # nine bytes of a fill are enough for so small a picture
        refused_everywhere(FILLS[fill](part, len(whole) - len(part)), tmp_path / 'a.jpg')


@pytest.mark.parametrize('kind', most_slow(KINDS, ['4:4:4', 'progressive', 'CMYK', 'lossless']))
def test_only_the_end_is_missing(tmp_path, decoders, kind):
    whole, path = KINDS[kind], tmp_path / 'a.jpg'
    path.write_bytes(whole)
    pixels, read = decoding.decode(whole), images.read_image(path, 9, 9, 3)
    small = picture_check.check(whole, 9).data
    for encoded in (whole[:-2], whole[:-1], whole[:-2] + bytes(2)):
        assert picture_check.check(encoded).data == encoded
        assert picture_check.check(encoded, 9).data == small
        np.testing.assert_array_equal(decoding.decode(encoded), pixels)
        path.write_bytes(encoded)
        np.testing.assert_array_equal(images.read_image(path, 9, 9, 3), read)


def odd(whole):
    """Sound files with what real ones have: libjpeg-turbo warns of all but the first two."""
    sof = whole.index(b'\xff\xc0')
    scan = whole.index(b'\xff\xda')
    yield whole + bytes(500)
    yield whole + b'junk'
    yield whole[:-2] + bytes(300) + END
    yield whole[:-2] + b'\xff' * 300 + END
    yield whole[:sof] + b'abc' + whole[sof:]
    yield whole.replace(b'JFIF\0\1', b'JFIF\0\5')
    yield whole[: scan + 11] + bytes(3) + whole[scan + 14 :]


@pytest.mark.parametrize('kind', ['baseline', '4:4:4', 'restart markers'])
def test_harmless_oddities_stay_harmless(decoders, kind):
    for encoded in odd(KINDS[kind]):
        assert picture_check.check(encoded).fault == ''
        np.testing.assert_array_equal(decoding.decode(encoded), by_pillow(KINDS[kind]))


def test_a_sheet_whose_code_is_nothing_but_zeros_is_sound(decoders):
    """Optimized tables code an even picture by zeros, which look like a filling."""
    encoded = encode(np.full((400, 500, 3), 255, np.uint8), mode='L', optimize=True)
    assert bytes(200) in encoded
    assert picture_check.check(encoded).fault == picture_check.check(encoded[:-2]).fault == ''
    assert (decoding.decode(encoded) == 255).all()


def test_a_progressive_jpeg_that_ends_between_two_scans_lacks_the_others(tmp_path, decoders):
    whole = KINDS['progressive']
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b'\xff\xda']
    assert len(scans) > 5
    for scan in scans[1:]:
        refused_everywhere(whole[:scan] + END, tmp_path / 'a.jpg')


def test_real_pictures_cut_anywhere_are_judged_as_libjpeg_turbo_does(decoders):
    """libjpeg-turbo's own word, of the file closed by an end marker."""
    rng, found = random.Random(0), 0
    for path in imagenet_files()[::8]:
        whole = path.read_bytes()
        for cut in (len(whole) - 3, len(whole) - 9, rng.randrange(2000, len(whole))):
            part = whole[:cut] + END
            try:
                simplejpeg.decode_jpeg(part, strict=True)
                says = ''
            except ValueError as error:
                says = str(error)
            lacks = 'premature end' in says
            assert bool(picture_check.check(part).fault) == lacks
            assert jpeg.lacks_data(part) == lacks
            found += lacks
    assert found > 50


def test_a_part_above_the_cut_is_decoded_or_refused_but_never_grey(decoders):
    half = KINDS['baseline'][: len(KINDS['baseline']) // 2] + END
    frame, whole = decoding.read_frame(half), by_pillow(KINDS['baseline'])
    try:
        found = decoding.decode_box(half, frame, decoding.Box(0, 0, 8, 300))
    except decoding.DecodeError:
        pass
    else:
        np.testing.assert_array_equal(found, whole[:8])
    with pytest.raises(decoding.DecodeError):
        decoding.decode_box(half, frame, decoding.Box(192, 0, 8, 8))
    with pytest.raises(decoding.DecodeError):
        decoding.decode_box(half, frame, decoding.Box(160, 0, 40, 40), 4)


@pytest.mark.parametrize('encoded', [LOSSLESS, LOSSLESS_GREY, ARITHMETIC])
def test_what_pillow_decodes_is_sound(encoded):
    """Frames that simplejpeg does not read or that crash it when it scales them."""
    checked = picture_check.check(encoded)
    assert (checked.fault, checked.data) == ('', encoded)
    pixels = by_pillow(encoded)
    np.testing.assert_array_equal(decoding.decode(encoded), pixels)
    frame = decoding.read_frame(encoded)
    half = np.asarray(Image.fromarray(pixels).reduce(2))
    found = decoding.decode_box(encoded, frame, decoding.Box(0, 0, 12, 16), 2)
    np.testing.assert_array_equal(found, half)
    with Image.open(io.BytesIO(picture_check.check(encoded, 8).data)) as small:
        assert min(small.size) == 8
    if encoded == LOSSLESS:
        np.testing.assert_array_equal(pixels, COLORS)
    if encoded == LOSSLESS_GREY:
        np.testing.assert_array_equal(pixels[..., 0], GREY)


def test_twelve_bits_are_named():
    encoded = bytearray(KINDS['baseline'])
    encoded[encoded.index(b'\xff\xc0') + 4] = 12
    assert '12 bits' in picture_check.check(bytes(encoded)).fault
    with pytest.raises(decoding.DecodeError, match='12 bits'):
        decoding.decode(bytes(encoded))


def test_a_hidden_frame_header_does_not_lead_simplejpeg_astray():
    """A marker without a length shifts what a careless reader takes for segments.

    Scaled down, a lossless JPEG makes simplejpeg write beyond its buffer.
    """
    baseline = KINDS['baseline']
    frame = baseline[baseline.index(b'\xff\xc0') :][:19]
    # A reader that takes the next marker for the length of RST0 arrives at the frame inside APP5.
    inside = bytes(0xFFE5 - 4) + frame
    decoy = b'\xff\xd0\xff\xe5' + (len(inside) + 2).to_bytes(2) + inside
    encoded = LOSSLESS[:2] + decoy + LOSSLESS[2:]
    assert decoding.read_frame(encoded)[:4] == (12, 16, 3, 0)
    np.testing.assert_array_equal(decoding.decode(encoded), COLORS)
