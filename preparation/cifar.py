"""Reads CIFAR-10 and CIFAR-100 from their published Python archives without running their code.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The archives contain
pickles, which may call any function when they are loaded. The reader here allows only the three
names of NumPy that these files need, and replaces them by classes that only store their arguments:
the bytes, the shape and the type of an array. `pickles.check` looks through each pickle before.
"""

import dataclasses
import gzip
import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import pickles
from errors import UserError
from preparation import archives, downloads
from preparation.downloads import Published

MIRRORS = ('https://www.cs.toronto.edu/~kriz/',)
_SHAPE = (3, 32, 32)  # the values of a row: all red ones, then all green, then all blue
_MAX_BYTES = 1 << 28  # limit for one pickle; the largest published one has 155 MB
_MAX_ARCHIVE = 1 << 28  # limit for all files of an archive; the published ones have 186 MB


@dataclasses.dataclass(frozen=True)
class Edition:
    """One of the two data sets.

    Attributes:
      archive: the published archive.
      folder: the folder inside the archive.
      files: split -> the names of its pickles, in order.
      labels: the key of the labels in these pickles.
      meta: the name of the pickle that has the class names.
      names: the key of the class names in that pickle.
      classes: the number of classes.
      counts: split -> the number of examples.
    """

    archive: Published
    folder: str
    files: Mapping[str, tuple[str, ...]]
    labels: str
    meta: str
    names: str
    classes: int
    counts: Mapping[str, int]


EDITIONS = {
    'cifar10': Edition(
        archive=Published(
            'cifar-10-python.tar.gz', 170_498_071, 'c58f30108f718f92721af3b95e74349a', 'md5'
        ),
        folder='cifar-10-batches-py',
        files={
            'train': tuple(f'data_batch_{number}' for number in range(1, 6)),
            'test': ('test_batch',),
        },
        labels='labels',
        meta='batches.meta',
        names='label_names',
        classes=10,
        counts={'train': 50_000, 'test': 10_000},
    ),
    'cifar100': Edition(
        archive=Published(
            'cifar-100-python.tar.gz', 169_001_437, 'eb9058c3a382ffc7106e4002c42a8d85', 'md5'
        ),
        folder='cifar-100-python',
        files={'train': ('train',), 'test': ('test',)},
        labels='fine_labels',
        meta='meta',
        names='fine_label_names',
        classes=100,
        counts={'train': 50_000, 'test': 10_000},
    ),
}


def download(edition: Edition, folder: Path) -> None:
    """Downloads the archive unless `folder` has it already.

    Raises:
      UserError: the archive cannot be downloaded, or the folder cannot be written.
    """
    name = edition.archive.name
    downloads.fetch(folder, [edition.archive], MIRRORS, name, f'--source={name}')


def read(
    edition: Edition, source: Path
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """Reads one of the data sets.

    Args:
      edition: the data set.
      source: the archive, a folder with the archive, or the folder of its unpacked files.

    Returns:
      ({split: (images uint8 [n, 32, 32, 3], labels int32 [n])}, class names); the examples are in
      the order of the files.

    Raises:
      UserError: a file is missing, is not the published one, or asks for code to be run.
    """
    pickles = _read_files(edition, source)
    names = _names(edition, _load(pickles[edition.meta], edition.meta))
    examples = {}
    for split, files in edition.files.items():
        parts = [_examples(edition, _load(pickles[name], name), name) for name in files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if len(images) != edition.counts[split]:
            raise UserError(
                f'{source} has {len(images):,} {split} images instead of the '
                f'{edition.counts[split]:,} that were published: use the complete published files.'
            )
        examples[split] = images, labels
    return examples, names


def _read_files(edition: Edition, source: Path) -> dict[str, bytes]:
    """Returns the contents of the pickles by name."""
    wanted = [edition.meta, *(name for files in edition.files.values() for name in files)]
    if source.is_dir() and (source / edition.archive.name).is_file():
        source = source / edition.archive.name
    try:
        if source.is_file():
            pickles = _read_archive(edition, source, wanted)
        else:
            folder = source / edition.folder if (source / edition.folder).is_dir() else source
            pickles = {n: _read_file(folder / n) for n in wanted if (folder / n).is_file()}
    except OSError as error:
        raise UserError(
            f'{source} cannot be read ({error}): check --source, or leave it out to download the '
            'archive.'
        ) from error
    for name in wanted:
        if name not in pickles:
            raise UserError(
                f'{source} has no "{name}": --source must be {edition.archive.name} (the version '
                'for Python) or the folder of its files.'
            )
    return pickles


def _read_file(path: Path) -> bytes:
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise UserError(
            f'{path} has {size:,} bytes, more than the published file: download the archive again.'
        )
    return path.read_bytes()


def _read_archive(edition: Edition, path: Path, wanted: list[str]) -> dict[str, bytes]:
    if fault := downloads.find_fault(path, edition.archive):
        raise UserError(
            f'{path} is not the published {edition.archive.name}: {fault}. Download it again, or '
            'leave out --source to have it downloaded; a folder of unpacked files works as well.'
        )
    pickles = {}
    with archives.errors_named(path), gzip.open(path) as file:
        tar = archives.opened(file)
        for member in archives.members(tar, str(path)):
            if tar.offset > _MAX_ARCHIVE:
                raise UserError(
                    f'{path} unpacks to more than {_MAX_ARCHIVE:,} bytes, more than the published '
                    'files have: download the archive again.'
                )
            folder, _, name = member.name.rpartition('/')
            if folder == edition.folder and name in wanted:
                pickles[name] = archives.read(tar, member)
    return pickles


class _Kind:
    """Replaces numpy.dtype: stores its arguments and ignores its state (the byte order)."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Replaces numpy.ndarray and the function that creates an empty array.

    It stores its state: (version, shape, type, Fortran order, bytes).
    """

    def __init__(self, *_: Any):
        self.state = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


_ALLOWED = {
    ('numpy', 'ndarray'): _Array,
    ('numpy', 'dtype'): _Kind,
    ('numpy.core.multiarray', '_reconstruct'): _Array,
    ('numpy._core.multiarray', '_reconstruct'): _Array,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        asked = f'{module}.{name}'
        raise UserError(f'it asks for {asked:.100}, which no file of this data set needs')


def _load(data: bytes, name: str) -> dict[str, Any]:
    """Reads a pickled dict; its keys become text."""
    try:
        pickles.check(io.BytesIO(data))
        value = _Reader(io.BytesIO(data), encoding='bytes').load()
    except UserError as error:
        raise UserError(
            f'"{name}" is not loaded because {error}: it may be malicious. Use the published files.'
        ) from error
    except Exception as error:  # a damaged pickle may raise any error
        raise UserError(
            f'"{name}" is not a readable pickle ({error!s:.200}): download the archive again.'
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f'"{name}" contains a {type(value).__name__} instead of a dict: use the published '
            'files.'
        )
    return {_text(key, name): entry for key, entry in value.items()}


def _text(value: Any, name: str) -> str:
    """Returns a text, which Python 2 pickled as bytes. That of other objects may have any length.

    Raises:
      UserError: it is none.
    """
    text = value.decode('latin-1') if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise UserError(
            f'"{name}" has a {type(value).__name__} where a name is expected: use the published '
            'files.'
        )
    return text


def _names(edition: Edition, meta: Mapping[str, Any]) -> tuple[str, ...]:
    names = meta.get(edition.names)
    if not isinstance(names, list) or len(names) != edition.classes:
        raise UserError(
            f'"{edition.meta}" does not contain {edition.classes} {edition.names}: use the '
            'published files.'
        )
    return tuple(_text(name, edition.meta) for name in names)


def _examples(
    edition: Edition, batch: Mapping[str, Any], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images uint8 [n, 32, 32, 3] and labels int32 [n] of one pickle."""
    rows, labels = _pixels(batch.get('data'), name), batch.get(edition.labels)
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise UserError(
            f'"{name}" does not contain one of {edition.labels} for each image: use the published '
            'files.'
        )
    if not all(type(label) is int and 0 <= label < edition.classes for label in labels):
        raise UserError(
            f'"{name}" contains {edition.labels} outside 0 .. {edition.classes - 1}: use the '
            'published files.'
        )
    images = rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(labels, np.int32)


def _pixels(array: Any, name: str) -> np.ndarray:
    """Returns the rows uint8 [n, 3072] of a pickled array from its stored state."""
    state = array.state if isinstance(array, _Array) else None
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, data = state
        if (
            isinstance(kind, _Kind)
            and kind.arguments[:1] in ((b'u1',), ('u1',))
            and isinstance(shape, tuple)
            and len(shape) == 2
            and shape[1] == math.prod(_SHAPE)
            and isinstance(data, bytes)
            and len(data) == shape[0] * shape[1]
        ):
            return np.frombuffer(data, np.uint8).reshape(shape, order='F' if fortran else 'C')
    raise UserError(
        f'"{name}" does not contain images as uint8 [n, {math.prod(_SHAPE)}]: use the published '
        'files.'
    )
