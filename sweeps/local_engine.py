"""Engine `local`: a process of train.py for each trial, some at a time on this machine."""

import math
import os
import threading

from sweeps import child
from sweeps.engine import Work
from sweeps.owner import TakenOverError
from sweeps.study import OpenTrial

STARTS = 3  # of a trial whose process is ended from outside, in one sweep


def run(work: Work) -> None:
    """Runs trials until all have ended, or the sweep is told to stop."""
    errors, running = [], []

    def loop(place: int) -> None:
        try:
            while not work.stopping() and (trial := work.study.ask()) is not None:
                running.append(trial.number)
                try:
                    how = _run(work, trial, place)
                except TakenOverError as error:
                    work.say(str(error))
                    how = None
                running.remove(trial.number)
                if how is not None:
                    work.ended(trial, how, len(running))
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


def _run(work: Work, trial: OpenTrial, place: int) -> str | None:
    """Runs a trial; returns how it ended, None if the sweep is to end."""
    for _ in range(STARTS):
        how = child.run(work, trial, *pinned(place, work.options['jobs']))
        if how is not None or work.stopping():
            return how
    trial.fail(f'its process was ended from outside {STARTS} times')
    return 'its process was ended from outside'


def pinned(place: int, jobs: int) -> tuple[dict[str, str], set[int] | None]:
    """Returns (environment, cores) of the process in a place: a GPU, or a share of the cores."""
    gpus = _gpus()
    if gpus and jobs > 1:
        own = {'CUDA_VISIBLE_DEVICES': gpus[place % len(gpus)]}
        if jobs > len(gpus):  # JAX takes most of a GPU's memory unless told otherwise
            own['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / math.ceil(jobs / len(gpus)):.2f}'
        return own, None
    if not hasattr(os, 'sched_getaffinity'):
        return {}, None
    cores = sorted(os.sched_getaffinity(0))
    own = set(cores[place % len(cores) :: jobs])
    return {}, own or {cores[place % len(cores)]}


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use."""
    if 'CUDA_VISIBLE_DEVICES' in os.environ:
        return [name for name in os.environ['CUDA_VISIBLE_DEVICES'].split(',') if name]
    names = os.listdir('/dev') if os.path.isdir('/dev') else []
    return sorted(name[6:] for name in names if name.startswith('nvidia') and name[6:].isdigit())
