"""predict.py on photos of handwriting, and what it writes for people to look at."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import command
import predict
from data_sources import digits, handwriting, images
from tests.data_sources import photographed


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(photographed.photo('all of them', 'felt tip', 5)).save(path)
    return path


def small(path):
    """The image that --save_inputs has enlarged."""
    return np.asarray(Image.open(path))[4::8, 4::8]


def test_save_inputs_shows_photos_as_the_network_gets_them(small_run, photo, tmp_path, capsys):
    own = tmp_path / 'own.png'
    Image.fromarray(digits.load('test').images[0, ..., 0]).save(own)
    blank = tmp_path / 'blank.png'
    Image.new('L', (90, 60), 255).save(blank)
    argv = [f'--workdir={small_run}', str(photo), str(blank), str(own)]
    folder = tmp_path / 'seen'
    assert command.call(predict.main, [*argv, f'--save_inputs={folder}']) == 2
    said = capsys.readouterr()
    assert [line.split(':')[0] for line in said.out.splitlines()] == [str(photo), str(own)]
    assert f'error: {blank} shows no ink' in said.err
    written = sorted(path.name for path in folder.iterdir())
    assert written == ['0001_photo.png', '0003_own.png']
    expected = handwriting.read(photo, 28, 28, 'auto', 'digits')[..., 0]
    np.testing.assert_array_equal(small(folder / written[0]), expected)
    np.testing.assert_array_equal(small(folder / written[1]), np.asarray(Image.open(own)))

    before = (folder / written[0]).read_bytes()
    assert command.call(predict.main, [*argv, f'--save_inputs={folder}']) == 2
    assert 'is not an empty folder: choose another one' in capsys.readouterr().err
    assert (folder / written[0]).read_bytes() == before


def test_a_set_that_is_no_handwriting_gets_its_pictures_as_ever(small_run, photo, tmp_path):
    other = shutil.copytree(small_run, tmp_path / 'run')
    facts = json.loads((other / 'data.json').read_text())
    assert facts['handwriting'] is True
    (other / 'data.json').write_text(json.dumps(facts | {'handwriting': False}))
    folder = tmp_path / 'seen'
    argv = [f'--workdir={other}', str(photo), f'--save_inputs={folder}']
    assert command.call(predict.main, argv) == 0
    expected = images.read_image(photo, 28, 28, 1)[..., 0]
    np.testing.assert_array_equal(small(folder / '0001_photo.png'), expected)


def test_a_workdir_that_does_not_say_goes_by_the_name_of_its_set(small_run, photo, tmp_path):
    older = shutil.copytree(small_run, tmp_path / 'run')
    facts = json.loads((older / 'data.json').read_text())
    del facts['handwriting']
    (older / 'data.json').write_text(json.dumps(facts))
    folder = tmp_path / 'seen'
    argv = [f'--workdir={older}', str(photo), f'--save_inputs={folder}']
    assert command.call(predict.main, argv) == 0
    expected = handwriting.read(photo, 28, 28, 'auto', 'digits')[..., 0]
    np.testing.assert_array_equal(small(folder / '0001_photo.png'), expected)
