"""The one door by which pictures are opened: formats of ours, no other programs, no pipes."""

import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from data_sources import decoding, images, picture_files, png
from data_sources.label_maps import LabelMap
from errors import UserError
from preparation import picture_check
from tests.conftest import ROOT

EPS = (
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n'
    b'0 0 28 28 rectfill\nshowpage\n%%EOF\n'
)


def test_pictures_are_opened_in_one_module_only():
    """Contestants of benchmarks are other people's ways, and tests look at what was written."""
    opens = re.compile(r'\bImage\.open\(|\bimread\(|fromPath|ImageFile\.Parser')
    found = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob('*.py')
        if not {'tests', 'contestants'} & set(path.relative_to(ROOT).parts)
        and not path.relative_to(ROOT).parts[0].startswith('.')
        and opens.search(path.read_text())
    ]
    assert found == ['data_sources/picture_files.py']


class Feature:
    """A tfds feature of one encoded picture."""

    def __init__(self, encoded):
        self.bytes_list = type('Bytes', (), {'value': [encoded]})


DOORS = {
    'predict': lambda path: images.read_image(path, 28, 28, 1),
    'streamed': lambda path: decoding.decode(path.read_bytes()),
    'in memory': lambda path: png.decode_many([path.read_bytes()], (28, 28, 1)),
    'label map': lambda path: LabelMap().decoded(Feature(path.read_bytes())),
}


@pytest.mark.parametrize('door', DOORS)
def test_no_door_starts_ghostscript(tmp_path, monkeypatch, door):
    started = []
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: started.append(a))
    path = tmp_path / 'seven.png'
    path.write_bytes(EPS)
    with pytest.raises(Exception, match='not a picture'):
        DOORS[door](path)
    assert picture_check.check(EPS).fault == 'not a picture'
    assert not started


@pytest.mark.parametrize('suffix', ['.jpe', '.jfif', '.JPG'])
def test_a_jpeg_has_many_names(tmp_path, suffix):
    Image.new('L', (28, 28), 7).save(tmp_path / 'a.jpg')
    shutil.move(tmp_path / 'a.jpg', tmp_path / f'b{suffix}')
    assert images.list_images([tmp_path]) == [tmp_path / f'b{suffix}']
    assert (images.read_image(tmp_path / f'b{suffix}', 28, 28, 1) == 7).all()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    with pytest.raises(UserError, match=r'pipe\.png cannot be read as a picture: it is a pipe'):
        images.read_image(tmp_path / 'pipe.png', 28, 28, 1)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path):
    with (tmp_path / 'a.png').open('wb') as file:
        file.truncate(picture_files.MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(UserError, match='more than 256 MiB'):
        images.read_image(tmp_path / 'a.png', 28, 28, 1)


def test_avif_is_a_format_like_others():
    if 'AVIF' not in Image.OPEN:
        pytest.skip('this Pillow was built without AVIF')
    file = io.BytesIO()
    Image.new('RGB', (32, 24), (200, 30, 10)).save(file, 'AVIF')
    assert np.abs(decoding.decode(file.getvalue()) - np.array([200, 30, 10])).max() < 8
    assert picture_check.check(file.getvalue()).kinds == ('AVIF',)


def test_heic_without_its_decoder_names_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.delitem(Image.OPEN, 'HEIF', raising=False)
    monkeypatch.setattr(picture_files, '_FORMATS', ('JPEG', 'PNG'))
    heic = bytes(3) + b'\x18ftypheic' + bytes(4) + b'mif1heic' + bytes(64)
    assert 'pip install -r requirements-heif.txt' in picture_check.check(heic).fault
    (tmp_path / 'IMG_1.HEIC').write_bytes(heic)
    [path] = images.list_images([Path(tmp_path)])
    with pytest.raises(UserError, match=r'pip install -r requirements-heif\.txt'):
        images.read_image(path, 28, 28, 1)
