"""Sets say whether their pictures are turned upright, and what reads them does as told."""

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image

import input_pipeline
import predict
from data_sources import orientation
from tests.data_sources.test_decoding import photograph
from tests.support import train_here, write_config
from tests.test_streams import config as streamed
from tools import prepare_data

CLASSES, EACH = ('coast', 'forest'), 10


def stored(pixels, number):
    """A PNG of the upright pixels as a camera that was held so would have stored it."""
    inverse = {6: 8, 8: 6}.get(number, number)
    exif = Image.Exif()
    exif[0x0112] = number
    turned = np.ascontiguousarray(orientation.turned_pixels(pixels, inverse))
    file = io.BytesIO()
    options = {'exif': exif} if number else {}
    Image.fromarray(turned).save(file, 'PNG', **options)
    return file.getvalue()


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    """The same pictures as sets "plain", and "turned", which are stored in all orientations."""
    folder = tmp_path_factory.mktemp('sets')
    for name in ('plain', 'turned'):
        for label, number in itertools.product(CLASSES, range(EACH)):
            path = folder / 'source' / name / label / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = photograph(40, 56, seed=number + len(label))
            path.write_bytes(stored(pixels, number % 8 + 1 if name == 'turned' else 0))
        source = f'--source={folder / "source" / name}'
        for more in ([], ['--shorter_side=24']):
            command = ['folder', f'--name={name}', source, f'--data_dir={folder}', *more]
            assert prepare_data.main(command) == 0
    return folder


def pictures(folder, name):
    """The first training batch and the validation split of a set."""
    settings = streamed(folder, name=name, batch_size=8)
    for split in ('train', 'validation'):
        yield next(input_pipeline.batches(settings, split))['image']


def encoded(folder, name):
    settings = streamed(folder, name=name)
    source = input_pipeline.open_split(settings, 'train')
    return [record.image for record in source.read(range(source.size))]


@pytest.mark.parametrize('size', ['', '_24'])
def test_pictures_stand_upright_however_they_are_stored(sets, size):
    for found, wanted in zip(
        pictures(sets, f'turned{size}'), pictures(sets, f'plain{size}'), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_stored_originals_keep_their_bytes_and_smaller_ones_are_upright(sets):
    originals = {path.read_bytes() for path in (sets / 'source' / 'turned').rglob('*.png')}
    assert set(encoded(sets, 'turned')) <= originals
    assert encoded(sets, 'turned_24') == encoded(sets, 'plain_24')


def test_a_set_that_does_not_say_so_stays_as_it_was(sets, tmp_path):
    """As those that were prepared before, and imagenet2012."""
    (tmp_path / 'turned').symlink_to(sets / 'turned')
    wanted = next(pictures(tmp_path, 'turned'))
    (tmp_path / 'turned').unlink()
    folder = tmp_path / 'turned' / '1.0.0'
    folder.mkdir(parents=True)
    for path in (sets / 'turned' / '1.0.0').iterdir():
        (folder / path.name).symlink_to(path)
    stated = json.loads((folder / 'metadata.json').read_text())
    assert stated.pop('upright') is True
    (folder / 'metadata.json').unlink()
    (folder / 'metadata.json').write_text(json.dumps(stated))
    found = next(pictures(tmp_path, 'turned'))
    assert not np.array_equal(found, wanted)
    settings = streamed(tmp_path, name='turned', batch_size=8)
    assert not input_pipeline.open_split(settings, 'train').upright


def test_imagenet_does_not_say_so(imagenet_set):
    stated = json.loads((imagenet_set / 'imagenet2012' / '5.1.0' / 'metadata.json').read_text())
    assert not stated['upright']


@pytest.mark.slow
def test_predict_does_what_the_network_was_trained_with(sets, tmp_path, capsys):
    """On a copy of the run, too, where the set is not."""
    run = tmp_path / 'run'
    config = write_config(
        tmp_path,
        data__name='turned',
        data__dir=str(sets),
        data__image_size=32,
        model__name='lenet',
        batch_size=8,
        steps=4,
    )
    assert train_here(config, run) == 0
    assert json.loads((run / 'data.json').read_text())['upright'] is True

    def answers(name):
        folder = sets / 'source' / name / 'coast'
        capsys.readouterr()
        assert predict.main([f'--workdir={run}', str(folder), '--json']) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return [line['top'] for line in lines]

    assert answers('turned') == answers('plain')
    facts = json.loads((run / 'data.json').read_text())
    (run / 'data.json').write_text(json.dumps({**facts, 'upright': False}))
    assert answers('turned') != answers('plain')
