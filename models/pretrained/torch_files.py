"""Reads weights from PyTorch's files without PyTorch, and without running what is in them.

A .pth file is a pickle, and a pickle is a program. The unpickler here knows ordered dicts, tensors
and storages and refuses every other global by its name, so that nothing else is ever looked up or
called. Both formats of torch.save are read (torch/serialization.py describes them): since 1.6 a zip
archive with a file for each storage, and before that pickles followed by the raw storages.
"""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy
from numpy.lib.stride_tricks import as_strided

from errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    'BFloat16Storage': ml_dtypes.bfloat16,
    'BoolStorage': np.bool_,
    'ByteStorage': np.uint8,
    'CharStorage': np.int8,
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'IntStorage': np.int32,
    'LongStorage': np.int64,
    'ShortStorage': np.int16,
}
_WRAPPERS = ('state_dict', 'model')


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns name -> array of a state dict; .safetensors by its suffix, otherwise PyTorch's file.

    A checkpoint that keeps the state dict under 'state_dict' or 'model' is unwrapped, and a prefix
    'module.' on all names taken off. Arrays may be read-only views that share memory.

    Raises:
      UserError: the file is missing or damaged, is no state dict, or asks for anything but tensors.
    """
    path = Path(path)
    try:
        if path.suffix == '.safetensors':
            return _without_module(safetensors.numpy.load_file(path))
        with path.open('rb') as file:
            start = file.read(4)
            file.seek(0)
            content, storages = (_read_zip if start == b'PK\x03\x04' else _read_legacy)(file)
        tensors = _state_dict(content)
        return {name: tensor.array(storages) for name, tensor in tensors.items()}
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error
    # A damaged pickle raises whatever its bytes happen to mean; so does a damaged header.
    except Exception as error:
        raise UserError(
            f'{path} is damaged, or no file of weights: {" ".join(str(error).split())[:200]}.'
        ) from error


# Named tuples, because a pickle can change the attributes of any object that lets it.
class _Storage(NamedTuple):
    """A stretch of `count` numbers from `start` in the storage called `key`."""

    key: str
    start: int
    count: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the view; raises ValueError where it would leave its storage."""
        storage, offset, shape, strides = self
        numbers = storages[storage.key][storage.start : storage.start + storage.count]
        if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
            raise ValueError(f'a tensor has offset {offset}, shape {shape}, strides {strides}')
        if 0 in shape:
            return np.zeros(shape, numbers.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= len(numbers):
            raise ValueError(f'a tensor reaches to number {last} of a storage of {len(numbers)}')
        strides = [step * numbers.itemsize for step in strides]
        return as_strided(numbers[offset:], shape, strides, writeable=False)


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError('a tensor without a storage')
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


# Everything that a pickle may name. The first of the two tensors is that of torch before 0.4.
_GLOBALS = {
    'collections.OrderedDict': OrderedDict,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    **{f'{module}.{name}': name for module in ('torch', 'torch.cuda') for name in _STORAGES},
}


class _Unpickler(pickle.Unpickler):
    """Makes dicts, lists, numbers, strings and `_Tensor`s, and nothing else.

    `dtypes` has the type of each storage that was named, which its bytes do not tell.
    """

    def __init__(self, file: BinaryIO):
        # Python 2 wrote some files that are still published; its strings are these bytes.
        super().__init__(file, encoding='utf-8')
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = _GLOBALS.get(f'{module}.{name}')
        if found is None:
            raise UserError(
                f'it asks for {module}.{name}, which is no tensor and could run code. If you trust '
                "it, save the model's state_dict alone with PyTorch, and convert that."
            )
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        kind, name, key, _, count, *part = pid
        if kind != 'storage':
            raise ValueError(f'an unknown object {kind!r}')
        key, dtype = str(key), np.dtype(_STORAGES[name])
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise ValueError(f'storage {key} has two types')
        if part and part[0] is not None:  # torch before 0.4: (key, start, count) of a part
            _, start, count = part[0]
            return _Storage(key, start, count)
        return _Storage(key, 0, count)


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads FOLDER/data.pkl and the storages that it names, FOLDER/data/KEY."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count('/') == 1 and name.endswith('/data.pkl')]
        if len(pickles) != 1:
            raise ValueError('a zip archive without data.pkl')
        folder = pickles[0].removesuffix('data.pkl')
        # torch compresses nothing; so no entry can be larger than the file.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError('a compressed zip archive')
        if f'{folder}byteorder' in names and archive.read(f'{folder}byteorder') != b'little':
            raise UserError('it was saved on a big-endian machine; convert it with PyTorch there.')
        with archive.open(pickles[0]) as pickled:
            unpickler = _Unpickler(pickled)
            content = unpickler.load()
        storages = {
            key: np.frombuffer(archive.read(f'{folder}data/{key}'), dtype)
            for key, dtype in unpickler.dtypes.items()
        }
    return content, storages


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads magic number, protocol, machine, content, storage keys; then each storage."""
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError('it does not start as a file of PyTorch')
    _Unpickler(file).load()
    if not _Unpickler(file).load().get('little_endian', True):
        raise UserError('it was saved on a big-endian machine; convert it with PyTorch there.')
    unpickler = _Unpickler(file)
    content = unpickler.load()
    storages = {}
    size = os.fstat(file.fileno()).st_size
    for key in map(str, _Unpickler(file).load()):
        dtype = unpickler.dtypes[key]
        (count,) = struct.unpack('<q', file.read(8))
        if not 0 <= count * dtype.itemsize <= size - file.tell():
            raise ValueError(f'storage {key} of {count} numbers reaches outside the file')
        storages[key] = np.fromfile(file, dtype, count)
    return content, storages


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """Returns the dict of tensors in what was pickled."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise UserError('it holds no state dict, which maps names to tensors.')
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise UserError(
                f'"{name}" in it is {type(value).__name__}, no tensor, so it is no state dict.'
            )
    return _without_module(content)


def _without_module(state: dict[str, Any]) -> dict[str, Any]:
    """Takes off what torch.nn.DataParallel puts before all names."""
    if all(name.startswith('module.') for name in state):
        return {name.removeprefix('module.'): value for name, value in state.items()}
    return state
