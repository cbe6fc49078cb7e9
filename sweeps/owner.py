"""Records which process runs a trial of a sweep that several machines share."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState

from errors import UserError

# Seconds between two touches of a process's file, and without a touch until it counts as dead.
INTERVAL, SILENCE_LIMIT = 5.0, 60.0
# Seconds after which the lock for drawing a trial is taken from a process that died with it. It is
# longer than the 30 s after which Optuna takes over its own lock of the journal, because a process
# may have to wait for that one while it draws.
LOCK_TIMEOUT = 60


class TakenOverError(Exception):
    """A trial no longer belongs to this process: another one has taken it over or ended it."""


def unlock_if_moved(lock: Path) -> None:
    """Removes a lock of Optuna's if its folder was moved while the lock was there.

    The lock is a link to the absolute path of the locked file. If that path no longer exists,
    Optuna would wait forever.
    """
    if lock.is_symlink() and not lock.exists():
        lock.unlink(missing_ok=True)


class Owner:
    """Assigns trials to this process, and tells whether the process of another trial is alive.

    A process that has the sweep to itself may take over every trial that another left running. If
    several machines share the sweep, each process has a file in the sweep's folder, which it
    touches as long as it lives, and the name of the file is stored in its trials.

    Args:
      folder: the folder of the sweep.
      alone: whether this process has the sweep to itself.
    """

    def __init__(self, folder: Path, alone: bool):
        self._folder, self._alone = folder / 'workers', alone
        self.name = f'{socket.gethostname()}.{os.getpid()}.{time.time_ns()}'
        self._ended = threading.Event()
        self._unowned: dict[int, float] = {}  # trial -> when it was first seen without an owner
        if alone:
            return
        self._folder.mkdir(exist_ok=True)
        self._drawing = folder / 'drawing'
        if not self._drawing.exists():  # its time is when the lock was last acquired
            self._drawing.touch()
        unlock_if_moved(Path(f'{self._drawing}.lock'))
        self._lock = JournalFileSymlinkLock(str(self._drawing), LOCK_TIMEOUT)
        # The file comes before any trial has its name; otherwise the owner would seem to be dead.
        (self._folder / self.name).touch()
        threading.Thread(target=self._touch_regularly, daemon=True).start()

    def _touch_regularly(self) -> None:
        while not self._ended.wait(INTERVAL):
            with contextlib.suppress(OSError):  # the disk may be back the next time
                (self._folder / self.name).touch()

    def close(self) -> None:
        """Removes this process's file, which frees its trials for other processes at once."""
        self._ended.set()
        if not self._alone:
            (self._folder / self.name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """A context for drawing a trial, in which only one process of all machines is at a time.

        The lock is a symbolic link, because file locks (flock) do not work on every shared disk.
        """
        if self._alone:
            yield
            return
        self._lock.acquire()
        since = time.monotonic()
        try:
            # The new time shows the waiting processes that the lock was acquired anew and is not
            # one that a dead process has left.
            self._drawing.touch()
            yield
        finally:
            # After LOCK_TIMEOUT another process may have the lock; it must not be released then.
            if time.monotonic() - since < LOCK_TIMEOUT:
                with contextlib.suppress(RuntimeError):  # "did not possess lock": the same case
                    self._lock.release()

    def claim(self, trial: optuna.Trial) -> None:
        """Stores this process's name in a trial."""
        trial.set_user_attr('owner', self.name)

    def check(self, study: optuna.Study, number: int) -> None:
        """Checks that a trial still belongs to this process.

        Raises:
          TakenOverError: another process has taken the trial over or ended it, because this one was
            silent for too long.
        """
        if self._alone:
            return
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state != TrialState.RUNNING or trial.user_attrs.get('owner') != self.name:
            raise TakenOverError(
                f'trial {number} is left to another process, which took it over because this one '
                f'did not respond for {SILENCE_LIMIT:.0f} s'
            )

    def takes(self, trial: optuna.trial.FrozenTrial, drawing: bool = False) -> bool:
        """Whether this process may take over a running trial because its owner is dead.

        Args:
          trial: the trial as stored.
          drawing: whether this is called inside `drawing`, where no other process can be about to
            claim the trial.
        """
        owner = trial.user_attrs.get('owner')
        if self._alone:
            return owner != self.name
        if owner is None:
            seen = self._unowned.setdefault(trial.number, time.monotonic())
            return drawing or time.monotonic() - seen >= SILENCE_LIMIT
        return not self._is_alive(owner)

    def _is_alive(self, owner: str) -> bool:
        # The current time is that of the shared disk, because the clocks of machines may differ.
        (self._folder / self.name).touch()
        return _is_fresh(self._folder / owner, (self._folder / self.name).stat().st_mtime)


def check_alone(folder: Path) -> None:
    """Checks that no worker is running trials of a sweep.

    Raises:
      UserError: some workers are; the message names them.
    """
    others = sorted(p.name for p in (folder / 'workers').glob('*') if _is_fresh(p, time.time()))
    if others:
        raise UserError(
            f'Workers are still running trials of {folder} ({", ".join(others)}): use the same '
            '--engine as before, or end them first.'
        )


def _is_fresh(file: Path, now: float) -> bool:
    """Whether a process has touched its file recently."""
    try:
        return now - file.stat().st_mtime < SILENCE_LIMIT
    except FileNotFoundError:
        return False
