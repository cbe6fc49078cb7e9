"""One trial as a process of its own: train.py in a folder below the sweep's, watched.

A trial whose process was killed goes on from its last checkpoint, as every run does.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import files
from configs import schema
from distributed.preemption import EXIT_CODE
from errors import UserError
from sweeps import owner
from sweeps.engine import Work, configuration
from sweeps.study import OpenTrial
from training import records, workdir

ROOT = Path(__file__).resolve().parent.parent
SAVING = 60.0  # seconds that a process has to save and end
PAUSE = 0.2  # seconds between two looks at the records


def run(
    work: Work, trial: OpenTrial, environment: dict[str, str], cores: set[int] | None = None
) -> str | None:
    """Runs a trial to its end; returns how it ended, or None if the sweep was told to stop.

    Args:
      work: the sweep.
      trial: of its study.
      environment: what the process's has besides this one's.
      cores: those of the CPU that it may use; None is all.

    Raises:
      owner.TakenOverError: another process has the trial now; this one's has ended.
    """
    started = time.monotonic()
    try:
        config = configuration(work.config, trial.parameters)
    except UserError as error:
        trial.fail(str(error))
        return f'cannot be: {error}'
    folder = work.folder / 'trials' / f'{trial.number:04d}'
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix('.json')
    files.write_json(file, schema.plain(config))
    if not _wait_until_free(work, folder):
        return None
    command = [sys.executable, ROOT / 'train.py', f'--config={file}', f'--workdir={folder}']
    command.append('--config.distributed=off')  # whatever a launcher says of the sweep's process
    with folder.with_suffix('.log').open('ab') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        with _ended(process):
            if cores:
                os.sched_setaffinity(process.pid, cores)  # JAX counts them when it starts
            how = _watch(work, trial, process, folder)
    if how is None:
        return None
    trial.note(seconds=round(time.monotonic() - started, 3))
    if how == 'pruned':
        trial.prune()
        return 'stopped early'
    if how == 'done':
        return f'{trial.complete():.4f}'
    trial.fail(how)
    return how


def _wait_until_free(work: Work, folder: Path) -> bool:
    """Waits for a process that outlived an earlier sweep; whether the folder is free."""
    told = False
    while not work.stopping():
        try:
            workdir.lock(folder).close()
            return True
        except UserError:
            if not told:
                work.say(f'{folder}: waiting for the process that still trains there')
            told = True
            time.sleep(PAUSE)
    return False


def _watch(work: Work, trial: OpenTrial, process: subprocess.Popen, folder: Path) -> str | None:
    """Reports evaluations as they come: 'done', 'pruned', None (told to stop), or what is wrong."""
    metric, seen, prune = work.sweep.objective.metric, 0, False
    looked = time.monotonic()
    while True:
        code = process.poll()
        if time.monotonic() - looked >= owner.BEAT:  # it may be long until the next evaluation
            trial.check()
            looked = time.monotonic()
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
        return None  # stopped from outside; it can go on
    text = folder.with_suffix('.log').read_text(errors='replace').strip()
    return f'exit code {code}: {text[-300:]}'


def _evaluations(folder: Path, metric: str) -> list[tuple[int, float]]:
    """The evaluations on record so far: (step, value)."""
    try:
        found = records.read_metrics(folder)
    except (FileNotFoundError, UserError):
        return []
    return [(r['step'], r[metric]) for r in found if metric in r]


@contextlib.contextmanager
def _ended(process: subprocess.Popen):
    """Lets the process save and end; kills it where it does not."""
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(SAVING)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
