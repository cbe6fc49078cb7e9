"""The files of prepared data sets: ArrayRecord shards, and how to write so that nothing is lost."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from array_record.python import array_record_module

from errors import UserError

# One record per chunk, for random access. PNG and JPEG are compressed already.
_OPTIONS = 'group_size:1,uncompressed'


class ShardWriter:
    """An ArrayRecord file that is on the disk once it is closed.

    Raises:
      OSError: from any method, when the disk is full or fails.
    """

    def __init__(self, path: Path):
        self._path = path
        with self._disk_errors():
            self._writer = array_record_module.ArrayRecordWriter(str(path), _OPTIONS)

    def write(self, record: bytes) -> None:
        """Appends a record."""
        with self._disk_errors():
            self._writer.write(record)

    def close(self) -> None:
        """Finishes the file and waits until the disk has it."""
        with self._disk_errors():
            self._writer.close()
        with self._path.open('rb') as file:
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what array_record makes of a full disk
            raise OSError(str(error).partition(';')[0]) from error


def is_sound(path: Path, records: int, size: int) -> bool:
    """Whether a shard has its size and can be opened; its footer tells the number of records."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError, IndexError):
        return False
    return found == records


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole or not there, also after a power cut."""
    part = path.with_name(f'{path.name}.part')
    with part.open('w') as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_json(path: Path) -> Any:
    """The contents of a file that `write_json` wrote; None if it is missing or garbled."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def flush_to_disk(folder: Path) -> None:
    """Without this, a power cut after the rename could leave a finished name on empty files."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a second process off `folder`; the kernel lifts the lock when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f'Another process is preparing {folder}: wait until it is done.'
            ) from error
        yield
    finally:
        os.close(descriptor)
