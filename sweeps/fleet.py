"""Engines for many machines: workers that a scheduler starts, each drawing trials by itself.

All they share is the sweep's folder, on a file system that every machine sees, and the study's
storage. A worker that dies leaves its trial; another takes it, and goes on from its checkpoint.
"""

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import TrialState

from configs.search import Sweep
from errors import UserError
from sweeps import local_engine, owner, study
from sweeps.engine import Work

PAUSE = 1.0  # seconds between two looks
FRUITLESS = 3  # times that all workers may be started anew without one trial getting further


class Scheduler(Protocol):
    """What starts workers somewhere.

    Attributes:
      output: where the workers' output is, in words.
    """

    output: str

    def start(self, worker: 'Worker', count: int) -> int:
        """Starts so many, or queues them; returns how many: none if that has to wait."""

    def under_way(self) -> int | None:
        """Returns how many run or wait to; None if that is not known now."""

    def leave(self) -> str:
        """Called when the sweep is told to stop; returns what becomes of the workers."""


class _Stop:
    """What an engine asks whether to end (as distributed.preemption.Preemption), set by hand."""

    def __init__(self):
        self.event = threading.Event()

    def reason(self) -> str | None:
        return 'told to stop' if self.event.is_set() else None


@dataclasses.dataclass
class Worker:
    """Runs trials of a sweep, one after the other; to be pickled and called where it shall work.

    Attributes:
      config, sweep, folder: of the sweep; the folder as every machine sees it.
      trials, sampler, pruner, storage: see sweeps.study.
      cwd: where relative paths of the configuration start.
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
        """Works until no trial is left, or `stop` is called by a signal's handler."""
        self._stop = _Stop()
        self._failed: list[BaseException] = []
        # In a thread: a handler, which interrupts the main one, can wait for its end.
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        try:
            while self._thread.is_alive():
                self._thread.join(PAUSE)  # Ray's interrupt does not end a wait without end
        finally:  # Ctrl-C, or a scheduler's own way of cancelling
            self.stop()
        if self._failed:
            raise self._failed[0]

    def ask_to_stop(self) -> None:
        """Lets the trial under way save and end."""
        if self._stop is not None:
            self._stop.event.set()

    def stop(self) -> None:
        """Lets the trial under way save and end; returns when it has."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join()

    def again(self) -> 'Worker':
        """Returns one like this that has not begun."""
        return dataclasses.replace(self)

    def _work(self) -> None:
        try:
            self._enter()
            about = study.describe(self.sweep, self.config, self.sampler, self.storage)
            storage = study.storage_of(self.folder, self.storage, alone=False)
            named = (self.sampler, self.pruner, storage, about)
            trials = study.Study(self.sweep, self.folder, self.trials, *named, alone=False)
            try:
                options = {'jobs': 1}
                local_engine.run(
                    Work(self.config, self.sweep, trials, self.folder, self._stop, _say, options)
                )
            finally:
                trials.close()
        except BaseException as error:
            self._failed.append(error)

    def _enter(self) -> None:
        # Where a scheduler starts processes is its own affair.
        try:
            os.chdir(self.cwd)
        except OSError as error:
            _say(
                f'{self.cwd}, where the sweep was started, cannot be entered on this machine '
                f'({error.strerror}): relative paths start in {Path.cwd()}'
            )


def _say(text: str) -> None:
    print(text, flush=True)


def run(work: Work, scheduler: Scheduler) -> None:
    """Has workers started as long as there is something to do, and tells how far they are.

    Raises:
      UserError: workers end, again and again, and no trial gets further.
    """
    starter = _Starter(work, scheduler)
    seen = {trial.number for trial in work.study.finished()}
    while len(seen) < work.study.trials:
        if work.stopping():
            work.say(scheduler.leave())
            return
        running, free = work.study.load()
        starter.look(running, free)
        for trial in work.study.finished():
            if trial.number not in seen:
                seen.add(trial.number)
                starter.fruitless = 0
                work.ended(trial, _how(trial), running)
        time.sleep(PAUSE)


class _Starter:
    """Starts workers where they are missing.

    Attributes:
      fruitless: how many were started since a trial ended or got further.
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
        """Starts as many as are missing; see Study.load for the numbers."""
        at_work = self._scheduler.under_way()
        if at_work is None or time.monotonic() < self._next:
            return
        coming = max(at_work - running, 0)  # workers that have no trial yet
        missing = min(self._work.options['jobs'] - at_work, free - coming)
        if missing <= 0:
            return
        self._look_for_progress()
        if self.fruitless + missing > (FRUITLESS + 1) * self._work.options['jobs']:
            raise UserError(
                f'Workers were started {self.fruitless} times and no trial got further: '
                f'{self._scheduler.output}.'
            )
        count = self._scheduler.start(self._worker, missing)
        if count:
            self.fruitless += count
            self._work.say(f'{count} worker(s) started')
            # Until it is known who is dead, the trial of a dead worker looks like one that these
            # have drawn, and more would be started in their place.
            self._next = time.monotonic() + owner.SILENCE

    def _look_for_progress(self) -> None:
        # Trials that are longer than their workers live get further without ending.
        files = (self._work.folder / 'trials').glob('*/metrics.jsonl')
        recorded = sum(file.stat().st_size for file in files)
        if recorded > self._recorded:
            self.fruitless, self._recorded = 0, recorded


def _how(trial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f'{trial.value:.4f}'
    return trial.user_attrs.get('reason') or 'stopped early'
