"""Copies a data set that tfds wrote as TFRecord into ArrayRecord files with the same examples.

Nothing is decoded, and TensorFlow is not needed. A TFRecord file is a sequence of records: length
(8 bytes, little-endian), its checksum (4), data, their checksum (4). Checksums are CRC-32C, rotated
by 15 bits and with 0xa282ead8 added (tensorflow/core/lib/io/record_writer.h and hash/crc32c.h).
"""

import hashlib
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

import files
from errors import UserError
from preparation.sharded_writer import Item, Totals

_INFO = 'dataset_info.json'
_FEATURES = 'features.json'
_HEADER = struct.Struct('<QI')
_CHECKSUM = struct.Struct('<I')
_MASK = 0xA282EAD8
_MOST = 1 << 30  # bytes of a record; a file may be as long as it likes and take no room


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
      UserError: the file cannot be read, ends within a record, or a checksum is wrong; the message
        has the offset.
    """
    try:
        with path.open('rb') as file:
            size = os.fstat(file.fileno()).st_size
            while (offset := file.tell()) < size:
                yield _read_record(file, path, offset, size)
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror or error}): check the file and its disk.'
        ) from error


def _read_record(file: BinaryIO, path: Path, offset: int, size: int) -> bytes:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise _damage(path, offset, 'the file ends within a record')
    length, checksum = _HEADER.unpack(header)
    if checksum != _masked_crc(header[:8]):
        raise _damage(path, offset, "the checksum of the record's length is wrong")
    if offset + _HEADER.size + length + _CHECKSUM.size > size:
        raise _damage(path, offset, 'the file ends within a record')
    if length > _MOST:
        raise _damage(path, offset, f'a record of {length:,} bytes is no example')
    data = file.read(length)
    if file.read(_CHECKSUM.size) != _CHECKSUM.pack(_masked_crc(data)):
        raise _damage(path, offset, 'the checksum of the record is wrong')
    return data


def _damage(path: Path, offset: int, reason: str) -> UserError:
    return UserError(
        f'{path} is damaged at offset {offset}: {reason}. Copy that file again from its origin.'
    )


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


class TfrecordSet:
    """A `sharded_writer.Source` of a tfds data set in TFRecord files.

    Each TFRecord shard becomes one ArrayRecord shard.

    Args:
      folder: the version folder with dataset_info.json and features.json, such as
        .../imagenet2012/5.1.0.

    Raises:
      UserError: one of these files is missing or invalid, or a shard is missing.
    """

    shard_bytes = sys.maxsize

    def __init__(self, folder: Path):
        self._folder = folder
        self._info = _read_info(folder)
        self.name, self.version = self._info['name'], self._info['version']
        self._shards = {
            split['name']: self._find_shards(split) for split in self._info.get('splits', ())
        }
        if not self._shards:
            raise UserError(
                f'{folder / _INFO} lists no splits: --source must be the version folder of a '
                'complete tfds data set.'
            )
        self.splits: Mapping[str, int] = {
            split: sum(path.stat().st_size for path, _ in shards)
            for split, shards in self._shards.items()
        }

    def identity(self) -> dict[str, Any]:
        """Returns the hash of the two JSON files, which list the shards, records and bytes."""
        described = [self._folder / _INFO, self._folder / _FEATURES]
        digest = hashlib.sha256(b'\0'.join(path.read_bytes() for path in described))
        return {'tfrecord': digest.hexdigest()}

    def stamp(self) -> Any:
        """Returns None: a damaged shard may be replaced, as the checksums prove the new one."""
        return None

    def items(self, split: str, cursor: Any) -> Iterator[Item]:
        """Yields the records shard by shard; a cursor is the number of finished shards.

        Raises:
          UserError: a shard is damaged, or does not have the recorded number of records.
        """
        for number, (path, expected) in enumerate(self._shards[split]):
            if number < (cursor or 0):
                continue
            records = read_records(path)
            for position in range(1, expected + 1):
                record, last = next(records, None), position == expected
                if record is None or (last and next(records, None) is not None):
                    raise UserError(
                        f'{path} does not have the {expected} records that {_INFO} says: copy '
                        'that file again from its origin.'
                    )
                yield Item(number + last, len(record), record, ends_shard=last)

    def describe(self, folder: Path, splits: Mapping[str, Totals]) -> None:
        """Copies all files beside the shards, and dataset_info.json with the new format."""
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and '.tfrecord' not in path.name and not path.name.startswith('.'):
                shutil.copyfile(path, folder / path.name)
        info = {**self._info, 'fileFormat': 'array_record'}
        (folder / _INFO).write_text(json.dumps(info, indent=2))

    def _find_shards(self, split: Mapping[str, Any]) -> list[tuple[Path, int]]:
        """Returns the shards of a split, each with the number of records it should have."""
        try:
            lengths = [int(length) for length in split.get('shardLengths', ())]
        except (TypeError, ValueError):
            lengths = []
        if not lengths or min(lengths) < 1:
            raise UserError(
                f'{self._folder / _INFO} does not have the length of every shard of '
                f'{split["name"]}: use a complete copy of the data set.'
            )
        shards = []
        for number, length in enumerate(lengths):
            name = f'{self.name}-{split["name"]}.tfrecord-{number:05d}-of-{len(lengths):05d}'
            if not (self._folder / name).is_file():
                raise UserError(
                    f'{self._folder / name} is missing: copy that file from the origin of the set.'
                )
            shards.append((self._folder / name, length))
        return shards


def _names(info: Mapping[str, Any]) -> list[str]:
    """Returns the names of the set and of its splits."""
    return [info['name'], *(split['name'] for split in info.get('splits', []))]


def _read_info(folder: Path) -> dict[str, Any]:
    for name in (_INFO, _FEATURES):
        if not (folder / name).is_file():
            raise UserError(
                f'{folder} has no {name}: --source must be the version folder of a tfds data '
                'set, such as tensorflow_datasets/imagenet2012/5.1.0.'
            )
    info = files.usable_json(folder / _INFO, {'name': str, 'version': str})
    if (
        info is None
        or files.mismatch(info.get('splits', []), [{'name': str}])
        # They become names of files.
        or not all(re.fullmatch(r'[A-Za-z0-9_]{1,99}', name) for name in _names(info))
        or not re.fullmatch(r'[0-9]{1,9}(\.[0-9]{1,9}){2}', info['version'])
    ):
        raise UserError(
            f'{folder / _INFO} is not the description of a tfds data set: copy that file again '
            'from its origin.'
        )
    if (file_format := info.get('fileFormat', 'tfrecord')) != 'tfrecord':
        raise UserError(
            f'The data set in {folder} is stored as {file_format}: only tfrecord can be converted.'
        )
    if config := info.get('configName'):
        raise UserError(
            f'The data set in {folder} is the configuration "{config}" of {info["name"]}: sets '
            'with configurations are not supported.'
        )
    return info
