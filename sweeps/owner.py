"""Which process runs a trial of a sweep that several machines share."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState

from errors import UserError

# A process says every BEAT seconds that it is alive, and counts as dead after SILENCE.
BEAT, SILENCE = 5.0, 60.0
# After so many seconds the lock for drawing is taken from a process that died with it. Optuna's
# own lock of the journal is taken after 30, which a process that draws may have to wait for.
GRACE = 60


class TakenOverError(Exception):
    """A trial is not this process's any more: another took it, or ended it."""


def unlock_if_moved(lock: Path) -> None:
    """Removes a lock of Optuna's that was left in a folder which has another place by now.

    It is a link to the absolute path of what it locks; Optuna would try for ever to look at that.
    """
    if lock.is_symlink() and not lock.exists():
        lock.unlink(missing_ok=True)


class Owner:
    """Which process runs a trial, and whether that process lives.

    A process that has the sweep for itself may take every trial that another left running. Where
    several machines share it, each process has a file in the sweep's folder, which it touches as
    long as it lives, and its trials bear the file's name.
    """

    def __init__(self, folder: Path, alone: bool):
        self._folder, self._alone = folder / 'workers', alone
        self.name = f'{socket.gethostname()}.{os.getpid()}.{time.time_ns()}'
        self._ended = threading.Event()
        self._nameless: dict[int, float] = {}  # trial -> when it was first seen without an owner
        if alone:
            return
        self._folder.mkdir(exist_ok=True)
        self._drawing = folder / 'drawing'
        if not self._drawing.exists():  # else its time says when the lock last changed hands
            self._drawing.touch()
        unlock_if_moved(Path(f'{self._drawing}.lock'))
        self._lock = JournalFileSymlinkLock(str(self._drawing), GRACE)
        (self._folder / self.name).touch()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # the disk may be there again for the next
                (self._folder / self.name).touch()

    def close(self) -> None:
        """Says that this process runs nothing any more."""
        self._ended.set()
        if not self._alone:
            (self._folder / self.name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def drawing(self):
        """Around drawing a trial: one process at a time, wherever it runs.

        The lock is a symbolic link, because file locks (flock) do not work on every shared disk.
        """
        if self._alone:
            yield
            return
        self._lock.acquire()
        since = time.monotonic()
        try:
            # Those who wait see that it changes hands, and do not take it for a dead process's.
            self._drawing.touch()
            yield
        finally:
            if time.monotonic() - since < GRACE:  # or it may be another's by now
                with contextlib.suppress(RuntimeError):  # "did not possess lock": as above
                    self._lock.release()

    def claim(self, trial: optuna.Trial) -> None:
        """Puts this process's name on a trial."""
        trial.set_user_attr('owner', self.name)

    def check(self, study: optuna.Study, number: int) -> None:
        """Checks that a trial is still this process's.

        Raises:
          TakenOverError: it was silent for too long; another process took the trial, or ended it.
        """
        if self._alone:
            return
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state != TrialState.RUNNING or trial.user_attrs.get('owner') != self.name:
            raise TakenOverError(
                f'trial {number} is left to another process, which took it over while this one '
                f'gave no sign of life for {SILENCE:.0f} s'
            )

    def takes(self, trial: optuna.trial.FrozenTrial, drawing: bool = False) -> bool:
        """Whether this process may take over a running trial: the one that ran it is dead.

        Args:
          trial: as stored.
          drawing: within `drawing`, where nobody else is about to put a name on it.
        """
        owner = trial.user_attrs.get('owner')
        if self._alone:
            return owner != self.name
        if owner is None:
            seen = self._nameless.setdefault(trial.number, time.monotonic())
            return drawing or time.monotonic() - seen >= SILENCE
        return not self._lives(owner)

    def _lives(self, owner: str) -> bool:
        # By the clock of the disk, which machines' own may differ from.
        (self._folder / self.name).touch()
        return _lives(self._folder / owner, (self._folder / self.name).stat().st_mtime)


def check_alone(folder: Path) -> None:
    """Checks that no worker is at a sweep's trials.

    Raises:
      UserError: some are; names them.
    """
    others = sorted(p.name for p in (folder / 'workers').glob('*') if _lives(p, time.time()))
    if others:
        raise UserError(
            f'Workers are still at trials of {folder} ({", ".join(others)}): go on with the same '
            '--engine, or end them first.'
        )


def _lives(sign: Path, now: float) -> bool:
    try:
        return now - sign.stat().st_mtime < SILENCE
    except FileNotFoundError:
        return False
