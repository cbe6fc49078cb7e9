"""The ArrayRecord shards of prepared data sets, and the lock of the folder they are written to."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from array_record.python import array_record_module

from errors import UserError

# One record per chunk allows random access. PNG and JPEG are already compressed.
_OPTIONS = 'group_size:1,uncompressed'


class ShardWriter:
    """Writes an ArrayRecord file, which is on disk once `close` has returned.

    Raises:
      OSError: from any method, if the disk is full or fails.
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
        """Completes the file and waits until it is on disk."""
        with self._disk_errors():
            self._writer.close()
        with self._path.open('rb') as file:
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # array_record raises it for a full disk
            raise OSError(str(error).partition(';')[0]) from error


def is_sound(path: Path, records: int, size: int) -> bool:
    """Whether a shard has this size, can be opened, and gives this number of records."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError, IndexError):
        return False
    return count == records


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which no other process may prepare a set in `folder`, which is created.

    The kernel releases the lock when the process dies, so a kill leaves no stale lock.

    Raises:
      UserError: another process has the lock.
    """
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
