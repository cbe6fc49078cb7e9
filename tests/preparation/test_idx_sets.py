"""Sets in idx files: labels that start at 1, EMNIST's transposed pictures, mean and std."""

import gzip
import re
import string

import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import base, schema
from data_sources import arrays, tfds_sets
from tests.preparation.test_idx import idx_bytes
from tools import prepare_data


def write(folder, stem='', low=0, high=9, test_low=None, train=260, test=52):
    """Writes idx files of random pictures with labels low..high; returns {split: pictures}."""
    folder.mkdir()
    pictures = {}
    for split, count, first in (('train', train, low), ('test', test, test_low or low)):
        rng = np.random.default_rng(count)
        labels = (np.arange(count) % (high + 1 - first) + first).astype(np.uint8)
        pictures[split] = rng.integers(0, 200, (count, 8, 8), np.uint8)
        parts = {'images-idx3': pictures[split], 'labels-idx1': labels}
        for kind, values in parts.items():
            path = folder / f'{stem}{split}-{kind}-ubyte.gz'
            path.write_bytes(gzip.compress(idx_bytes(values), 1))
    return pictures


@pytest.fixture
def prepare(tmp_path, capsys):
    """A function that prepares the files in `source`; returns (train, test, what was printed)."""

    def run(*options):
        data = tmp_path / 'data'
        command = ['idx', '--name=own', f'--source={tmp_path}/source', f'--data_dir={data}']
        assert prepare_data.main([*command, *options]) == 0
        stored = tfds_sets.read_stored(data / 'own' / '1.0.0', 'own')
        return stored['train'], stored['test'], capsys.readouterr().out

    return run


NAMES = f'--class_names={",".join(string.ascii_uppercase)}'


@pytest.mark.parametrize('options', [[], [NAMES]])
def test_the_letters_of_emnist(prepare, tmp_path, options):
    pictures = write(tmp_path / 'source', 'emnist-letters-', 1, 26)
    train, test, printed = prepare(*options)
    names = string.ascii_uppercase if options else string.ascii_lowercase
    assert train.class_names == test.class_names == tuple(names)
    np.testing.assert_array_equal(train.labels, np.arange(260) % 26)
    assert f'The labels start at 1, so that label 1 is the first class, "{names[0]}".' in printed
    for split, source in (('train', train), ('test', test)):
        for picture, stored in zip(pictures[split], source.images, strict=True):
            np.testing.assert_array_equal(stored[..., 0], picture.T)
    assert (
        'EMNIST stores its pictures transposed: they are turned (--no-transpose: not).' in printed
    )
    info = tfds.builder_from_directory(tmp_path / 'data' / 'own' / '1.0.0').info
    assert dict(info.metadata) == {'first_label': 1, 'transposed': True}
    assert arrays.load('own', 'validation', str(tmp_path / 'data')).class_names == tuple(names)


@pytest.mark.parametrize(
    ('stem', 'option', 'turned'),
    [
        ('emnist-digits-', None, True),
        ('EMNIST-mnist-', None, True),
        ('emnist-digits-', '--no-transpose', False),
        ('', None, False),
        ('', '--transpose', True),
    ],
)
def test_pictures_are_turned_where_it_is_emnist_or_asked_for(
    prepare, tmp_path, stem, option, turned
):
    pictures = write(tmp_path / 'source', stem)
    train, _, printed = prepare(*([option] if option else []))
    expected = pictures['train'].transpose(0, 2, 1) if turned else pictures['train']
    np.testing.assert_array_equal(train.images[..., 0], expected)
    assert train.class_names == tuple(string.digits)
    assert ('EMNIST stores' in printed) == (turned and not option)


@pytest.mark.parametrize(
    ('stem', 'high', 'names'),
    [
        ('emnist-balanced-', 46, '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt'),
        ('emnist-bymerge-', 46, '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt'),
        ('emnist-byclass-', 61, string.digits + string.ascii_uppercase + string.ascii_lowercase),
        ('emnist-letters-', 4, '01234'),  # not the published ones
    ],
)
def test_the_characters_of_emnists_other_sets(prepare, tmp_path, stem, high, names):
    write(tmp_path / 'source', stem, 0, high, test=124)
    assert prepare()[0].class_names == tuple(names)


def test_what_systems_leave_beside_the_files_is_not_taken_for_them(prepare, tmp_path):
    write(tmp_path / 'source')
    for path in list((tmp_path / 'source').iterdir()):
        path.with_name(f'._{path.name}').write_bytes(b'Mac OS X')
    assert prepare()[0].size == 260


@pytest.mark.parametrize(
    ('names', 'expected', 'first'),
    [
        (None, '12345', 0),  # five classes, called by their labels
        ('a,b,c,d,e', 'abcde', 0),
        ('none,a,b,c,d,e', ('none', 'a', 'b', 'c', 'd', 'e'), 1),  # names from label 0 on
    ],
)
def test_labels_that_start_at_1(prepare, tmp_path, names, expected, first):
    write(tmp_path / 'source', '', 1, 5)
    train, test, printed = prepare(*([f'--class_names={names}'] if names else []))
    assert train.class_names == tuple(expected)
    for source in (train, test):
        np.testing.assert_array_equal(source.labels, np.arange(source.size) % 5 + first)
    assert ('The labels start at 1' in printed) == (not first)
    assert ('warning: no examples of 1 of 6 classes: none.' in printed) == bool(first)


def test_a_label_0_in_another_split_keeps_all_labels(prepare, tmp_path):
    """Then 0 is a class, of which train happens to have no example."""
    write(tmp_path / 'source', '', 0, 5)
    labels = (np.arange(260) % 5 + 1).astype(np.uint8)
    path = tmp_path / 'source' / 'train-labels-idx1-ubyte.gz'
    path.write_bytes(gzip.compress(idx_bytes(labels)))
    train, test, printed = prepare()
    assert train.class_names == tuple('012345')
    assert (train.labels.min(), test.labels.min()) == (1, 0)
    assert 'The labels start' not in printed
    assert re.search(r'^0 +0 +9$', printed, re.MULTILINE)


def test_gaps_and_a_single_class_are_said(prepare, tmp_path):
    write(tmp_path / 'source', '', 3, 5)
    assert 'warning: no examples of 3 of 6 classes: 0, 1, 2.' in prepare()[2]
    write(tmp_path / 'other', '', 1, 1)
    (tmp_path / 'source').rename(tmp_path / 'first')
    (tmp_path / 'other').rename(tmp_path / 'source')
    (tmp_path / 'data').rename(tmp_path / 'data_of_first')
    assert 'warning: there is a single class, "1": a classifier has nothing' in prepare()[2]


def test_mean_and_std_can_be_given_to_a_run(prepare, tmp_path):
    pixels = write(tmp_path / 'source')['train'] / 255
    printed = prepare()[2]
    options = re.findall(r"--config\.(data\.\w+)='([^']+)'", printed)
    config = base.get_config()
    schema.override(config, [f'--config.{n}={value}' for n, value in options], base.fields())
    assert config.data.mean == (round(pixels.mean(), 4),)
    assert config.data.std == (round(pixels.std(), 4),)
