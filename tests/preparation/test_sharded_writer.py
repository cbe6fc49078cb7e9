"""Shards of any source: where they end, how a stopped run resumes, and what is refused."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow_datasets as tfds

import files
from errors import UserError
from preparation import sharded_writer
from preparation.sharded_writer import Item


class StoppedError(Exception):
    """Raised by a test to stop a run in the middle."""


class Numbers:
    """A source of records of many sizes; item n of a split is a function of n alone."""

    name, version, shard_bytes = 'numbers', '1.0.0', 3000

    def __init__(self, counts=None, faults=(), stop=None, stamp='once'):
        self.counts = {'train': 50, 'test': 7} if counts is None else counts
        self.splits = {split: 300 * count for split, count in self.counts.items()}
        self.faults, self.stop, self._stamp = set(faults), stop, stamp

    def identity(self):
        return {'counts': self.counts}

    def stamp(self):
        return self._stamp

    def items(self, split, cursor):
        for number in range(cursor or 0, self.counts[split]):
            if (split, number) == self.stop:
                raise StoppedError
            if number in self.faults:
                yield Item(number + 1, 300, file=f'{number}', fault='is bad')
                continue
            record = hashlib.sha256(f'{split}{number}'.encode()).digest() * (1 + number % 20)
            yield Item(number + 1, 300, record, kinds=('odd',) * (number % 2))

    def describe(self, folder, splits):
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=tfds.features.FeaturesDict({'x': tfds.features.Scalar(np.int32)}),
            split_infos=[
                tfds.core.SplitInfo(
                    name=split, shard_lengths=[s[0] for s in total.shards], num_bytes=1
                )
                for split, total in splits.items()
            ],
            version=self.version,
            check_data=False,
        )


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture
def whole(tmp_path):
    """The files that an uninterrupted run writes."""
    assert sharded_writer.prepare(Numbers(), tmp_path / 'whole')
    return tree(tmp_path / 'whole')


def records(folder, split):
    source = tfds.builder_from_directory(folder / 'numbers' / '1.0.0').as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return [source[index] for index in range(len(source))]


def test_every_record_is_there_in_order_in_shards_of_about_the_same_size(tmp_path):
    done = []
    assert sharded_writer.prepare(Numbers(), tmp_path, advance=lambda *step: done.append(step))
    assert np.sum(done, axis=0).tolist() == [57, 57 * 300]
    for split, count in Numbers().counts.items():
        expected = [item.record for item in Numbers().items(split, None)]
        assert len(expected) == count
        assert records(tmp_path, split) == expected
    splits = tfds.builder_from_directory(tmp_path / 'numbers' / '1.0.0').info.splits
    lengths, first = splits['train'].shard_lengths, 0
    assert len(lengths) > 4
    for length in lengths:
        sizes = [len(record) for record in records(tmp_path, 'train')[first : first + length]]
        assert sum(sizes[:-1]) < 3000  # closed by the record that reaches it
        assert sum(sizes) >= 3000 or first + length == 50
        first += length


@pytest.mark.parametrize('number', range(0, 50, 7))
def test_going_on_after_a_stop_gives_the_same_bytes(tmp_path, whole, number):
    data = tmp_path / 'data'
    for stop in (('train', number), ('train', min(number + 9, 49)), ('test', number % 7)):
        with pytest.raises(StoppedError):
            sharded_writer.prepare(Numbers(stop=stop), data)
        assert not (data / 'numbers' / '1.0.0').exists()
    done = []
    assert sharded_writer.prepare(Numbers(), data, advance=lambda *step: done.append(step))
    assert tree(data) == whole
    assert np.sum(done, axis=0).tolist() == [57, 57 * 300]  # what was there counts as well


def test_finished_shards_are_not_written_again(tmp_path):
    with pytest.raises(StoppedError):
        sharded_writer.prepare(Numbers(stop=('test', 0)), tmp_path)
    shards = sorted((tmp_path / 'numbers' / '1.0.0.incomplete' / 'data').glob('train-*'))
    inodes = {path.stat().st_ino for path in shards}
    sharded_writer.prepare(Numbers(), tmp_path)
    after = (tmp_path / 'numbers' / '1.0.0').glob('*train*')
    assert {path.stat().st_ino for path in after} >= inodes > set()


@pytest.mark.parametrize(
    ('module', 'point'),
    [
        (sharded_writer, '_remove_all_but'),
        (sharded_writer, 'check_finished'),
        (files, 'flush_folder'),
    ],
)
def test_a_stop_while_finishing(tmp_path, whole, monkeypatch, module, point):
    def stop(*_):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(module, point, stop)
        with pytest.raises(StoppedError):
            sharded_writer.prepare(Numbers(), tmp_path / 'data')
    unfinished = tmp_path / 'data' / 'numbers' / '1.0.0.incomplete' / 'data'
    shards = {path.stat().st_ino for path in unfinished.glob('*array_record*')}
    assert sharded_writer.prepare(Numbers(), tmp_path / 'data')
    assert tree(tmp_path / 'data') == whole
    finished = (tmp_path / 'data' / 'numbers' / '1.0.0').iterdir()
    assert {path.stat().st_ino for path in finished} >= shards > set()  # none is written again


def test_a_stop_just_after_the_rename(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'rmtree', lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sharded_writer.prepare(Numbers(), tmp_path / 'data')
    assert not sharded_writer.prepare(Numbers(), tmp_path / 'data')
    assert tree(tmp_path / 'data') == whole


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def garble_footer(path):
    data = path.read_bytes()
    path.write_bytes(data[:-60000] + bytes(60000))


@pytest.mark.parametrize('damage', [cut, garble_footer, os.unlink, lambda p: p.write_bytes(b'')])
def test_a_finished_shard_that_was_damaged_since_is_written_again(tmp_path, whole, damage):
    with pytest.raises(StoppedError):
        sharded_writer.prepare(Numbers(stop=('test', 3)), tmp_path / 'data')
    damage(tmp_path / 'data' / 'numbers' / '1.0.0.incomplete' / 'data' / 'train-00001')
    sharded_writer.prepare(Numbers(), tmp_path / 'data')
    assert tree(tmp_path / 'data') == whole


def test_a_garbled_note_counts_as_a_missing_one(tmp_path, whole):
    with pytest.raises(StoppedError):
        sharded_writer.prepare(Numbers(stop=('test', 3)), tmp_path / 'data')
    (tmp_path / 'data' / 'numbers' / '1.0.0.incomplete' / 'train-00002.json').write_text('{"re')
    sharded_writer.prepare(Numbers(), tmp_path / 'data')
    assert tree(tmp_path / 'data') == whole


def test_a_run_does_not_resume_with_a_source_that_has_changed(tmp_path):
    with pytest.raises(StoppedError):
        sharded_writer.prepare(Numbers(stop=('train', 30)), tmp_path)
    unfinished = tmp_path / 'numbers' / '1.0.0.incomplete'
    before = tree(unfinished)
    for other in (Numbers(stamp='later'), Numbers(counts={'train': 51})):
        with pytest.raises(UserError) as caught:
            sharded_writer.prepare(other, tmp_path)
        assert str(caught.value) == (
            f'{unfinished} was started with other options, or the source has changed since. Remove '
            'that folder to start again.'
        )
    assert tree(unfinished) == before


def test_a_finished_set_is_checked_and_never_overwritten(tmp_path):
    sharded_writer.prepare(Numbers(), tmp_path)
    folder = tmp_path / 'numbers' / '1.0.0'
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
    assert not sharded_writer.prepare(Numbers(stamp='later'), tmp_path)
    with pytest.raises(UserError, match='was prepared from other examples or with other options'):
        sharded_writer.prepare(Numbers(counts={'train': 51}), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())} == before
    assert os.listdir(tmp_path / 'numbers') == ['1.0.0']
    cut(next(folder.glob('*train*00001-of*')))
    with pytest.raises(UserError, match=r'00001-of-\d+ is missing or damaged .* remove '):
        sharded_writer.prepare(Numbers(), tmp_path)


def test_what_another_program_made_is_left_alone(tmp_path):
    folder = tmp_path / 'numbers' / '1.0.0'
    folder.mkdir(parents=True)
    (folder / 'dataset_info.json').write_text('{}')
    with pytest.raises(UserError, match='that this command did not write, which is left unchanged'):
        sharded_writer.prepare(Numbers(), tmp_path)
    assert tree(tmp_path) == {'numbers/1.0.0/dataset_info.json': b'{}'}


def test_too_many_defects_fail_at_the_end_and_the_list_survives(tmp_path):
    source = Numbers(faults={3, 4, 20, 49})
    with pytest.raises(UserError) as caught:
        sharded_writer.prepare(source, tmp_path, max_rejected=4)
    listed = tmp_path / 'numbers' / '1.0.0.incomplete' / 'rejected.jsonl'
    assert str(caught.value).startswith(
        '6 files are defective, more than --max_rejected=4: 3 (is bad); 4 (is bad); 20 (is bad); '
        f'.... The list is in {listed}. Run again with --max_rejected=6 to leave them out'
    )
    expected = [('train', n) for n in (3, 4, 20, 49)] + [('test', n) for n in (3, 4)]
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(entry['split'], int(entry['file'])) for entry in entries] == expected
    assert {entry['reason'] for entry in entries} == {'is bad'}
    again = Numbers(faults={3, 4, 20, 49}, stop=('train', 0))  # has only to finish
    assert sharded_writer.prepare(again, tmp_path, max_rejected=6)
    assert sharded_writer.prepare(source, tmp_path / 'whole', max_rejected=6)
    assert tree(tmp_path / 'numbers') == tree(tmp_path / 'whole' / 'numbers')
    assert (tmp_path / 'numbers/1.0.0/rejected.jsonl').read_text().count('\n') == 6


def test_a_hopeless_source_is_given_up_early(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_writer, '_STOP_AFTER', 5)
    source = Numbers(faults=range(20, 40), stop=('train', 27))
    with pytest.raises(UserError, match=r'^7 files are defective.*Not all files were checked\.'):
        sharded_writer.prepare(source, tmp_path / 'data', max_rejected=2)
    source = Numbers(faults=range(20, 40))
    for folder in ('data', 'whole'):
        sharded_writer.prepare(source, tmp_path / folder, max_rejected=20)
    assert tree(tmp_path / 'data') == tree(tmp_path / 'whole')


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(UserError, match='The test split of "numbers" has no examples'):
        sharded_writer.prepare(Numbers(counts={'train': 5, 'test': 0}), tmp_path)


def test_two_at_once_are_kept_apart(tmp_path):
    (tmp_path / 'numbers').mkdir()
    descriptor = os.open(tmp_path / 'numbers', os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='Another process is preparing'):
            sharded_writer.prepare(Numbers(), tmp_path)
    finally:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason='needs root, to mount a small tmpfs')
def test_a_full_disk_keeps_what_is_finished(tmp_path, whole):
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f'cannot mount: {mounted.stderr.decode().strip()}')
    try:
        with pytest.raises(UserError) as caught:
            sharded_writer.prepare(Numbers(), disk)
        message = str(caught.value)
        assert message.startswith(f'Cannot write {disk}/numbers/1.0.0: ')
        assert 'No space left on device' in message
        assert message.endswith(
            'The finished shards are kept: run the same command again to resume.'
        )
        shutil.copytree(disk / 'numbers', tmp_path / 'data' / 'numbers')
    finally:
        subprocess.run(['umount', disk], check=True)
    assert sharded_writer.read_notes(
        tmp_path / 'data' / 'numbers' / '1.0.0.incomplete' / 'data', 'train'
    )
    sharded_writer.prepare(Numbers(), tmp_path / 'data')
    assert tree(tmp_path / 'data') == whole
