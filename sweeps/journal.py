"""The journal of a sweep: Optuna's file of operations, a line each, which no full disk tears.

A process that is killed may leave half a line, and a power cut a tail of zeros. Optuna appends the
next operation to it, and can read no further. `mend` makes such a journal readable again.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import (
    BaseJournalBackend,
    JournalFileBackend,
    JournalFileSymlinkLock,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

import files
from sweeps import owner
from sweeps.room import NoRoomError

# The operations that matter here, of those that there are; Optuna has no public names for them.
CREATE_STUDY, CREATE_TRIAL, SET_STATE, OPERATIONS = 0, 4, 6, range(11)
OF_TRIALS = range(5, 10)
BEGIN = b'{"op_code":'  # of each line
MENDER = 'mend'  # the name in the lines that are written here


class _NoLock:
    """Stands for the lock of Optuna's file, which Journal holds for longer."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class Journal(JournalFileBackend):
    """Optuna's journal, to which a line is added as a whole or not at all.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        self._path, self._mutex = path, JournalFileSymlinkLock(str(path))
        super().__init__(str(path), lock_obj=_NoLock())

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds operations, behind the last whole line: a process may have died in the midst of one.

        Raises:
          NoRoomError: they cannot be written; the file is as before.
          FileNotFoundError: it was removed.
        """
        with _held(self._mutex):
            end = _end_of_lines(self._path)
            try:
                os.truncate(self._path, end)
                super().append_logs(logs)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.truncate(self._path, end)
                if isinstance(error, FileNotFoundError):
                    raise
                raise NoRoomError(str(self._path), error.errno) from error


@contextlib.contextmanager
def _held(lock: JournalFileSymlinkLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _end_of_lines(path: Path) -> int:
    """Returns the number of bytes up to the end of the last whole line."""
    with path.open('rb') as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            found = file.read(end - start).rfind(b'\n')
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def opened(path: Path, alone: bool, direction: str, say: Callable[[str], None]) -> JournalStorage:
    """Returns the storage that a journal is, mended if it was damaged.

    Args:
      path: of the file.
      alone: whether no other process uses it.
      direction: of the study; see `mend`.
      say: called with a sentence if it was damaged.

    Raises:
      UserError: other processes use it, or it cannot be mended.
    """
    lock = path.with_name(f'{path.name}.lock')
    # An existing lock is then that of a dead process. Optuna would wait 30 s for it.
    if alone:
        owner.check_alone(path.parent)
        lock.unlink(missing_ok=True)
    owner.unlock_if_moved(lock)
    mended = mend(path, direction)
    if mended:
        say(mended)
    return JournalStorage(Journal(path))


def mend(path: Path, direction: str) -> str | None:
    """Makes a damaged journal readable; a copy of the file as it was is kept.

    Lines that cannot be read are left out. Optuna counts trials by the lines that begin them, so
    new ones take the places of those that are missing. Trials that were running when something was
    lost are running still, and are run again.

    Args:
      path: of the file, which may be missing.
      direction: 'maximize' or 'minimize', of the study.

    Returns:
      A sentence that says what was done; None if the journal is sound.

    Raises:
      UserError: there is no room for the copy; the file is as before.
    """
    if not path.exists():
        return None
    with _held(JournalFileSymlinkLock(str(path))):
        content = path.read_bytes()
        parts, records = _mended(_read(content), direction)
        damaged = sum(part is None for part in parts)
        if not damaged:
            return None
        number = 0
        while (copy := path.with_name(f'{path.name}.damaged.{number}')).exists():
            number += 1
        with files.explaining_errors(copy):
            files.replace(copy, content)
            lines = (json.dumps(record, separators=(',', ':')) for record in records)
            files.replace(path, ''.join(f'{line}\n' for line in lines).encode())
    return (
        f'{path} was damaged in {damaged} place{"s" * (damaged > 1)}, as by a full disk, a kill or '
        f'a power cut, and has been mended: trials of which something was lost are run again. The '
        f'file as it was is kept as {copy.name}.'
    )


Parts = list[dict[str, Any] | None]  # operations, and None where something is damaged


def _mended(parts: Parts, direction: str) -> tuple[Parts, list[dict[str, Any]]]:
    """Returns the parts with None for all that Optuna does not understand, and the operations."""
    while True:
        records = _completed(parts, direction)
        replay = _Replay(records)
        try:
            JournalStorage(replay)
            return parts, records
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
            # Such as a line whose second half is that of another one.
            parts = [None if part is replay.last else part for part in parts]


class _Replay(BaseJournalBackend):
    """A journal in memory, which knows the operation that was read last."""

    def __init__(self, records: list[dict[str, Any]]):
        self._records, self.last = records, None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for record in self._records[log_number_from:]:
            self.last = record
            yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise NotImplementedError('it is only read')


def _read(content: bytes) -> Parts:
    """Returns the operations in a journal, and None in each place where something is damaged."""
    parts: Parts = []
    *lines, rest = content.split(b'\n')
    for line in lines:
        record = _record(line)
        # Behind half a line there may be a whole one.
        parts += [record] if record else _records_within(line)
    return parts + (_records_within(rest) if rest else [])


def _records_within(line: bytes) -> Parts:
    """Returns None for the damage, and the whole operations that a damaged line has."""
    found: Parts = [None]
    for text in line.split(BEGIN)[1:]:
        record = _record(BEGIN + text.rstrip(b'\0'))
        if record:
            found.append(record)
    return found


def _record(line: bytes) -> dict[str, Any] | None:
    """Returns the operation of a line; None if it is none."""
    try:
        record = json.loads(line)
        known = record['op_code'] in OPERATIONS and isinstance(record['worker_id'], str)
        if record['op_code'] in OF_TRIALS:
            known = known and isinstance(record['trial_id'], int)
        if record['op_code'] == SET_STATE:
            TrialState(record['state'])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if known else None


def _completed(parts: Parts, direction: str) -> list[dict[str, Any]]:
    """Returns the operations, with others in the places of those that are missing."""
    records: list[dict[str, Any]] = []
    gap: int | None = None  # where in the records something is missing
    count, ended, uncertain = 0, set(), set()
    for record in parts:
        if record is None:
            gap = len(records)
            uncertain |= set(range(count)) - ended
            continue
        if not records and record['op_code'] != CREATE_STUDY:
            records.append(_study(direction))
            gap = 1
        trial = record.get('trial_id', -1)
        if trial >= count and gap is not None:
            records[gap:gap] = [_trial()] * (trial + 1 - count)
            uncertain |= set(range(count, trial + 1))
            count = trial + 1
        if record['op_code'] == CREATE_TRIAL:
            count += 1
        if record['op_code'] == SET_STATE and TrialState(record['state']).is_finished():
            if trial in uncertain:
                continue
            ended.add(trial)
        records.append(record)
    return records


def _study(direction: str) -> dict[str, Any]:
    value = StudyDirection[direction.upper()]
    about = {'study_name': 'sweep', 'directions': [value]}
    return {'op_code': CREATE_STUDY, 'worker_id': MENDER, **about}


def _trial() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat()
    about = {'study_id': 0, 'datetime_start': now}
    return {'op_code': CREATE_TRIAL, 'worker_id': MENDER, **about}
