"""Splits left on disk: which records they are, and what is refused before a run starts."""

import dataclasses
import shutil
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from data_sources import record_source, tfds_sets
from errors import UserError


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
def test_shuffled_is_a_permutation(size, seed):
    assert sorted(record_source.shuffled(i, size, seed) for i in range(size)) == list(range(size))


def test_shuffled_is_a_permutation_of_more_than_fit_in_a_list():
    size = 2**16 + 5
    found = [record_source.shuffled(i, size, 9) for i in range(size)]
    assert sorted(found) == list(range(size))
    # Neighbours part: a shift or a stride would correlate.
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02


def test_orders_do_not_change_between_releases():
    """Another order here means that every seeded run of the past sees other batches."""
    assert [record_source.shuffled(i, 10, 1) for i in range(10)] == [7, 2, 6, 0, 3, 1, 5, 9, 8, 4]
    assert [record_source.shuffled(i, 1_281_167, 1) for i in range(4)] == [
        191231,
        1175092,
        1180167,
        1249249,
    ]
    assert [record_source.shuffled(i, 10**9, 1) for i in range(2)] == [499965737, 278554667]


def everything(source):
    return source.read(range(source.size))


def test_records_are_what_stock_tfds_reads(digit_set):
    builder = tfds.builder_from_directory(digit_set / 'pictures' / '1.0.0')
    for split in ('train', 'validation', 'test'):
        source = record_source.load('pictures', split, str(digit_set))
        assert source.class_names == tuple('0123456789')
        decoders = {'image': tfds.decode.SkipDecoding()}
        stock = builder.as_data_source(split, decoders=decoders)
        assert source.size == len(stock)
        for ours, theirs in zip(everything(source), stock, strict=True):
            assert ours == (theirs['image'], {'label': theirs['label']})


def test_imagenets_validation_split_serves_as_test(imagenet_set):
    """What is compared with publications is read once; choices are made on a part of train."""
    stored = tfds.builder_from_directory(imagenet_set / 'imagenet2012' / '5.1.0').as_data_source(
        'train', decoders={'image': tfds.decode.SkipDecoding()}
    )
    train, validation, test = (
        record_source.load('imagenet2012', split, str(imagenet_set))
        for split in ('train', 'validation', 'test')
    )
    assert (train.size, validation.size, test.size) == (180, 20, 50)
    assert (train.stored, validation.stored, test.stored) == ('train', 'train', 'validation')
    seen = [record.image for record in (*everything(train), *everything(validation))]
    assert sorted(seen) == sorted(example['image'] for example in stored)
    # The files are in the order of the classes; the part held out is not.
    labels = [record.targets['label'] for record in everything(validation)]
    assert np.median(labels) < 900
    assert labels != sorted(labels)


def test_a_set_at_another_size_holds_out_the_same_pictures(imagenet_set):
    """A network that learned one may be fine-tuned and validated on the other."""
    source = record_source.load('imagenet2012', 'validation', str(imagenet_set))
    smaller = dataclasses.replace(source, name='imagenet2012_256')
    for example in range(source.size):
        assert smaller.stored_index(example) == source.stored_index(example)


def test_a_part_is_the_same_part_for_any_seed_of_a_run(imagenet_set):
    source = record_source.load('imagenet2012', 'validation', str(imagenet_set))
    order = [record_source.shuffled(i, 200, zlib.crc32(b'held out')) for i in range(200)]
    assert [source.stored_index(i) for i in range(source.size)] == order[180:]


def copied(digit_set, tmp_path):
    shutil.copytree(digit_set / 'pictures', tmp_path / 'pictures')
    return tmp_path / 'pictures' / '1.0.0'


def shard(folder, split='train'):
    return next(folder.glob(f'pictures-{split}.array_record-*'))


DAMAGE = {
    'the folder is gone': (
        lambda folder: shutil.rmtree(folder),
        'Data set "pictures" is not prepared in',
    ),
    'a shard is gone': (lambda folder: shard(folder).unlink(), 'cannot be read'),
    'a shard is empty': (lambda folder: shard(folder).write_bytes(b''), 'cannot be read'),
    'the features are gone': (
        lambda folder: (folder / 'features.json').unlink(),
        'cannot be read',
    ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damage_is_found_when_the_split_is_opened(digit_set, tmp_path, damage):
    spoil, message = DAMAGE[damage]
    spoil(copied(digit_set, tmp_path))
    with pytest.raises(UserError, match=message):
        record_source.load('pictures', 'train', str(tmp_path))


def test_a_folder_that_vanishes_later_is_named(digit_set, tmp_path):
    folder = copied(digit_set, tmp_path)
    source = record_source.load('pictures', 'train', str(tmp_path))
    record_source._open.cache_clear()
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=f'{folder} cannot be read'):
        source.read([3])


def test_a_set_in_the_format_of_tensorflow_names_the_command(digit_set, tmp_path):
    folder = copied(digit_set, tmp_path)
    info = folder / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(UserError, match=f'prepare_data from_tfrecord --source={folder}'):
        record_source.load('pictures', 'train', str(tmp_path))


def test_a_label_out_of_range_is_refused(digit_set, tmp_path):
    folder = copied(digit_set, tmp_path)
    labels = folder / 'label.labels.txt'
    labels.write_text('\n'.join('0123456'))
    features = folder / 'features.json'
    features.write_text(features.read_text().replace('"10"', '"7"'))
    source = record_source.load('pictures', 'train', str(tmp_path))
    with pytest.raises(UserError, match=r'has label 7, out of range for 7 classes'):
        everything(source)


def test_an_unlabelled_test_split_is_not_used(imagenet_set, monkeypatch):
    """tfds stores ImageNet's with label -1."""
    stored = {'train': 200, 'validation': 50, 'test': 30}
    monkeypatch.setattr(tfds_sets, 'counts', lambda builder: dict(stored))
    monkeypatch.setattr(record_source, '_is_withheld', lambda *_: True)
    assert record_source.load('imagenet2012', 'test', str(imagenet_set)).stored == 'validation'
    del stored['validation']
    with pytest.raises(UserError, match='has no "test" split, only train'):
        record_source.find('imagenet2012', 'test', str(imagenet_set))


@pytest.mark.parametrize(
    ('stored', 'places'),
    [
        (('train', 'validation', 'test'), {'train': 0, 'validation': 1, 'test': 2}),
        (('train', 'test'), {'train': 0, 'validation': 0, 'test': 1}),
        (('train', 'validation'), {'train': 0, 'validation': 0, 'test': 1}),
    ],
)
def test_which_stored_split_serves_for_what(tmp_path, stored, places):
    counts = dict.fromkeys(stored, 100)
    for split, number in places.items():
        name, start, stop = tfds_sets.locate(split, counts, tmp_path)
        assert name == stored[number]
        held_out = len(stored) == 2 and name == 'train'
        assert (start, stop) == {
            ('train', True): (0, 90),
            ('validation', True): (90, 100),
        }.get((split, held_out), (0, 100))
    with pytest.raises(UserError, match='has no "test" split, only train'):
        tfds_sets.locate('test', {'train': 5}, tmp_path)
