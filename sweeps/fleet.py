"""Engines for many machines: workers that a scheduler starts, each drawing trials by itself.

All they share is the sweep's folder, on a file system that every machine sees, and the study's
storage. A worker that dies leaves its trial; another takes it, and goes on from its checkpoint.
"""

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import TrialState

from errors import UserError
from sweeps import local_engine, study
from sweeps.engine import Work
from sweeps.space import Sweep

PAUSE = 1.0  # seconds between two looks
FRUITLESS = 3  # times that all workers may be started anew without one trial ending


class Scheduler(Protocol):
    """What starts workers somewhere."""

    def start(self, worker: 'Worker', count: int) -> None:
        """Starts so many, or queues them."""

    def under_way(self) -> int:
        """Returns how many run or wait to."""

    def leave(self) -> str:
        """Called when the sweep is told to stop; returns what becomes of the workers."""


class _Stop:
    """What an engine asks whether to end (as training.preemption.Preemption), set by hand."""

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
    """

    config: Any
    sweep: Sweep
    folder: Path
    trials: int
    sampler: str
    pruner: str
    storage: str | None

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


def _say(text: str) -> None:
    print(text, flush=True)


def run(work: Work, scheduler: Scheduler) -> None:
    """Has workers started as long as there is something to do, and tells how far they are.

    Raises:
      UserError: workers end, again and again, and no trial does.
    """
    options = work.options
    worker = Worker(
        work.config, work.sweep, work.folder, work.study.trials, options['sampler'],
        options['pruner'], options['storage'],
    )  # fmt: skip
    seen = {trial.number for trial in work.study.finished()}
    started = 0
    while len(seen) < work.study.trials:
        if work.stopping():
            work.say(scheduler.leave())
            return
        running, free = work.study.load()
        at_work = scheduler.under_way()
        coming = max(at_work - running, 0)  # workers that have no trial yet
        missing = min(options['jobs'] - at_work, free - coming)
        if missing > 0:
            started += missing
            if started > (FRUITLESS + 1) * options['jobs']:
                raise UserError(
                    f'Workers were started {started - missing} times and no trial ended: their '
                    f'output is below {work.folder}.'
                )
            scheduler.start(worker, missing)
            work.say(f'{missing} worker(s) started')
        for trial in work.study.finished():
            if trial.number not in seen:
                seen.add(trial.number)
                started = 0
                work.ended(trial, _how(trial), running)
        time.sleep(PAUSE)


def _how(trial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f'{trial.value:.4f}'
    return trial.user_attrs.get('reason') or 'stopped early'
