"""Reading PyTorch's files without PyTorch and without running code from them."""

import argparse
import collections
import copy
import dataclasses
import datetime
import enum
import functools
import json
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from errors import UserError
from models.pretrained import torch_files
from tests.golden import parity
from tests.models.pretrained.torch_writer import (
    FORMATS,
    fragment,
    named,
    pickled,
    state_dict,
    tensor,
    write,
)

GOLDEN = Path(parity.__file__).parent


def arrays(path):
    """The arrays of a file that holds a dict of tensors, or has it under 'state_dict'."""
    file = torch_files.read(path)
    return file.arrays(file.content.get('state_dict', file.content))


@pytest.mark.parametrize('format', FORMATS)
def test_files_that_torch_wrote(format):
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        'whole': numbers,
        'transposed': numbers.T,
        'rows': numbers[1:],
        'every_other': numbers[:, ::2],
        'expanded': np.ones((2, 3), np.float32),
        'parameter': np.full(2, 0.5, np.float32),
        'half': numbers[0].astype(np.float16),
        'bfloat16': numbers[0].astype(ml_dtypes.bfloat16),
        'double': np.arange(4) / 3,
        'counter': np.array(7),
        'empty': np.zeros((0, 3), np.float32),
    }
    found = arrays(GOLDEN / f'torch_{format}.pth')
    found = {name.removeprefix('module.'): array for name, array in found.items()}
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@st.composite
def views(draw):
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    strides = tuple(draw(st.integers(0, 7)) for _ in shape)
    return draw(st.integers(0, 9)), shape, strides, draw(st.integers(1, 40))


@pytest.mark.parametrize('format', FORMATS)
@settings(max_examples=80, deadline=None)
@given(view=views())
def test_any_view_is_read_by_its_definition_or_refused(format, view, tmp_path_factory):
    offset, shape, strides, count = view
    numbers = np.random.default_rng(0).normal(size=count).astype(np.float32)
    path = tmp_path_factory.mktemp('view') / 'x.pth'
    write(path, format, state_dict(x=tensor(*view)), {'0': numbers})
    places = np.full(shape, offset)
    for axis, stride in enumerate(strides):
        places = places + stride * np.indices(shape)[axis]
    if places.size and places.max() >= count:
        with pytest.raises(UserError, match='reaches to number'):
            arrays(path)
    else:
        np.testing.assert_array_equal(arrays(path)['x'], numbers[places])


def test_a_part_of_a_storage_as_old_files_have_it(tmp_path):
    numbers = np.arange(9, dtype=np.float32)
    content = state_dict(x=tensor(1, (2,), (1,), 9, part=('1', 4, 3)))
    path = write(tmp_path / 'x.pth', 'legacy', content, {'0': numbers})
    np.testing.assert_array_equal(arrays(path)['x'], [5, 6])
    content = state_dict(x=tensor(1, (3,), (1,), 9, part=('1', 4, 3)))
    path = write(tmp_path / 'x.pth', 'legacy', content, {'0': numbers})
    with pytest.raises(UserError, match='reaches to number 3 of a storage of 3'):
        arrays(path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('format', FORMATS)
def test_code_in_a_pickle_is_not_run(format, tmp_path):
    evil = fragment(Evil(tmp_path / 'marker'))
    contents = state_dict(x=evil), b'\x80\x02' + evil + b'.'
    pickle.loads(contents[0])
    assert (tmp_path / 'marker').exists(), 'the attack works on pickle itself'
    (tmp_path / 'marker').unlink()
    for content in contents:
        found = torch_files.read(write(tmp_path / 'x.pth', format, content, {})).content
        found = found['x'] if isinstance(found, dict) else found
        assert (type(found).__name__, type(found).__mro__[1]) == (
            f'{os.name}.system', torch_files.Foreign
        )  # fmt: skip
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    'name',
    ['builtins.eval', 'builtins.getattr', 'torch.load', 'torch._utils.os.system', 'numpy.dtype',
     'collections.OrderedDict.fromkeys', 'torch.nn.modules.linear.Linear'],
)  # fmt: skip
def test_nothing_else_is_looked_up(name, tmp_path):
    path = write(tmp_path / 'x.pth', 'zip', b'\x80\x02' + named(name) + b'.', {})
    found = torch_files.read(path).content
    assert issubclass(found, torch_files.Foreign)
    assert found.__name__ == name


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    rate: float = 0.1


class Wrapped(dict):
    pass


FOREIGN = {
    'args': argparse.Namespace(lr=0.1), 'scalar': np.float64(0.3), 'color': Color.RED,
    'settings': Settings(), 'path': Path('x'), 'now': datetime.datetime(2020, 1, 1),
    'sets': {1, (2, 3), frozenset([4])}, 'default': collections.defaultdict(list, a=[1]),
    'counter': collections.Counter('aab'), 'partial': functools.partial(print, 'called'),
    'function': print, 'class': Wrapped, 'error': ValueError('a'), 'range': slice(1, 2),
    'random': random.Random(0), 'queue': collections.deque([1]), 'complex': 1j, Color.RED: 'key',
}  # fmt: skip


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('protocol', [2, 4])
def test_foreign_objects_are_inert_and_tensors_beside_them_are_read(format, protocol, tmp_path):
    """Whatever training programs put beside the weights; numpy.float64 alone stopped it before."""
    weights = {'a.weight': np.float32([[1, 2]]), 'a.bias': np.float16([3])}
    content, storages = pickled({**FOREIGN, 'model': Wrapped(weights)}, protocol)
    file = torch_files.read(write(tmp_path / 'x.pth', format, content, storages))
    for name in ('args', 'scalar', 'color', 'settings', 'path', 'partial', 'function', 'error'):
        foreign = file.content[name]
        assert isinstance(foreign, torch_files.Foreign) or issubclass(foreign, torch_files.Foreign)
    assert type(file.content['args']).__name__ == 'argparse.Namespace'
    assert file.content['default'] == {'a': [1]}
    found = file.arrays(file.content['model'].items)
    assert found.keys() == weights.keys()
    for name, array in found.items():
        assert array.dtype == weights[name].dtype
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize('format', FORMATS)
def test_a_file_cut_anywhere_is_an_error_of_the_users(format, tmp_path):
    whole = (GOLDEN / f'torch_{format}.pth').read_bytes()
    path = tmp_path / 'x.pth'
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r'x\.pth'):
            torch_files.read(path)


@pytest.mark.parametrize('format', FORMATS)
def test_no_changed_byte_raises_anything_else(format, tmp_path):
    whole = (GOLDEN / f'torch_{format}.pth').read_bytes()
    path, draws, refused = tmp_path / 'x.pth', np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(whole)
        changed[draws.integers(len(whole))] ^= 1 << draws.integers(8)
        path.write_bytes(changed)
        try:
            arrays(path)
        except (UserError, AttributeError):  # it may have become another content, without tensors
            refused += 1
    assert refused > 30


X = state_dict(x=tensor(0, (2,), (1,), 2))


@pytest.mark.parametrize(
    ('content', 'storages', 'message'),
    [
        (X, {}, 'damaged'),
        (X, {'0': np.float32([1])}, 'reaches to number 1 of a storage of 1'),
        (state_dict(x=tensor(-1, (2,), (1,), 2)), {'0': np.zeros(2, 'f4')}, 'offset -1'),
        (state_dict(x=tensor(1, (2,), (-1,), 2)), {'0': np.zeros(2, 'f4')}, r'strides \(-1,\)'),
        (state_dict(x=tensor(0, (2,), (1, 1), 2)), {'0': np.zeros(2, 'f4')}, 'damaged'),
        (state_dict(x=tensor(0, (2.0,), (1,), 2)), {'0': np.zeros(2, 'f4')}, r'shape \(2.0,\)'),
        (state_dict(x=tensor(0, (2,) * 65, (0,) * 65, 2)), {}, 'a tensor with 65 axes'),
        # A stride of 0: 4 GB of a storage of one number.
        (state_dict(x=tensor(0, (1 << 30,), (0,), 1)), {'0': np.zeros(1, 'f4')}, 'larger than its'),
        (state_dict(x=tensor(0, (1 << 15,) * 2, (1, 0), 1 << 15)), {}, 'is larger than its file'),
        (state_dict(x=tensor(0, (1 << 61,) * 3, (0,) * 3, 1)), {}, 'is larger than its file'),
        (state_dict(x=tensor(0, (1 << 70,), (0,), 1)), {}, 'offset 0, shape'),
        (b'\x80\x02}' + b')' + b'\x85' * 1_000_000 + b'Ns.', {}, 'damaged'),
        (b'\x80\x02' + named('a.b') + b')R' * 100_000 + b'.', {}, 'damaged'),
        (b'\x80\x02' + named('a.b') + b')R' + b'2' * 10**5 + b'b' * 10**5 + b'.', {}, 'damaged'),
        (b'\x80\x02}r\xff\xff\xff\x7f.', {}, 'damaged'),
        (b'\x80\x02X\xff\xff\xff\x7fabc.', {}, 'damaged'),
        (b'\x80\x02' + b''.join(b'ca\n%d\n0' % n for n in range(10_100)) + b'N.', {}, '10,000 cl'),
    ],
)
@pytest.mark.parametrize('format', FORMATS)
def test_damage_and_what_asks_for_too_much_is_refused(format, content, storages, message, tmp_path):
    path = write(tmp_path / 'x.pth', format, content, storages)
    with pytest.raises(UserError, match=message):
        arrays(path)


@pytest.mark.parametrize(
    'content',
    [b']' * 20_000 + b'a' * 19_999 + b'.', b'}' + b'K\x00}' * 20_000 + b's' * 20_000 + b'.',
     b']2a.'],
)  # fmt: skip
def test_depth_that_is_harmless_is_read(content, tmp_path):
    torch_files.read(write(tmp_path / 'x.pth', 'legacy', b'\x80\x02' + content, {}))


def test_entries_that_lie_over_one_another_are_refused(tmp_path):
    """A small file whose directory names the same bytes a hundred times."""
    tensors = {f'x{key}': tensor(0, (1,), (1,), 1, key=str(key)) for key in range(100)}
    path = write(tmp_path / 'x.pth', 'zip', state_dict(**tensors), {'0': np.zeros(10**5, 'f4')})
    with zipfile.ZipFile(path, 'a') as archive:
        for key in range(1, 100):
            entry = copy.copy(archive.getinfo('archive/data/0'))
            entry.filename = f'archive/data/{key}'
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
        archive._didModify = True
    with pytest.raises(UserError, match='its storages are larger than the file'):
        arrays(path)


def test_a_pickle_that_torch_did_not_write_is_said_to_be_so(tmp_path):
    (tmp_path / 'x.pth').write_bytes(pickle.dumps({'a': 1}))
    with pytest.raises(UserError, match=r'a pickle that torch\.save did not write: load it'):
        torch_files.read(tmp_path / 'x.pth')


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'x\.pth is a pipe, not a regular file'):
        torch_files.read(tmp_path / 'x.pth')


def test_a_safetensors_file_is_known_by_its_content(tmp_path):
    save_file({'a': np.float32([1, 2])}, tmp_path / 'x.bin')
    np.testing.assert_array_equal(arrays(tmp_path / 'x.bin')['a'], [1, 2])


@pytest.mark.parametrize(
    ('header', 'size'),
    [({'x': {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 1 << 42]}}, 8),
     ({'x': {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 8]}}, 8),
     ({'x': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]},
       'y': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}, 8)],
)  # fmt: skip
def test_a_safetensors_header_that_lies_is_refused(header, size, tmp_path):
    text = json.dumps(header).encode()
    (tmp_path / 'x.safetensors').write_bytes(struct.pack('<Q', len(text)) + text + bytes(size))
    with pytest.raises(UserError, match='damaged'):
        torch_files.read(tmp_path / 'x.safetensors')
    (tmp_path / 'x.safetensors').write_bytes(struct.pack('<Q', 1 << 40) + text)
    with pytest.raises(UserError, match='damaged'):
        torch_files.read(tmp_path / 'x.safetensors')


def test_a_storage_larger_than_the_file_takes_no_memory(tmp_path):
    path = write(tmp_path / 'x.pth', 'legacy', X, {'0': np.float32([1, 2])})
    content = path.read_bytes()
    path.write_bytes(content[:-16] + struct.pack('<q', 1 << 60) + content[-8:])
    with pytest.raises(UserError, match='reaches outside the file'):
        torch_files.read(path)


@pytest.mark.parametrize('format', FORMATS)
def test_a_file_of_a_big_endian_machine_is_refused(format, tmp_path):
    path = write(tmp_path / 'x.pth', format, X, {'0': np.float32([1, 2])}, order='big')
    with pytest.raises(UserError, match='big-endian'):
        torch_files.read(path)


def test_a_compressed_archive_is_refused(tmp_path):
    zeros = np.zeros(10**6, np.float32)
    write(tmp_path / 'x.pth', 'zip', X, {'0': zeros}, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match='compressed'):
        torch_files.read(tmp_path / 'x.pth')
    write(tmp_path / 'x.pth', 'zip', X, {})
    with zipfile.ZipFile(tmp_path / 'x.pth', 'a', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data/0', zeros.tobytes())
    with pytest.raises(UserError, match='compressed'):
        arrays(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_files_that_are_none_are_refused(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(UserError, match=r'cannot be read \(No such file.*\): check the path and'):
        torch_files.read(path)
    path.write_text('<html>404</html>')
    with pytest.raises(UserError, match=r'damaged, or not a file of weights \(.*\): download it'):
        torch_files.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=name):
        torch_files.read(path)
