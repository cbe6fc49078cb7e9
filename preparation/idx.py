"""Reads the idx files in which MNIST, Fashion-MNIST, KMNIST, EMNIST and others are published.

Format: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
32-bit integer, then the values (Y. LeCun, "The MNIST database of handwritten digits").
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil

from data_sources.picture_files import system_kind
from errors import UserError

_UINT8 = 0x08
_TYPES = {0x08: 'uint8', 0x09: 'int8', 0x0B: 'int16', 0x0C: 'int32', 0x0D: 'float', 0x0E: 'double'}
_BLOCK = 1 << 20
# A gzip file may unpack to a thousand times its size. Pictures do not: MNIST's to 5 times. Small
# ones may hold anything, such as black pictures.
_RATIO = 64
_SMALL = 1 << 26
_SPLIT_WORDS = {
    'train': {'train'},
    'validation': {'validation', 'valid', 'val'},
    'test': {'test', 't10k'},
}


def read(path: Path, dimensions: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes, plain or .gz.

    Args:
      path: the file.
      dimensions: the number it must have: 3 for images [n, height, width], 1 for labels [n].

    Returns:
      a uint8 array with that number of dimensions, none of them zero.

    Raises:
      UserError: the file is missing, damaged gzip, not an idx file, of another type or number of
        dimensions, empty, truncated, or longer than its header says.
    """
    try:
        size = path.stat().st_size if path.is_file() else 0
        with _opened(path) as file:
            shape = _read_header(path, file.read(4 + 4 * dimensions), dimensions)
            expected = math.prod(shape)
            _check_memory(path, min(expected, size))
            data = _read_values(file, expected, _budget(path, size))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f'{path} cannot be read ({error}): download or copy it again.') from error
    says = f'its header says {list(shape)}, which is {expected} bytes, but'
    if data is None:
        raise UserError(
            f'{path} is refused: its header says {list(shape)}, which is {expected} bytes, and it '
            f'unpacks to more than {_RATIO} times the {size} that it has. Download it again from '
            'a place that you trust.'
        )
    if len(data) < expected:
        raise UserError(
            f'{path} is truncated: {says} only {len(data)} follow. Download or copy it again.'
        )
    if len(data) > expected:
        raise UserError(f'{path} is too long: {says} more follow. Download or copy it again.')
    return data.reshape(shape)


def read_examples(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images uint8 [n, height, width, 1] and labels int32 [n] of one split.

    Raises:
      UserError: as for `read`, or the numbers of images and labels differ.
    """
    images, labels = read(images_path, 3), read(labels_path, 1)
    if len(images) != len(labels):
        raise UserError(
            f'{images_path} has {len(images)} images, but {labels_path} has {len(labels)} labels: '
            'use files of the same split.'
        )
    return images[..., None], labels.astype(np.int32)


def find_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Returns split -> (images file, labels file) for the idx files of a folder.

    Files are recognised by the words in their names: train, validation, and test or t10k; images
    and labels. Train and test are required, validation is optional.

    Raises:
      UserError: the folder does not exist, a file is missing, or several files match.
    """
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder: --source must be a folder with idx files.')
    files = {}
    for split in _SPLIT_WORDS:
        pair = [_find_file(folder, split, kind) for kind in ('images', 'labels')]
        if pair == [None, None] and split == 'validation':
            continue
        for path, kind, form in zip(pair, ('images', 'labels'), ('idx3', 'idx1'), strict=True):
            if path is None:
                raise UserError(
                    f'{folder} has no {split} {kind}: a file such as '
                    f'{split}-{kind}-{form}-ubyte.gz is expected.'
                )
        files[split] = (pair[0], pair[1])
    return files


def _find_file(folder: Path, split: str, kind: str) -> Path | None:
    matches = []
    for path in sorted(folder.iterdir()):
        if system_kind(path.name):
            continue  # macOS leaves a file "._NAME" beside each
        words = set(re.split(r'[-_.]', path.name.lower()))
        if kind in words and words & _SPLIT_WORDS[split] and words & {'idx1', 'idx3'}:
            matches.append(path)
    if len(matches) > 1:
        names = ', '.join(path.name for path in matches)
        raise UserError(f'{folder} has several files of {split} {kind} ({names}): keep only one.')
    return matches[0] if matches else None


def _read_header(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    """Checks the header of a file and returns the shape in it."""
    wanted = bytes([0, 0, _UINT8, dimensions])
    magic = header[:4]
    if len(magic) < 4 or magic[:2] != b'\0\0' or magic[2] not in _TYPES:
        raise UserError(
            f'{path} is not an idx file of this kind: it starts with '
            f'{magic.hex() or "nothing"} instead of {wanted.hex()}.'
        )
    if magic[2] != _UINT8:
        raise UserError(
            f'{path} contains {_TYPES[magic[2]]} values: only uint8 values are supported.'
        )
    if magic[3] != dimensions:
        raise UserError(
            f'{path} has {magic[3]} dimensions instead of {dimensions}: images have 3, labels 1.'
        )
    if len(header) < 4 + 4 * dimensions:
        raise UserError(
            f'{path} is truncated: it ends inside its header. Download or copy it again.'
        )
    shape = struct.unpack(f'>{dimensions}I', header[4:])
    if 0 in shape:
        raise UserError(f'{path} is empty: its header says {list(shape)}.')
    return shape


def _opened(path: Path) -> BinaryIO:
    """Opens a file, which has to be a regular one: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError('it is not a regular file')
    return gzip.open(path) if path.suffix == '.gz' else path.open('rb')


def _check_memory(path: Path, size: int) -> None:
    """Checks that a plain file fits, which may be long and take no room on the disk."""
    free = psutil.virtual_memory().available
    if size > free:
        raise UserError(
            f'{path} has {size:,} bytes, and the machine {free:,} of free memory, which has to '
            'hold them: use a machine with more.'
        )


def _budget(path: Path, size: int) -> int:
    """Returns the number of bytes that a file of `size` bytes may hold."""
    return max(_SMALL, _RATIO * size) if path.suffix == '.gz' else size


def _read_values(file: BinaryIO, expected: int, budget: int) -> np.ndarray | None:
    """Reads up to one byte more than expected; returns None if there is more than the budget."""
    values, count = np.empty(min(expected, budget) + 1, np.uint8), 0
    while got := file.readinto(memoryview(values)[count : count + _BLOCK]):
        count += got
    return None if count > budget else values[:count]
