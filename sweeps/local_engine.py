"""Engine `local`: a process of train.py for each trial, some at a time on this machine."""

import os
import threading

from sweeps import child
from sweeps.engine import Work


def run(work: Work) -> None:
    """Runs trials until all have ended, or the sweep is told to stop."""
    errors, running = [], []

    def loop(place: int) -> None:
        try:
            while work.stop.reason() is None and not errors:
                trial = work.study.ask()
                if trial is None:
                    return
                running.append(trial.number)
                how = child.run(work, trial, *pinned(place, work.options['jobs']))
                running.remove(trial.number)
                if how is not None:
                    work.ended(trial, how, len(running))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(work.options['jobs'])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def pinned(place: int, jobs: int) -> tuple[dict[str, str], set[int] | None]:
    """Returns (environment, cores) of the process in a place: a GPU, or a share of the cores."""
    gpus = _gpus()
    if gpus:
        return {'CUDA_VISIBLE_DEVICES': gpus[place % len(gpus)]}, None
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
