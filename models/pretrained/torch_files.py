"""Reads weights from PyTorch's files without PyTorch, and without running code from them.

A .pth file is a pickle, and a pickle is a program. The unpickler here allows only ordered dicts,
tensors and storages, and refuses every other global by its name, so that nothing else is ever
looked up or called. Both formats of torch.save are read (torch/serialization.py describes them):
since 1.6 a zip archive with a file for each storage, and before that pickles followed by the raw
storages.
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
_BIG_ENDIAN = 'it was saved on a big-endian machine: convert it with PyTorch on that machine.'


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of a state dict from a .safetensors file or a file of PyTorch.

    A state dict under the key 'state_dict' or 'model' of a checkpoint is found, and a prefix
    'module.' of all names is removed. The arrays may be read-only views that share memory.

    Raises:
      UserError: the file is missing or damaged, is not a state dict, or asks for anything but
        tensors.
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
        raise UserError(
            f'{path} cannot be read ({error.strerror or error}): check the path and its '
            'permissions.'
        ) from error
    # A damaged pickle or header may raise any error.
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'{path} is damaged, or not a file of weights ({reason}): download it again.'
        ) from error


# Named tuples, because a pickle can set the attributes of any mutable object.
class _Storage(NamedTuple):
    """The `count` numbers from `start` on in the storage called `key`."""

    key: str
    start: int
    count: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides are in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the view; raises ValueError if it would reach outside its storage."""
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


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError('a tensor without a storage')
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    return tensor


# All globals that a pickle may use. torch before 0.4 wrote `_rebuild_tensor`, later ones `..._v2`.
_GLOBALS = {
    'collections.OrderedDict': OrderedDict,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    **{f'{module}.{name}': name for module in ('torch', 'torch.cuda') for name in _STORAGES},
}


class _Unpickler(pickle.Unpickler):
    """Creates dicts, lists, numbers, strings and `_Tensor`s, and nothing else.

    Attributes:
      dtypes: the type of each storage that the pickle uses; the storage itself does not have it.
    """

    def __init__(self, file: BinaryIO):
        # Some files that are still published were written by Python 2, with strings as bytes.
        super().__init__(file, encoding='utf-8')
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        allowed = _GLOBALS.get(f'{module}.{name}')
        if allowed is None:
            raise UserError(
                f'it asks for {module}.{name}, which is not a tensor and could run code. If you '
                "trust the file, save only the model's state_dict with PyTorch and convert that."
            )
        return allowed

    def persistent_load(self, pid: Any) -> _Storage:
        kind, name, key, _, count, *view = pid
        if kind != 'storage':
            raise ValueError(f'an unknown object {kind!r}')
        key, dtype = str(key), np.dtype(_STORAGES[name])
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise ValueError(f'storage {key} has two types')
        if view and view[0] is not None:  # torch before 0.4: a view (key, start, count)
            _, start, count = view[0]
            return _Storage(key, start, count)
        return _Storage(key, 0, count)


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads FOLDER/data.pkl and the storages that it uses, FOLDER/data/KEY."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count('/') == 1 and name.endswith('/data.pkl')]
        if len(pickles) != 1:
            raise ValueError('a zip archive without data.pkl')
        folder = pickles[0].removesuffix('data.pkl')
        # torch does not compress. Refusing compression limits each entry to the size of the file.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError('a compressed zip archive')
        if f'{folder}byteorder' in names and archive.read(f'{folder}byteorder') != b'little':
            raise UserError(_BIG_ENDIAN)
        with archive.open(pickles[0]) as pickled:
            unpickler = _Unpickler(pickled)
            content = unpickler.load()
        storages = {
            key: np.frombuffer(archive.read(f'{folder}data/{key}'), dtype)
            for key, dtype in unpickler.dtypes.items()
        }
    return content, storages


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads magic number, protocol, machine, content and storage keys, then the storages."""
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError('it does not start like a file of PyTorch')
    _Unpickler(file).load()
    if not _Unpickler(file).load().get('little_endian', True):
        raise UserError(_BIG_ENDIAN)
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
    """Returns the dict of tensors in the pickled object."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise UserError('it has no state dict: save the state_dict of the model, and convert that.')
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise UserError(
                f'it is not a state dict, because "{name}" is of type {type(value).__name__} and '
                'not a tensor: save the state_dict of the model, and convert that.'
            )
    return _without_module(content)


def _without_module(state: dict[str, Any]) -> dict[str, Any]:
    """Removes the prefix that torch.nn.DataParallel adds to all names."""
    if all(name.startswith('module.') for name in state):
        return {name.removeprefix('module.'): value for name, value in state.items()}
    return state
