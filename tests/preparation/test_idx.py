"""The idx reader: valid files, and the messages for invalid ones."""

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from errors import UserError
from preparation import idx


def idx_bytes(values, code=8):
    return (
        bytes([0, 0, code, values.ndim])
        + struct.pack(f'>{values.ndim}I', *values.shape)
        + (values.tobytes())
    )


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.integers(1, 3).flatmap(
        lambda n: npst.arrays(np.uint8, npst.array_shapes(min_dims=n, max_dims=n, max_side=9))
    ),
    zipped=st.booleans(),
)
def test_round_trip(tmp_path, values, zipped):
    path = tmp_path / ('a-idx.gz' if zipped else 'a-idx')
    path.write_bytes(gzip.compress(idx_bytes(values)) if zipped else idx_bytes(values))
    read = idx.read(path, values.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, values)


BAD = {
    'nothing': (
        b'',
        'is not an idx file of this kind: it starts with nothing instead of 00000803',
    ),
    'a picture': (
        b'\x89PNG' + GOOD,
        'is not an idx file of this kind: it starts with 89504e47 instead of 00000803',
    ),
    'no such type': (
        b'\0\0\x07' + GOOD[3:],
        'is not an idx file of this kind: it starts with 00000703 instead of 00000803',
    ),
    'floats': (b'\0\0\x0d' + GOOD[3:], 'contains float values: only uint8 values are supported'),
    'labels': (
        b'\0\0\x08\x01' + GOOD[4:],
        'has 1 dimensions instead of 3: images have 3, labels 1',
    ),
    'header cut': (GOOD[:9], 'is truncated: it ends inside its header'),
    'cut': (
        GOOD[:-1],
        r'is truncated: its header says \[2, 3, 4\], which is 24 bytes, but only 23 follow',
    ),
    'extra byte': (
        GOOD + b'\0',
        r'is too long: its header says \[2, 3, 4\], which is 24 bytes, but more follow',
    ),
    'no examples': (idx_bytes(np.zeros((0, 3, 4), np.uint8)), r'is empty: .* says \[0, 3, 4\]'),
    'exabytes': (GOOD[:4] + b'\xff' * 12 + GOOD[16:], 'is truncated: .* 24 follow'),
}


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('fault', BAD)
def test_bad_files_are_refused(tmp_path, fault, zipped):
    data, message = BAD[fault]
    path = tmp_path / ('train-images.gz' if zipped else 'train-images')
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(UserError, match=f'{path} {message}'):
        idx.read(path, 3)


BROKEN_GZIP = {
    'not gzip': GOOD,
    'cut': gzip.compress(GOOD)[:-9],
    'wrong checksum': gzip.compress(GOOD)[:-8] + b'\0' * 8,
    'garbage inside': gzip.compress(GOOD)[:10] + b'\xff' * 20,
}


@pytest.mark.parametrize('fault', BROKEN_GZIP)
def test_broken_gzip_is_refused(tmp_path, fault):
    (tmp_path / 'a.gz').write_bytes(BROKEN_GZIP[fault])
    with pytest.raises(UserError, match=rf'{tmp_path}/a.gz cannot be read \(.*\): download or'):
        idx.read(tmp_path / 'a.gz', 3)


@pytest.mark.parametrize('follow', [100_000_000, 300_000_000])
def test_a_small_file_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch, follow):
    """The header says 300 MB, and the file has 300 kB; a prefix is enough to see it."""
    monkeypatch.setattr(idx, '_SMALL', 1 << 20)
    path = tmp_path / 'train-images.gz'
    with gzip.open(path, 'wb', compresslevel=1) as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack('>3I', 3000, 100, 1000))
        for _ in range(follow // 10_000_000):
            file.write(bytes(10_000_000))
    budget = 64 * path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f'{path} is refused: its header says .* 300000000 byt'):
            idx.read(path, 3)
        assert tracemalloc.get_traced_memory()[1] < budget + 10e6
    finally:
        tracemalloc.stop()


def test_a_header_that_says_too_little_costs_no_more_than_it_says(tmp_path):
    with gzip.open(tmp_path / 'a.gz', 'wb', compresslevel=1) as file:
        file.write(idx_bytes(np.zeros((20, 30, 40), np.uint8)) + bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(
            UserError, match=r'too long: its header says \[20, 30, 40\], which is 2'
        ):
            idx.read(tmp_path / 'a.gz', 3)
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_a_file_of_ten_terabytes_that_takes_no_room_is_refused(tmp_path):
    path = tmp_path / 'train-images'
    path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack('>3I', 1_000_000, 100_000, 100))
    os.truncate(path, 16 + 10**13)
    with pytest.raises(UserError, match=f'{path} has 10,000,000,000,0.. bytes, and the machine'):
        idx.read(path, 3)


def test_small_black_pictures_are_read(tmp_path):
    with gzip.open(tmp_path / 'a.gz', 'wb') as file:
        file.write(idx_bytes(np.zeros((5000, 28, 28), np.uint8)))
    assert idx.read(tmp_path / 'a.gz', 3).shape == (5000, 28, 28)


@pytest.mark.parametrize('name', ['a', 'a.gz'])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f'{name} cannot be read \\(it is not a regular file\\)'):
        idx.read(tmp_path / name, 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=rf'cannot be read \(.*{tmp_path}/none.*\): download or'):
        idx.read(tmp_path / 'none', 3)


def test_counts_must_agree(tmp_path):
    (tmp_path / 'images').write_bytes(GOOD)
    (tmp_path / 'labels').write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match=r'images has 2 images, but .*labels has 3 labels'):
        idx.read_examples(tmp_path / 'images', tmp_path / 'labels')


NAMES = ('train-images-idx3-ubyte', 'train-labels.idx1-ubyte.gz')


@pytest.mark.parametrize(
    ('test_names', 'found'),
    [
        (('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte'), True),
        (('emnist-letters-test-images-idx3-ubyte', 'emnist-letters-test-labels-idx1-ubyte'), True),
        (('t10k-images-idx3-ubyte',), False),
    ],
)
def test_files_are_told_by_their_words(tmp_path, test_names, found):
    for name in (*NAMES, *test_names, 'README.md'):
        (tmp_path / name).write_bytes(b'')
    if found:
        files = {
            split: tuple(p.name for p in pair) for split, pair in idx.find_files(tmp_path).items()
        }
        assert files == {'train': NAMES, 'test': test_names}
    else:
        with pytest.raises(UserError, match='has no test labels: a file such as test-labels-idx1'):
            idx.find_files(tmp_path)


def test_two_fitting_files_or_no_folder_are_refused(tmp_path):
    for name in ('train-images-idx3-ubyte', 'train-images-idx3-ubyte.gz'):
        (tmp_path / name).write_bytes(b'')
    with pytest.raises(UserError, match=r'several files of train images .* keep only one'):
        idx.find_files(tmp_path)
    with pytest.raises(UserError, match='is not a folder'):
        idx.find_files(tmp_path / 'none')
