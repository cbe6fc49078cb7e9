"""CIFAR's archives. The real ones are not at hand: these have the same format, byte for byte.

Python 2 wrote the real ones with cPickle, protocol 2: text and pixels as byte strings, arrays by
numpy.core.multiarray._reconstruct. Python 3 cannot write such files by itself, so the opcodes are
put together here.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import pickletools
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_sources import arrays
from errors import UserError
from preparation import cifar
from tools import prepare_data


def dump(value):
    """Pickles a value as Python 2 did, protocol 2, without memo."""
    return b'\x80\x02' + _opcodes(value) + b'.'


def _opcodes(value):
    if isinstance(value, bytes):
        short = len(value) < 256
        return (
            b'U' + bytes([len(value)]) if short else b'T' + struct.pack('<i', len(value))
        ) + value
    if isinstance(value, int):
        return b'J' + struct.pack('<i', value)
    if isinstance(value, list):
        return b']' + b'(' + b''.join(map(_opcodes, value)) + b'e'
    if isinstance(value, dict):
        items = (_opcodes(key) + _opcodes(entry) for key, entry in value.items())
        return b'}' + b'(' + b''.join(items) + b'u'
    empty = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n' + b'K\x00\x85U\x01b\x87R'
    kind = b'cnumpy\ndtype\n' + _opcodes(value.dtype.str.lstrip('|<').encode()) + b'K\x00K\x01\x87R'
    kind += b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
    shape = b'(' + b''.join(map(_opcodes, value.shape)) + b't'
    state = b'(K\x01' + shape + kind + b'\x89' + _opcodes(value.tobytes()) + b't'
    return empty + state + b'b'


def test_what_the_test_writes_is_what_numpy_reads():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    value = {b'data': array, b'labels': [1, 2, 70_000], b'long': bytes(300)}
    loaded = pickle.loads(dump(value).replace(b'numpy.core', b'numpy._core'), encoding='bytes')
    np.testing.assert_array_equal(loaded.pop(b'data'), array)
    assert loaded == {b'labels': [1, 2, 70_000], b'long': bytes(300)}
    pickletools.dis(dump(value), io.StringIO())


def batch(edition, seed, count):
    rng = np.random.default_rng(seed)
    return {
        b'batch_label': b'training batch 1 of 5',
        edition.labels.encode(): rng.integers(0, edition.classes, count).tolist(),
        b'data': rng.integers(0, 256, (count, 3072), np.uint8),
        b'filenames': [b'leptodactylus_pentadactylus_s_000004.png'] * count,
    }


def contents(edition, per_file=40):
    """The files of a small edition: name -> pickle."""
    names = [f'class {number}'.encode() for number in range(edition.classes)]
    files = {edition.meta: dump({b'num_cases_per_batch': 9, edition.names.encode(): names})}
    for seed, name in enumerate(name for split in edition.files.values() for name in split):
        files[name] = dump(batch(edition, seed, per_file))
    return files


def write_archive(edition, path, files):
    with tarfile.open(path, 'w:gz') as tar:
        for name, data in {**files, 'readme.html': b'hello'}.items():
            member = tarfile.TarInfo(f'{edition.folder}/{name}')
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(params=cifar.EDITIONS)
def name(request):
    return request.param


@pytest.fixture
def small(name, tmp_path, monkeypatch):
    """A small edition, and its archive."""
    edition = cifar.EDITIONS[name]
    counts = {split: 40 * len(files) for split, files in edition.files.items()}
    edition = dataclasses.replace(edition, counts=counts)
    path = write_archive(edition, tmp_path / edition.archive.name, contents(edition))
    edition = as_published(edition, path)
    monkeypatch.setitem(cifar.EDITIONS, name, edition)
    return edition, path


def unpack(edition, folder, **changes):
    """The folder of the unpacked files."""
    folder = folder / edition.folder
    folder.mkdir(parents=True)
    for name, data in {**contents(edition), **changes}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def check(edition, name, data_dir):
    """Compares a prepared set with the arrays that were pickled, row by row."""
    seed = 0
    for split, files in edition.files.items():
        batches = [batch(edition, seed + number, 40) for number in range(len(files))]
        seed += len(files)
        stored = arrays.load(name, split, str(data_dir))
        rows = np.concatenate([pickled[b'data'] for pickled in batches])
        labels = [label for pickled in batches for label in pickled[edition.labels.encode()]]
        count = len(stored.labels)  # the end of train is used for validation
        assert count == (len(labels) if split == 'test' else len(labels) - len(labels) // 10)
        assert stored.labels.tolist() == labels[:count]
        assert stored.class_names[:3] == ('class 0', 'class 1', 'class 2')
        assert len(stored.class_names) == edition.classes
        for image, row in zip(stored.images, rows, strict=False):
            for channel in range(3):
                plane = row[1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
                np.testing.assert_array_equal(image[:, :, channel], plane)


def test_from_the_archive(name, small, tmp_path, capsys):
    edition, path = small
    command = [name, f'--source={path}', f'--data_dir={tmp_path}/data']
    assert prepare_data.main(command) == 0
    printed = capsys.readouterr().out
    assert (
        f'{name}: prepared in {tmp_path}/data/{name} ({edition.counts["train"]} train, ' in printed
    )
    assert 'Next: python train.py --config=configs/cifar10_resnet18.py' in printed
    check(edition, name, tmp_path / 'data')
    assert prepare_data.main(command) == 0
    assert prepare_data.main([name, f'--data_dir={tmp_path}/data']) == 0
    assert capsys.readouterr().out.count('already prepared') == 2


def test_from_the_unpacked_files_or_the_folder_above(name, small, tmp_path):
    edition, path = small
    folder = unpack(edition, tmp_path / 'unpacked')
    for source in (folder, folder.parent, path.parent):
        data = tmp_path / f'data_{source.name}'
        assert prepare_data.main([name, f'--source={source}', f'--data_dir={data}']) == 0
        check(edition, name, data)


def as_published(edition, path):
    """The edition whose published archive is the file at `path`."""
    data = path.read_bytes()
    digest = hashlib.md5(data).hexdigest()
    archive = dataclasses.replace(edition.archive, size=len(data), digest=digest)
    return dataclasses.replace(edition, archive=archive)


def test_an_archive_unpacks_to_no_more_than_the_published_one(small, monkeypatch):
    edition, path = small
    monkeypatch.setattr(cifar, '_MAX_ARCHIVE', 200_000)
    with pytest.raises(UserError, match=f'{path} unpacks to more than 200,000 bytes'):
        cifar.read(edition, path)


def test_a_link_in_an_archive_is_refused(small, tmp_path):
    edition, path = small
    with tarfile.open(path, 'w:gz') as tar:
        link = tarfile.TarInfo(f'{edition.folder}/{edition.meta}')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
    with pytest.raises(UserError, match=f'"{edition.folder}/{edition.meta}", which is a link'):
        cifar.read(as_published(edition, path), path)


def test_an_unpacked_file_that_is_far_too_large_is_not_read(small, tmp_path):
    edition, _ = small
    folder = unpack(edition, tmp_path / 'bad')
    os.truncate(folder / edition.meta, 3 << 30)
    with pytest.raises(UserError, match='has 3,221,225,472 bytes, more than the published file'):
        cifar.read(edition, folder)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def build(path):
    """Sets attributes of a replacement's class, then creates one, which has no effect either."""
    return b'\x80\x02cnumpy\nndarray\n}U\x01x' + _opcodes(os.fsencode(path)) + b'sb.'


@pytest.mark.parametrize(
    'attack',
    [
        lambda path: pickle.dumps(Evil(path), 2),
        lambda path: pickle.dumps({'label_names': Evil(path)}, 4),
        lambda path: b"cos\nsystem\n(S'mkdir " + path.encode() + b"'\ntR.",
        lambda path: b'cbuiltins\nexec\n(S"import os; os.mkdir(' + repr(path).encode() + b')"\ntR.',
        lambda path: b'cnumpy\nload\n(S"' + path.encode() + b'"\ntR.',
        lambda path: b'(S"' + path.encode() + b'"\nios\nmkdir\n.',
        build,
    ],
)
def test_a_pickle_that_wants_to_run_something_is_refused(name, small, tmp_path, capsys, attack):
    edition, _ = small
    target = tmp_path / 'made_by_the_pickle'
    folder = unpack(edition, tmp_path / 'bad', **{edition.meta: attack(str(target))})
    assert prepare_data.main([name, f'--source={folder}', f'--data_dir={tmp_path}/data']) == 2
    message = capsys.readouterr().err
    assert message.startswith(f'error: "{edition.meta}" is not ')
    assert message.count('\n') == 1
    assert not target.exists()
    assert not (tmp_path / 'data').exists()


COSTLY = {  # pickles that ended the interpreter, asked for tens of GB or took for ever
    'a deep key': b'\x80\x02}' + b')' + b'\x85' * 1_000_000 + b'Ns.',
    'a memo of 16 GB': b'\x80\x02]r\xff\xff\xff\x7f.',
    'a key with a long text': b'\x80\x02}' + b')' + b'2\x86' * 15 + b'Ns.',
}


@pytest.mark.parametrize('case', COSTLY)
def test_a_pickle_that_would_cost_too_much_is_refused(small, tmp_path, case):
    edition, _ = small
    folder = unpack(edition, tmp_path / 'bad', **{edition.meta: COSTLY[case]})
    with pytest.raises(
        UserError, match=f'"{edition.meta}" (is not a readable|has a tuple)'
    ) as told:
        cifar.read(edition, folder)
    assert len(str(told.value)) < 400


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_happens_to_a_pickle_is_a_sentence_or_examples(data):
    edition = cifar.EDITIONS['cifar10']
    content = bytearray(dump(batch(edition, 0, 2)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 300) | st.integers(0, len(content) - 3))
        content[place : place + 2] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(UserError):
        images, labels = cifar._examples(edition, cifar._load(bytes(content), 'a'), 'a')
        assert images.shape == (len(labels), 32, 32, 3)


def changed(edition, **changes):
    return dump({**batch(edition, 0, 40), **{k.encode(): v for k, v in changes.items()}})


WRONG = {
    'missing file': (
        lambda e: None,
        'has no "{file}": --source must be {archive} (the version for Python) or the folder of its '
        'files.',
    ),
    'no pickle': (lambda e: b'hello', '"{file}" is not a readable pickle ('),
    'cut': (lambda e: dump(batch(e, 0, 40))[:-500], '"{file}" is not a readable pickle ('),
    'a list': (lambda e: dump([1]), '"{file}" contains a list instead of a dict'),
    'no labels': (
        lambda e: changed(e, **{e.labels: 3}),
        '"{file}" does not contain one of {labels} for each image',
    ),
    'few labels': (
        lambda e: changed(e, **{e.labels: [1]}),
        '"{file}" does not contain one of {labels} for each image',
    ),
    'wrong label': (
        lambda e: changed(e, **{e.labels: [100] * 40}),
        '"{file}" contains {labels} outside 0 .. ',
    ),
    'no images': (
        lambda e: changed(e, data=[1]),
        '"{file}" does not contain images as uint8 [n, 3072]',
    ),
    'other type': (
        lambda e: changed(e, data=np.zeros((40, 3072), np.int16)),
        '"{file}" does not contain images as uint8 [n, 3072]',
    ),
    'other shape': (
        lambda e: changed(e, data=np.zeros((40, 3071), np.uint8)),
        '"{file}" does not contain images as uint8 [n, 3072]',
    ),
    'fewer images': (
        lambda e: dump(batch(e, 0, 39)),
        ' has 39 test images instead of the 40 that were published',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_contents_are_refused(name, small, tmp_path, capsys, case):
    edition, _ = small
    make, message = WRONG[case]
    file = edition.files['test'][0]
    folder = unpack(edition, tmp_path / 'bad', **{file: make(edition)})
    assert prepare_data.main([name, f'--source={folder}', f'--data_dir={tmp_path}/data']) == 2
    expected = message.format(file=file, archive=edition.archive.name, labels=edition.labels)
    assert expected in capsys.readouterr().err


def test_wrong_class_names_are_refused(small):
    edition, path = small
    folder = unpack(edition, path.parent / 'bad', **{edition.meta: dump({b'names': [b'a']})})
    with pytest.raises(UserError, match=f'does not contain {edition.classes} {edition.names}'):
        cifar.read(edition, folder)


def test_an_archive_that_is_not_the_published_one_is_refused(name, tmp_path, capsys):
    edition = cifar.EDITIONS[name]
    path = write_archive(edition, tmp_path / edition.archive.name, contents(edition, 2))
    assert prepare_data.main([name, f'--source={path}', f'--data_dir={tmp_path}/data']) == 2
    assert f'is not the published {edition.archive.name}: ' in capsys.readouterr().err
    assert prepare_data.main([name, f'--source={tmp_path}/no', f'--data_dir={tmp_path}/data']) == 2
    assert f'{tmp_path}/no has no "{edition.meta}"' in capsys.readouterr().err


def test_no_network_is_said_so(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cifar, 'MIRRORS', ['http://127.0.0.1:9/'])
    assert prepare_data.main([name, f'--data_dir={tmp_path}']) == 2
    message = capsys.readouterr().err
    assert 'Connection refused' in message
    assert f'pass --source={cifar.EDITIONS[name].archive.name}' in message
