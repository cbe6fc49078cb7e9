"""Writes PyTorch's two formats by hand, from the description in torch/serialization.py."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

FORMATS = ('zip', 'legacy')
MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {'float32': 'FloatStorage', 'float16': 'HalfStorage', 'int64': 'LongStorage'}


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


class Named:
    """What a pickle calls by its name, and this process does not have."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        raise NotImplementedError


class _Pickler(pickle._Pickler):
    """Pickles arrays as tensors, each with a storage of its own."""

    def __init__(self, file, protocol):
        super().__init__(file, protocol)
        self.storages = {}

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Named):
            self.write(named(obj.path))
        elif isinstance(obj, np.ndarray):
            strides = tuple(stride // obj.itemsize for stride in obj.strides)
            arguments = Storage(obj), 0, obj.shape, strides, False, OrderedDict()
            self.save_reduce(Named('torch._utils._rebuild_tensor_v2'), arguments)
        elif isinstance(obj, Storage):
            key, kind = str(len(self.storages)), Named(f'torch.{KINDS[obj.numbers.dtype.name]}')
            self.storages[key] = obj.numbers
            self.save(('storage', kind, key, 'cpu', len(obj.numbers)))
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


class Storage:
    def __init__(self, array):
        # What was broadcast from one number stays one number.
        self.numbers = array.reshape(-1)[:1].copy() if not any(array.strides) else array.ravel()


def pickled(content, protocol=2):
    """Returns (pickle, {key: array}) of any objects with arrays among them."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol)
    pickler.dump(content)
    return file.getvalue(), pickler.storages
