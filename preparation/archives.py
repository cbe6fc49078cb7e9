"""Reads tar files from outside: refuses what no data set has, in memory that does not grow.

A tar file may hold links and devices, and names that lead out of a folder. It may also ask for
memory: the name of a member is read whole before it is known, and so is a sparse file, of which
the archive holds next to nothing.
"""

import contextlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from errors import UserError

_BLOCK = 1 << 20  # the most that is read at once; names and headers are far shorter
# A tar file ends with two blocks of zeros, usually padded with more zeros to a multiple of 10,240
# bytes.
_PADDING = 1 << 16
_OTHERS = {
    tarfile.SYMTYPE: 'a link',
    tarfile.LNKTYPE: 'a link',
    tarfile.CHRTYPE: 'a device',
    tarfile.BLKTYPE: 'a device',
    tarfile.FIFOTYPE: 'a pipe',
    tarfile.GNUTYPE_SPARSE: 'a sparse file',
}


# Whatever tarfile and what decompresses for it raise for damaged bytes; the last one for headers
# that follow headers.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, RecursionError)


class _Frugal:
    """A file of which no more than a block is read at once."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read = file.read

    def read(self, size: int) -> bytes:
        """Returns up to `size` bytes; raises tarfile.ReadError for more than a block."""
        if not 0 <= size <= _BLOCK:
            raise tarfile.ReadError(f'it has a name or a header of {size:,} bytes')
        return self._read(size)


def opened(file: BinaryIO) -> tarfile.TarFile:
    """Opens a tar file that is not compressed; raises tarfile.TarError or OSError.

    Args:
      file: seekable; the file, or what decompresses it.
    """
    return tarfile.open(fileobj=_Frugal(file), mode='r:')


@contextlib.contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """A context that turns the errors of reading the archive `path` into a UserError."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f'{path} cannot be read as a tar file ({error!s:.200}): it is damaged or incomplete. '
            'Download it again.'
        ) from error
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror or error}): check the file and its disk.'
        ) from error


def members(tar: tarfile.TarFile, name: str, size: int | None = None) -> Iterator[tarfile.TarInfo]:
    """Yields the files of a tar file in constant memory; its folders are passed over.

    Args:
      tar: the opened file.
      name: its name, for messages.
      size: its size in bytes, where that is known.

    Raises:
      UserError: a member is neither file nor folder, or its name leads elsewhere.
      tarfile.ReadError: the rest of the file is missing, or zeros because it was allocated at full
        size and never filled.
    """
    end = 0
    while (member := tar.next()) is not None:
        tar.members.clear()  # TarFile collects them
        if tar.offset <= end:
            raise tarfile.ReadError(f'{member.name:.200} has a size below 0')
        end = tar.offset
        what = _OTHERS.get(member.type) or ('a sparse file' if member.issparse() else '')
        if not what and not (member.isfile() or member.isdir()):
            what = 'neither a file nor a folder'
        if member.name.startswith('/') or '..' in re.split(r'[/\\]', member.name):
            what = 'a name that leads out of its folder'
        if what:
            raise UserError(
                f'{name} has a member "{member.name:.200}", which is {what}: no published archive '
                'of a data set has one. Download the official file again.'
            )
        if member.isfile():
            yield member
    if size is not None and size - tar.offset > _PADDING:
        raise tarfile.ReadError(f'nothing but zeros from byte {tar.offset} on')


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Returns the contents of a member; raises tarfile.ReadError if the archive ends before."""
    file, blocks, left = tar.extractfile(member), [], member.size
    while left > 0 and (block := file.read(min(left, _BLOCK))):
        blocks.append(block)
        left -= len(block)
    if left > 0:
        raise tarfile.ReadError(f'{member.name:.200} is truncated')
    return b''.join(blocks)
