"""Conversion of TFRecord sets; the files are written by a slow, independent implementation."""

import json
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_sources import arrays
from errors import UserError
from preparation import sharded_writer, tfds_writer, tfrecord
from preparation.tfrecord import TfrecordSet
from tests.data_sources.test_tfds_sets import CLASSES, make_set
from tools import prepare_data


def slow_crc32c(data):
    """Bit by bit: polynomial 0x1EDC6F41, reflected (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_slow_checksum_is_the_published_one():
    assert slow_crc32c(b'123456789') == 0xE3069283
    assert slow_crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


def masked(data):
    crc = slow_crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def write_tfrecord(path, records):
    with path.open('wb') as file:
        for record in records:
            length = len(record).to_bytes(8, 'little')
            file.write(length + masked(length).to_bytes(4, 'little'))
            file.write(record + masked(record).to_bytes(4, 'little'))


LENGTHS = {'train': [7, 12, 1], 'test': [5]}


@pytest.fixture
def source(tmp_path):
    """The version folder of a set in TFRecord files, made from an ArrayRecord set of tfds."""
    image_set = make_set(train=20, test=5)
    tfds_writer.prepare(image_set, tmp_path / 'made')
    made = tmp_path / 'made' / 'tiny' / '1.0.0'
    builder = tfds.builder_from_directory(made)
    folder = tmp_path / 'old' / 'tiny' / '1.0.0'
    folder.mkdir(parents=True)
    info = json.loads((made / 'dataset_info.json').read_text())
    info['fileFormat'] = 'tfrecord'
    for split in info['splits']:
        split['shardLengths'] = [str(length) for length in LENGTHS[split['name']]]
        records = iter(
            builder.as_data_source(
                split['name'], deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        )
        for number, length in enumerate(LENGTHS[split['name']]):
            count = len(LENGTHS[split['name']])
            name = f'tiny-{split["name"]}.tfrecord-{number:05d}-of-{count:05d}'
            write_tfrecord(folder / name, [next(records) for _ in range(length)])
    (folder / 'dataset_info.json').write_text(json.dumps(info))
    for name in ('features.json', 'label.labels.txt'):
        (folder / name).write_text((made / name).read_text())
    return folder


def test_the_same_examples_shard_by_shard(tmp_path, source):
    assert sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')
    folder = tmp_path / 'data' / 'tiny' / '1.0.0'
    old = json.loads((source / 'dataset_info.json').read_text())
    new = json.loads((folder / 'dataset_info.json').read_text())
    assert new == {**old, 'fileFormat': 'array_record'}
    builder = tfds.builder_from_directory(folder)
    assert builder.info.features['label'].names == list(CLASSES)
    for split, (images, labels) in make_set(train=20, test=5).examples.items():
        assert builder.info.splits[split].shard_lengths == LENGTHS[split]
        stored = builder.as_data_source(split)
        raw = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        files = sorted(source.glob(f'tiny-{split}*'))
        records = [record for path in files for record in tfrecord.read_records(path)]
        assert [raw[index] for index in range(len(raw))] == records
        for example, record, image, label in zip(stored, records, images, labels, strict=True):
            assert (example['image'] == image).all()
            assert example['label'] == label
            assert tf_example_pb2.Example.FromString(record).features.feature.keys() == {
                'image',
                'label',
            }
    assert not sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')


def test_the_command(tmp_path, source, capsys):
    command = ['from_tfrecord', f'--source={source}', f'--data_dir={tmp_path}/data']
    assert prepare_data.main(command) == 0
    folder = tmp_path / 'data'
    assert capsys.readouterr().out == (
        f'tiny: prepared in {folder}/tiny (20 train, 5 test).\n'
        f'Next: train with --config.data.name=tiny --config.data.dir={folder}\n'
    )
    images, _ = make_set(train=20, test=5).examples['test']
    np.testing.assert_array_equal(arrays.load('tiny', 'test', str(folder)).images, images)
    assert prepare_data.main(command) == 0
    assert 'tiny: already prepared' in capsys.readouterr().out
    assert prepare_data.main(['from_tfrecord', f'--source={tmp_path}']) == 2
    assert 'has no dataset_info.json' in capsys.readouterr().err


def shard(source, number=1):
    return source / f'tiny-train.tfrecord-{number:05d}-of-00003'


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def second_record(path):
    return 16 + int.from_bytes(path.read_bytes()[:8], 'little')


DAMAGE = {
    'in the length': (lambda p: flip(p, second_record(p)), "the checksum of the record's length"),
    'in its checksum': (lambda p: flip(p, second_record(p) + 9), 'the checksum of the record'),
    'in the data': (lambda p: flip(p, second_record(p) + 40), 'the checksum of the record is'),
    'cut in the data': (
        lambda p: p.write_bytes(p.read_bytes()[: second_record(p) + 40]),
        'the file ends within a record',
    ),
    'cut in the header': (
        lambda p: p.write_bytes(p.read_bytes()[: second_record(p) + 5]),
        'the file ends within a record',
    ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damage_names_shard_and_offset_and_mended_it_goes_on(tmp_path, source, damage):
    whole, path = shard(source).read_bytes(), shard(source)
    offset = second_record(path)
    spoil, message = DAMAGE[damage]
    spoil(path)
    with pytest.raises(UserError) as caught:
        sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')
    assert str(caught.value).startswith(f'{path} is damaged at offset {offset}: {message}')
    assert not (tmp_path / 'data' / 'tiny' / '1.0.0').exists()
    path.write_bytes(whole)
    assert sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')


def test_a_record_of_30_gb_in_a_file_that_takes_no_room_is_refused(tmp_path):
    path, length = tmp_path / 'a.tfrecord', (30 << 30).to_bytes(8, 'little')
    path.write_bytes(length + masked(length).to_bytes(4, 'little'))
    os.truncate(path, (30 << 30) + 100)
    with pytest.raises(UserError, match='damaged at offset 0: a record of 32,212,254,720 bytes'):
        next(tfrecord.read_records(path))


@pytest.mark.parametrize('number', [0, 2])
def test_a_shard_with_another_number_of_records_is_refused(tmp_path, source, number):
    records = list(tfrecord.read_records(shard(source, 1)))
    write_tfrecord(shard(source, number), records[:5] if number == 0 else records)
    message = r'does not have the \d+ records that dataset_info.json says'
    for _ in range(2):  # a resumed run does not skip the check
        with pytest.raises(UserError, match=message):
            sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')


def test_going_on_gives_the_same_bytes(tmp_path, source, monkeypatch):
    sharded_writer.prepare(TfrecordSet(source), tmp_path / 'whole')
    read = tfrecord.read_records
    for stop in range(3):

        def stopping(path, stop=stop):
            for number, record in enumerate(read(path)):
                if path == shard(source, stop) and number == LENGTHS['train'][stop] // 2:
                    raise KeyboardInterrupt
                yield record

        with monkeypatch.context() as patch:
            patch.setattr(tfrecord, 'read_records', stopping)
            with pytest.raises(KeyboardInterrupt):
                sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')
    assert sharded_writer.prepare(TfrecordSet(source), tmp_path / 'data')
    for path in (tmp_path / 'whole' / 'tiny' / '1.0.0').iterdir():
        assert (tmp_path / 'data' / 'tiny' / '1.0.0' / path.name).read_bytes() == path.read_bytes()


def change_info(**changes):
    def change(source):
        path = source / 'dataset_info.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def drop_lengths(source):
    path = source / 'dataset_info.json'
    info = json.loads(path.read_text())
    del info['splits'][0]['shardLengths']
    path.write_text(json.dumps(info))


REFUSED = {
    'no info': (lambda s: (s / 'dataset_info.json').unlink(), 'has no dataset_info.json: --source'),
    'no features': (lambda s: (s / 'features.json').unlink(), 'has no features.json: --source'),
    'garbled info': (lambda s: (s / 'dataset_info.json').write_text('{'), 'is not the description'),
    'a list': (lambda s: (s / 'dataset_info.json').write_text('[]'), 'is not the description'),
    'bad name': (change_info(name='../up'), 'is not the description'),
    'long name': (change_info(name='a' * 5000), 'is not the description'),
    'bad split': (
        change_info(splits=[{'name': '../../up', 'shardLengths': ['1']}]),
        'is not the description',
    ),
    'other digits': (change_info(version='\u0661.0.0'), 'is not the description'),
    'bad lengths': (
        change_info(splits=[{'name': 'train', 'shardLengths': ['1', '-3']}]),
        'does not have the length of every shard of train',
    ),
    'bad version': (change_info(version='1.0/../..'), 'is not the description'),
    'format': (
        change_info(fileFormat='riegeli'),
        'is stored as riegeli: only tfrecord can be converted',
    ),
    'configuration': (change_info(configName='big'), 'is the configuration "big" of tiny'),
    'no splits': (change_info(splits=[]), 'lists no splits: --source must be the version folder'),
    'no lengths': (drop_lengths, 'does not have the length of every shard of train'),
    'missing shard': (lambda s: shard(s).unlink(), 'tiny-train.tfrecord-00001-of-00003 is missing'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refusals(source, case):
    spoil, message = REFUSED[case]
    spoil(source)
    with pytest.raises(UserError, match=message):
        TfrecordSet(source)


def test_the_source_itself_is_left_alone(source):
    before = {path: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(UserError, match='Choose another --data_dir'):
        sharded_writer.prepare(TfrecordSet(source), source.parents[1])
    assert {path: path.read_bytes() for path in source.iterdir()} == before
