"""Engine `local`: runs each trial as a process of train.py, several at a time on this machine."""

import math
import os
import threading

from sweeps import child, room
from sweeps.engine import Work
from sweeps.owner import TakenOverError
from sweeps.study import OpenTrial

STARTS = 3  # how often a trial is started in one sweep if its process is ended from outside


def run(work: Work) -> None:
    """Runs trials until all have ended or the sweep is told to stop."""
    errors, running = [], []

    def loop(slot: int) -> None:
        try:
            while not work.stopping() and (trial := work.study.ask()) is not None:
                running.append(trial.number)
                try:
                    outcome = _run(work, trial, slot)
                except TakenOverError as error:
                    work.say(str(error))
                    outcome = None
                running.remove(trial.number)
                if outcome is not None:
                    work.ended(trial, outcome, len(running))
        except BaseException as error:
            errors.append(error)
            work.broken.set()

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(work.options['jobs'])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _run(work: Work, trial: OpenTrial, slot: int) -> str | None:
    """Runs a trial; returns how it ended, or None if the sweep is to end."""
    for _ in range(STARTS):
        outcome = child.run(work, trial, *pinned(slot, work.options['jobs']))
        if outcome is not None or work.stopping():
            return outcome
    room.check(work.folder)
    trial.fail(f'its process was ended from outside {STARTS} times')
    return 'its process was ended from outside'


def pinned(slot: int, jobs: int) -> tuple[dict[str, str], set[int] | None]:
    """Returns (environment, cores) for one of `jobs` processes: a GPU, or a part of the cores.

    Args:
      slot: the number of the process, from 0.
      jobs: how many processes run at a time.
    """
    gpus = _gpus()
    if gpus and jobs > 1:
        environment = {'CUDA_VISIBLE_DEVICES': gpus[slot % len(gpus)]}
        if jobs > len(gpus):  # several processes share a GPU, whose memory JAX would take at once
            fraction = 0.9 / math.ceil(jobs / len(gpus))
            environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{fraction:.2f}'
        return environment, None
    if not hasattr(os, 'sched_getaffinity'):
        return {}, None
    cores = sorted(os.sched_getaffinity(0))
    pinned_cores = set(cores[slot % len(cores) :: jobs])
    return {}, pinned_cores or {cores[slot % len(cores)]}


def _gpus() -> list[str]:
    """Returns the NVIDIA GPUs that this process may use."""
    if 'CUDA_VISIBLE_DEVICES' in os.environ:
        return [name for name in os.environ['CUDA_VISIBLE_DEVICES'].split(',') if name]
    names = os.listdir('/dev') if os.path.isdir('/dev') else []
    return sorted(name[6:] for name in names if name.startswith('nvidia') and name[6:].isdigit())
