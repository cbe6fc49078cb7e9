"""Common part of the engines for many machines, whose workers are started by a scheduler.

Each worker draws trials by itself. Workers share only the folder of the sweep, on a file system
that all machines see, and the storage of the study. When a worker dies, another takes over its
trial and resumes it from its checkpoint.
"""

import contextlib
import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import FrozenTrial, TrialState

from configs.search import Sweep
from errors import UserError
from sweeps import local_engine, owner, room, study
from sweeps.conditions import Conditions
from sweeps.engine import Work

PAUSE = 1.0  # seconds between two checks of the trials
NO_ROOM = 'no_room'  # a file by which a worker says that the disk is full
FRUITLESS = 3  # times that all workers may be restarted without progress of any trial


class Scheduler(Protocol):
    """Starts workers on the machines of a cluster.

    Attributes:
      output: a phrase that says where the workers' output is, for messages.
    """

    output: str

    def start(self, worker: 'Worker', count: int) -> int:
        """Starts or queues `count` workers; returns how many, 0 if it has to wait."""

    def under_way(self) -> int | None:
        """Returns how many workers are running or queued; None if that is unknown now."""

    def leave(self) -> str:
        """Called when the sweep is told to stop; returns a sentence on what the workers do then."""


class _Stop:
    """Replaces distributed.preemption.Preemption; set by the worker instead of by signals."""

    def __init__(self):
        self.event = threading.Event()

    def reason(self) -> str | None:
        return 'told to stop' if self.event.is_set() else None


@dataclasses.dataclass
class Worker:
    """Runs trials of a sweep one after the other; it is pickled and called on another machine.

    Attributes:
      config: the configuration of the sweep.
      sweep: the search space and the objective.
      folder: the folder of the sweep, by a path that is valid on every machine.
      trials: the number of trials; see sweeps.study.Study for this and the next three.
      sampler: the name of the sampler.
      pruner: the name of the pruner.
      storage: the URL of the storage, or None.
      cwd: the folder in which relative paths of the configuration start.
    """

    config: Any
    sweep: Sweep
    folder: Path
    trials: int
    sampler: str
    pruner: str
    storage: str | None
    cwd: Path = dataclasses.field(default_factory=Path.cwd)

    def __post_init__(self):
        self._stop, self._thread = None, None

    def __call__(self) -> None:
        """Runs trials until none is left or a signal handler calls `stop`."""
        self._stop = _Stop()
        self._errors: list[BaseException] = []
        # The work is done in a thread of its own, so that a signal handler, which interrupts the
        # main thread, can wait for its end.
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        try:
            while self._thread.is_alive():
                self._thread.join(PAUSE)  # Ray's interrupt does not end an unlimited wait
        finally:  # reached by Ctrl-C and a scheduler's cancellation as well
            self.stop()
        if self._errors:
            raise self._errors[0]

    def ask_to_stop(self) -> None:
        """Tells the current trial to save and end."""
        if self._stop is not None:
            self._stop.event.set()

    def stop(self) -> None:
        """Tells the current trial to save and end, and waits until it has."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join()

    def again(self) -> 'Worker':
        """Returns a copy of this worker that has not started."""
        return dataclasses.replace(self)

    def _work(self) -> None:
        try:
            self._change_folder()
            with room.explaining(self.folder):
                self._run_trials()
        except room.NoRoomError as error:
            with contextlib.suppress(OSError):  # there may be room for its name at least
                (self.folder / NO_ROOM).write_text(str(error))
            self._errors.append(error)
        except BaseException as error:
            self._errors.append(error)

    def _run_trials(self) -> None:
        about = study.describe(self.sweep, self.config, self.sampler, self.storage)
        direction = self.sweep.objective.direction
        storage = study.storage_of(self.folder, self.storage, False, direction, _say)
        settings = (self.sampler, self.pruner, storage, about)
        known = Conditions(self.sweep, self.config)
        trials = study.Study(self.sweep, self.folder, self.trials, *settings, False, known)
        try:
            options = {'jobs': 1}
            local_engine.run(
                Work(self.config, self.sweep, trials, self.folder, self._stop, _say, options)
            )
        finally:
            trials.close()

    def _change_folder(self) -> None:
        # A scheduler may start processes in any folder.
        try:
            os.chdir(self.cwd)
        except OSError as error:
            _say(
                f'The folder {self.cwd}, where the sweep was started, is not available on this '
                f'machine ({error.strerror}): relative paths start in {Path.cwd()}'
            )


def _say(text: str) -> None:
    print(text, flush=True)


def run(work: Work, scheduler: Scheduler) -> None:
    """Has workers started while there are trials left, and reports the progress.

    Raises:
      UserError: workers keep ending without progress of any trial, or a worker says that the disk
        is full.
    """
    said_so = work.folder / NO_ROOM
    said_so.unlink(missing_ok=True)
    starter = _Starter(work, scheduler)
    seen = {trial.number for trial in work.study.finished()}
    while len(seen) < work.study.trials:
        if work.stopping():
            work.say(scheduler.leave())
            return
        if said_so.exists():
            work.say(scheduler.leave())
            raise room.NoRoomError(str(work.folder))
        running, free = work.study.load()
        starter.look(running, free)
        for trial in work.study.finished():
            if trial.number not in seen:
                seen.add(trial.number)
                starter.fruitless = 0
                work.ended(trial, _outcome(trial), running)
        time.sleep(PAUSE)


class _Starter:
    """Starts as many workers as are missing.

    Attributes:
      fruitless: how many workers were started since a trial last made progress or ended.
    """

    def __init__(self, work: Work, scheduler: Scheduler):
        self._work, self._scheduler = work, scheduler
        options = work.options
        self._worker = Worker(
            work.config, work.sweep, work.folder, work.study.trials, options['sampler'],
            options['pruner'], options['storage'],
        )  # fmt: skip
        self.fruitless = 0
        self._next, self._recorded = 0.0, 0

    def look(self, running: int, free: int) -> None:
        """Starts the missing workers; `running` and `free` are those of Study.load."""
        workers = self._scheduler.under_way()
        if workers is None or time.monotonic() < self._next:
            return
        idle = max(workers - running, 0)  # workers that have no trial yet
        missing = min(self._work.options['jobs'] - workers, free - idle)
        if missing <= 0:
            return
        self._check_progress()
        if self.fruitless + missing > (FRUITLESS + 1) * self._work.options['jobs']:
            raise UserError(
                f'Workers were started {self.fruitless} times without progress of any trial: '
                f'{self._scheduler.output}.'
            )
        room.check(self._work.folder, least=65536)  # what the workers need to say anything
        count = self._scheduler.start(self._worker, missing)
        if count:
            self.fruitless += count
            self._work.say(f'{count} worker(s) started')
            # Until SILENCE_LIMIT is over, the trial of a dead worker looks like one that a new
            # worker has drawn; without this pause, more workers than needed would be started.
            self._next = time.monotonic() + owner.SILENCE_LIMIT

    def _check_progress(self) -> None:
        # Trials that take longer than the life of a worker make progress without ending.
        files = (self._work.folder / 'trials').glob('*/metrics.jsonl')
        recorded = sum(file.stat().st_size for file in files)
        if recorded > self._recorded:
            self.fruitless, self._recorded = 0, recorded


def _outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f'{trial.value:.4f}'
    return trial.user_attrs.get('reason') or 'stopped early'
