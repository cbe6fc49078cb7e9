"""Runs one trial as a process of train.py in a folder of the sweep, and watches it.

A trial whose process was killed resumes from its last checkpoint, like any other run.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import files
from configs import base
from distributed.preemption import EXIT_CODE
from errors import UserError
from sweeps import owner, room
from sweeps.engine import Work, configuration
from sweeps.study import OpenTrial
from training import records, workdir

ROOT = Path(__file__).resolve().parent.parent
SAVE_TIMEOUT = 60.0  # seconds that a process has to save and end
PAUSE = 0.2  # seconds between two reads of the records


def run(
    work: Work, trial: OpenTrial, environment: dict[str, str], cores: set[int] | None = None
) -> str | None:
    """Runs a trial to its end; returns how it ended, or None if it was stopped and can resume.

    Args:
      work: the sweep.
      trial: a trial of its study.
      environment: variables that the process gets in addition to those of this process.
      cores: the CPU cores that the process may use; None: all.

    Raises:
      owner.TakenOverError: another process has taken the trial over; the process started here has
        ended.
      room.NoRoomError: the disk is full; the trial can resume.
    """
    started = time.monotonic()
    try:
        config = configuration(work.config, trial.parameters)
    except UserError as error:
        trial.fail(str(error))
        return f'invalid: {error}'
    folder = work.folder / 'trials' / f'{trial.number:04d}'
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder.with_suffix('.json'), base.stored(config))
    lock = _locked(work, folder)
    if lock is None:
        return None
    with lock:
        outcome = _train(work, trial, folder, environment, cores, lock.fileno())
    if outcome is None:
        return None
    trial.note(seconds=round(time.monotonic() - started, 3))
    if outcome == 'pruned':
        trial.prune()
        return 'stopped early'
    if outcome == 'done':
        return f'{trial.complete():.4f}'
    trial.fail(outcome)
    return outcome


def _locked(work: Work, folder: Path) -> TextIO | None:
    """Waits until no process of an earlier sweep trains in `folder`; None if told to stop.

    Returns:
      The lock of the trial, an open file. The trial's process inherits it as it starts, so that a
      trial whose sweep was killed is never taken for free: not even before its process has locked
      the folder by itself, which it does only once its libraries are imported.
    """
    announced = False
    while not work.stopping():
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(workdir.lock(folder.parent, f'{folder.name}.lock'))
                workdir.lock(folder).close()  # somebody may have called train.py by hand
                stack.pop_all()
                return lock
            except UserError:
                if not announced:
                    work.say(f'{folder}: waiting for the process that is still training there')
                announced = True
        time.sleep(PAUSE)
    return None


def _train(
    work: Work,
    trial: OpenTrial,
    folder: Path,
    environment: dict[str, str],
    cores: set[int] | None,
    lock: int,
) -> str | None:
    """Runs train.py in `folder`, which inherits the lock; see `_watch` for what it returns."""
    file = folder.with_suffix('.json')
    command = [sys.executable, ROOT / 'train.py', f'--config={file}', f'--workdir={folder}']
    # A launcher's variables describe the process of the sweep, not that of the trial. The cache is
    # the sweep's own, which the file alone cannot say.
    command.append('--config.distributed=off')
    command.append(f'--config.compilation_cache={work.config.compilation_cache}')
    with folder.with_suffix('.log').open('ab') as log:
        begin = log.tell()  # behind what earlier processes of the trial have said
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock],
            env={**os.environ, **environment},
        )  # fmt: skip
        with _ending(process):
            if cores:
                os.sched_setaffinity(process.pid, cores)  # in time: JAX counts them as it starts
            return _watch(work, trial, process, folder, begin)


def _watch(
    work: Work, trial: OpenTrial, process: subprocess.Popen, folder: Path, begin: int
) -> str | None:
    """Reports evaluations as they are recorded, until the trial is to end.

    Returns:
      'done', 'pruned', None if it was stopped and can resume, or an error message.

    Raises:
      room.NoRoomError: it failed because the disk is full.
    """
    metric, seen, prune = work.sweep.objective.metric, 0, False
    checked = time.monotonic()
    while True:
        # The order matters: the code before the records, so that none is missed of a process that
        # has ended.
        code = process.poll()
        # Evaluations check the owner as well, but it may be long until the next one.
        if time.monotonic() - checked >= owner.INTERVAL:
            trial.check()
            checked = time.monotonic()
        for step, value in _evaluations(folder, metric)[seen:]:
            prune = trial.report(value, step) or prune
            seen += 1
        if code is not None:
            break
        if prune:
            return 'pruned'
        if work.stopping():
            return None
        time.sleep(PAUSE)
    if code == 0 and seen:
        return 'done'
    if code == EXIT_CODE or code < 0:
        return None  # stopped from outside; it can resume
    if _in_use(folder):
        return None  # by another process, for which the next start waits
    said = folder.with_suffix('.log').read_bytes()[begin:]
    text = said.decode(errors='replace').strip()
    room.check(work.folder, text)
    return f'exit code {code}: {text[-300:]}'


def _in_use(folder: Path) -> bool:
    """Whether a process trains in `folder`."""
    try:
        workdir.lock(folder).close()
    except UserError:
        return True
    return False


def _evaluations(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Returns the evaluations recorded so far as (step, value)."""
    try:
        metrics = records.read_metrics(folder)
    except (FileNotFoundError, UserError):
        return []
    return [(record['step'], record[metric]) for record in metrics if metric in record]


@contextlib.contextmanager
def _ending(process: subprocess.Popen) -> Iterator[None]:
    """A context at whose end the process is told to save and end, and is killed if it does not."""
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(SAVE_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
