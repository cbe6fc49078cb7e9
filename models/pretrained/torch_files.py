"""Reads PyTorch's files without PyTorch, and without running code from them.

A .pth file is a pickle, and a pickle is a program. The unpickler here makes dicts, lists, numbers,
texts and tensors; whatever else the pickle names becomes a `Foreign`, which does nothing, so that
nothing else is ever looked up or called. Both formats of torch.save are read
(torch/serialization.py describes them): since 1.6 a zip archive with a file for each storage, and
before that pickles followed by the raw storages. Memory is bounded by the size of the file: a
pickle is looked through before it is read, a tensor's shape is checked when it is met, and the
numbers are read for those tensors alone that are asked for.
"""

import contextlib
import dataclasses
import io
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

import files
import pickles
from errors import UserError
from models.pretrained.folder import read_safetensors

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
_BIG_ENDIAN = 'it was saved on a big-endian machine: convert it with PyTorch on that machine.'
_MOST_NAMES = 10_000  # of foreign classes and functions; each takes a kilobyte
_LONGEST_NAME = 500
_MOST_AXES = 64  # as in PyTorch and NumPy
_SMALL = 1 << 20  # bytes that a tensor may have in however small a file


class Foreign:
    """Stands for an object that is no tensor. It was not made, and does nothing.

    There is a subclass for each class or function that a pickle names, called by that name.

    Attributes:
      items: what the pickle stores in it by key, as in a dict; None if nothing.
      state: its attributes, as the pickle has them.
    """

    __slots__ = ('items', 'state')

    def __new__(cls, *_: Any, **__: Any) -> 'Foreign':
        """Forgets what it would be called with."""
        self = super().__new__(cls)
        self.items = self.state = None
        return self

    def __call__(self, *_: Any, **__: Any) -> 'Foreign':
        """Does nothing."""
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.items is None:
            self.items = {}
        self.items[key] = value

    def append(self, _: Any) -> None:
        """Does nothing; the unpickler adds to sets and kinds of lists by these methods."""

    extend = add = append


# Named tuples, because a pickle can set the attributes of any mutable object.
class _Storage(NamedTuple):
    """The `count` numbers from `start` on in the storage called `key`."""

    key: str
    start: int
    count: int
    dtype: np.dtype


class Tensor(NamedTuple):
    """A view of a storage whose numbers were not read; offset and strides are in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return self.storage.dtype

    def array(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the view; raises ValueError if it would reach outside its storage."""
        storage, offset, shape, strides = self
        numbers = storages[storage.key][storage.start : storage.start + storage.count]
        if 0 in shape:
            return np.zeros(shape, numbers.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= len(numbers):
            raise ValueError(f'a tensor reaches to number {last} of a storage of {len(numbers)}')
        strides = [step * numbers.itemsize for step in strides]
        return as_strided(numbers[offset:], shape, strides, writeable=False)


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """What was saved in a file.

    Attributes:
      path: the file.
      content: dicts, lists, tuples, numbers and texts, with a `Tensor` or an array in place of a
        tensor, and a `Foreign` in place of all else.
      load: reads storages: {key: type} -> {key: array}.
    """

    path: Path
    content: Any
    load: Callable[[dict[str, np.dtype]], dict[str, np.ndarray]]

    def arrays(self, tensors: Mapping[str, Tensor | np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the numbers of tensors of this file; they may be read-only and share memory.

        Raises:
          UserError: the file is damaged.
        """
        with _explaining(self.path):
            views = [tensor.storage for tensor in tensors.values() if isinstance(tensor, Tensor)]
            storages = self.load({view.key: view.dtype for view in views})
            return {
                name: tensor.array(storages) if isinstance(tensor, Tensor) else tensor
                for name, tensor in tensors.items()
            }


def read(path: Path) -> TorchFile:
    """Reads a .safetensors file or a file of PyTorch, but not yet the numbers of its tensors.

    Raises:
      UserError: the file is missing or damaged, or neither of both.
    """
    path = Path(path)
    with _explaining(path), files.open_regular(path) as file:
        start = file.read(9)
        file.seek(0)
        if path.suffix == '.safetensors' or start[8:] == b'{':
            return TorchFile(path, read_safetensors(path), lambda keys: {})
        if start.startswith(b'PK\x03\x04'):
            return TorchFile(path, _read_zip(file), lambda keys: _zip_storages(path, keys))
        content, places = _read_legacy(file)
        return TorchFile(path, content, lambda keys: _legacy_storages(path, places, keys))


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turns whatever reading raises into a UserError that names the file."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(str(path)) else f'{path}: {error}') from error
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror or error}): check the path and its '
            'permissions.'
        ) from error
    # A damaged pickle or header may raise any error.
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f'{path} is damaged, or not a file of weights ({reason}): download it again.'
        ) from error


class _Unpickler(pickle.Unpickler):
    """Creates dicts, lists, numbers, texts and `Tensor`s, and a `Foreign` for all else.

    Args:
      file: a pickle begins at its position; it has been checked.
      size: the size of the whole file in bytes, which no tensor may exceed.
    """

    def __init__(self, file: BinaryIO, size: int):
        # Some files that are still published were written by Python 2, with strings as bytes.
        super().__init__(file, encoding='utf-8')
        self.size = size
        self.foreign: dict[str, type[Foreign]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        # torch before 0.4 wrote `_rebuild_tensor`, later ones `..._v2`.
        self.known = {
            'collections.OrderedDict': OrderedDict,
            'collections.defaultdict': lambda *_: {},
            'torch._utils._rebuild_tensor': self._tensor,
            'torch._utils._rebuild_tensor_v2': self._tensor,
            'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
            'torch._utils._rebuild_parameter_with_state': lambda tensor, *_: tensor,
            'torch._tensor._rebuild_from_type_v2': lambda rebuild, _, args, *__: rebuild(*args),
            **{f'torch.{name}': name for name in _STORAGES},
            **{f'torch.cuda.{name}': name for name in _STORAGES},
        }

    def find_class(self, module: str, name: str) -> Any:
        name = f'{module}.{name}'
        if name in self.known:
            return self.known[name]
        if len(self.foreign) > _MOST_NAMES or len(name) > _LONGEST_NAME:
            raise ValueError(f'it names more than {_MOST_NAMES:,} classes, or very long ones')
        return self.foreign.setdefault(name, type(name, (Foreign,), {'__slots__': ()}))

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == 'module':  # a class of layers, before 1.6 with its source
            return pid[1]
        kind, name, key, _, count, *view = pid
        if kind != 'storage':
            raise ValueError('an object outside the pickle that is no storage')
        if name not in _STORAGES:  # a type that NumPy has not, such as that of quantized tensors
            return name()
        key, dtype = str(key), np.dtype(_STORAGES[name])
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise ValueError(f'storage {key} has two types')
        start = 0
        if view and view[0] is not None:  # torch before 0.4: a view (key, start, count)
            _, start, count = view[0]
        _check_counts(start, count)
        return _Storage(key, start, count, dtype)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
        if isinstance(storage, Foreign):
            return storage
        if not isinstance(storage, _Storage):
            raise ValueError('a tensor without a storage')
        shape, strides = tuple(shape), tuple(strides)
        if len(shape) != len(strides) or len(shape) > _MOST_AXES:
            raise ValueError(f'a tensor with {len(shape)} axes and {len(strides)} strides')
        try:
            _check_counts(offset, *shape, *strides)
        except ValueError as error:
            message = f'a tensor has offset {offset}, shape {shape}, strides {strides}'
            raise ValueError(message) from error
        # A stride of 0 makes a large tensor of a single number.
        if math.prod(shape) * storage.dtype.itemsize > max(self.size, _SMALL):
            raise ValueError(f'a tensor of shape {shape} is larger than its file')
        return Tensor(storage, offset, shape, strides)


def _check_counts(*numbers: Any) -> None:
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers):
        raise ValueError('a size that is none')


def _unpickled(file: BinaryIO, size: int) -> tuple[Any, dict[str, np.dtype]]:
    """Returns the value of the pickle at the file's position, and the types of its storages."""
    pickles.check(file)
    unpickler = _Unpickler(file, size)
    return unpickler.load(), unpickler.dtypes


def _read_zip(file: BinaryIO) -> Any:
    """Reads FOLDER/data.pkl."""
    with zipfile.ZipFile(file) as archive:
        folder = _folder(archive)
        order = f'{folder}byteorder'
        if order in archive.namelist() and _entry(archive, order) != b'little':
            raise UserError(_BIG_ENDIAN)
        return _unpickled(io.BytesIO(_entry(archive, f'{folder}data.pkl')), _size(file))[0]


def _folder(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    found = [name for name in names if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(found) != 1:
        raise ValueError('a zip archive without data.pkl')
    return found[0].removesuffix('data.pkl')


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    # torch does not compress. Refusing compression limits each entry to the size of the file.
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError('a compressed zip archive')
    return archive.read(name)


def _zip_storages(path: Path, dtypes: dict[str, np.dtype]) -> dict[str, np.ndarray]:
    """Reads FOLDER/data/KEY for each of the storages."""
    with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
        entries = {key: f'{_folder(archive)}data/{key}' for key in dtypes}
        # Entries may lie over one another.
        if sum(archive.getinfo(name).file_size for name in entries.values()) > _size(file):
            raise ValueError('its storages are larger than the file')
        return {
            key: np.frombuffer(archive.read(name), dtypes[key]) for key, name in entries.items()
        }


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Reads magic number, protocol, machine, content and storage keys.

    Returns:
      The content, and where each storage is: {key: (position in bytes, count)}.
    """
    size = _size(file)
    magic, _ = _unpickled(file, size)
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise UserError(
            'it is a pickle that torch.save did not write: load it in Python, write the state_dict '
            'by torch.save, and convert that.'
        )
    _unpickled(file, size)
    if not _unpickled(file, size)[0].get('little_endian', True):
        raise UserError(_BIG_ENDIAN)
    content, dtypes = _unpickled(file, size)
    places = {}
    for key in map(str, _unpickled(file, size)[0]):
        (count,) = struct.unpack('<q', file.read(8))
        length = count * dtypes[key].itemsize
        if not 0 <= length <= size - file.tell():
            raise ValueError(f'storage {key} of {count} numbers reaches outside the file')
        places[key] = file.tell(), count
        file.seek(length, os.SEEK_CUR)
    return content, places


def _legacy_storages(
    path: Path, places: dict[str, tuple[int, int]], dtypes: dict[str, np.dtype]
) -> dict[str, np.ndarray]:
    """Reads the storages from their places."""
    storages = {}
    with files.open_regular(path) as file:
        for key, dtype in dtypes.items():
            position, count = places[key]
            file.seek(position)
            storages[key] = np.fromfile(file, dtype, count)
    return storages


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
