"""Reading PyTorch's files without PyTorch and without running code from them."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from models.pretrained import torch_files
from tests.golden import parity

GOLDEN = Path(parity.__file__).parent
FORMATS = ('zip', 'legacy')
MAGIC = 0x1950A86A20F9469CFC6C


# The two formats, written by hand from the description in torch/serialization.py.


def fragment(value):
    """The opcodes of a plain value, to stand inside a longer pickle."""
    return pickle.dumps(value, 2)[2:-1]


def named(path):
    module, _, name = path.rpartition('.')
    return f'c{module}\n{name}\n'.encode()


def tensor(offset, shape, strides, count, kind='FloatStorage', key='0', part=None):
    storage = [fragment('storage'), named(f'torch.{kind}'), *map(fragment, (key, 'cpu', count))]
    if part:
        storage.append(fragment(part))
    arguments = map(fragment, (offset, shape, strides, False))
    return b''.join(
        [
            named('torch._utils._rebuild_tensor_v2'), b'((', *storage, b'tQ', *arguments,
            named('collections.OrderedDict'), b')RtR',
        ]
    )  # fmt: skip


def state_dict(**tensors):
    items = b''.join(fragment(name) + opcodes for name, opcodes in tensors.items())
    return b'\x80\x02}(' + items + b'u.'


def write(path, format, content, storages, compression=zipfile.ZIP_STORED, order='little'):
    """Writes pickled content and {key: array}."""
    if format == 'zip':
        with zipfile.ZipFile(path, 'w', compression) as archive:
            archive.writestr('archive/byteorder', order)
            archive.writestr('archive/data.pkl', content)
            for key, numbers in storages.items():
                archive.writestr(f'archive/data/{key}', numbers.tobytes())
        return path
    with path.open('wb') as file:
        for value in (MAGIC, 1001, {'little_endian': order == 'little'}):
            file.write(pickle.dumps(value, 2))
        file.write(content + pickle.dumps(list(storages), 2))
        for numbers in storages.values():
            file.write(struct.pack('<q', len(numbers)) + numbers.tobytes())
    return path


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
    found = torch_files.read(GOLDEN / f'torch_{format}.pth')
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
            torch_files.read(path)
    else:
        np.testing.assert_array_equal(torch_files.read(path)['x'], numbers[places])


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('wrapper', ['state_dict', 'model'])
def test_a_checkpoint_around_the_state_dict_is_unwrapped(format, wrapper, tmp_path):
    inner = state_dict(**{'module.x': tensor(0, (2,), (1,), 2)})[2:-1]
    content = b'\x80\x02}(' + fragment('epoch') + fragment(5) + fragment(wrapper) + inner + b'u.'
    path = write(tmp_path / 'x.pth', format, content, {'0': np.float32([3, 4])})
    np.testing.assert_array_equal(torch_files.read(path)['x'], [3, 4])


def test_a_part_of_a_storage_as_old_files_have_it(tmp_path):
    numbers = np.arange(9, dtype=np.float32)
    content = state_dict(x=tensor(1, (2,), (1,), 9, part=('1', 4, 3)))
    path = write(tmp_path / 'x.pth', 'legacy', content, {'0': numbers})
    np.testing.assert_array_equal(torch_files.read(path)['x'], [5, 6])
    content = state_dict(x=tensor(1, (3,), (1,), 9, part=('1', 4, 3)))
    path = write(tmp_path / 'x.pth', 'legacy', content, {'0': numbers})
    with pytest.raises(UserError, match='reaches to number 3 of a storage of 3'):
        torch_files.read(path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('position', ['alone', 'inside'])
def test_code_in_a_pickle_is_refused_by_name_and_not_run(format, position, tmp_path):
    evil = fragment(Evil(tmp_path / 'marker'))
    content = {'alone': b'\x80\x02' + evil + b'.', 'inside': state_dict(x=evil)}[position]
    pickle.loads(content)
    assert (tmp_path / 'marker').exists(), 'the attack works on pickle itself'
    (tmp_path / 'marker').unlink()
    path = write(tmp_path / 'x.pth', format, content, {})
    with pytest.raises(UserError, match=rf'x\.pth: it asks for {os.name}\.system.*state_dict'):
        torch_files.read(path)
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    'name',
    ['builtins.eval', 'builtins.getattr', 'torch.load', 'torch._utils.os.system', 'numpy.dtype',
     'collections.OrderedDict.fromkeys', 'torch.nn.modules.linear.Linear'],
)  # fmt: skip
def test_nothing_else_is_looked_up(name, tmp_path):
    path = write(tmp_path / 'x.pth', 'zip', b'\x80\x02' + named(name) + b'.', {})
    with pytest.raises(UserError, match=f'asks for {name},'):
        torch_files.read(path)


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
    path, random, refused = tmp_path / 'x.pth', np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(whole)
        changed[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        try:
            torch_files.read(path)
        except UserError:
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
        (state_dict(x=tensor(0, (2,), (1,), 2, 'QInt8Storage')), {}, 'asks for torch.QInt8Storage'),
        (b'\x80\x02' + fragment([1, 2]) + b'.', {}, 'it has no state dict: save the state_dict of'),
        (state_dict(), {}, 'it has no state dict: save the state_dict of the model, and convert'),
        (state_dict(epoch=fragment(3)), {}, '"epoch" is of type int and not a tensor: save the'),
    ],
)
@pytest.mark.parametrize('format', FORMATS)
def test_what_is_no_state_dict_is_refused(format, content, storages, message, tmp_path):
    path = write(tmp_path / 'x.pth', format, content, storages)
    with pytest.raises(UserError, match=message):
        torch_files.read(path)


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
