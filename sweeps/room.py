"""Lack of room on a disk: nobody's trial's fault, so that a sweep stops, and resumes later."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import optuna

from errors import UserError

# What the system says where there is no room: the disk, the user's share of it, a file's largest
# size.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Bytes that have to be left where a training failed without saying why. Half a checkpoint was
# removed when it could not be completed, so that there may be room again for a word or two.
LEAST = 4 * 2**20


class NoRoomError(UserError):
    """A disk is full, or fails; the sweep has stopped, and has lost nothing."""

    def __init__(self, what: str, number: int = errno.ENOSPC, reason: str = ''):
        remedy = 'make room' if number in FULL else 'see to the disk'
        super().__init__(
            f'{what} could not be written: {reason or os.strerror(number)}. The sweep has stopped '
            f'and keeps all its trials: {remedy}, and the same command resumes it.'
        )


@contextlib.contextmanager
def explaining(folder: Path) -> Iterator[None]:
    """Turns errors of full disks into a NoRoomError.

    Args:
      folder: of the sweep.

    Raises:
      UserError: the folder was removed, or the database of the trials has failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoRoomError(error.filename or str(folder), error.errno) from error
        if folder.exists():
            raise
        raise UserError(
            f'{folder} was removed while the sweep was running, and its trials with it: start '
            'again, in a --workdir that stays.'
        ) from error
    except optuna.exceptions.StorageInternalError as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        if 'full' in reason:  # each database has words of its own
            raise NoRoomError('The --storage', reason=reason) from error
        raise UserError(
            f'The --storage has failed: {reason}. All trials are kept: once it answers again, the '
            'same command resumes the sweep.'
        ) from error


def check(folder: Path, said: str = '', least: int = LEAST) -> None:
    """Checks that there is room, or that it was not for lack of it that a process failed.

    Args:
      folder: in which it wrote.
      said: its output, which may be cut, because it may be on the same disk.
      least: bytes that have to be left.

    Raises:
      NoRoomError: it says so, or the disk is full.
    """
    for number in FULL:
        if os.strerror(number) in said:
            raise NoRoomError(str(folder), number)
    probe = folder / f'.room.{os.getpid()}'
    with explaining(folder):
        try:
            with probe.open('wb') as file:
                file.write(os.urandom(least))
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
