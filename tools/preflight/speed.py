"""How fast a run will be: its pipeline and its step measured apart and together, and its wall time.

For a few seconds each. With several processes each does the same: how many calls are measured is
decided by the first, and the slowest pipeline counts.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from distributed import hosts, watchdog
from tools.preflight.findings import Finding
from tools.preflight.overfit import affordable, fresh_state
from tools.preflight.prepared import Prepared, Used
from training.calendar import Calendar
from training.progress import format_seconds
from training.runner import RUN_AHEAD

SECONDS = 2.0  # that each measurement takes, about
GROUPS = 5  # of calls, whose median counts
MOST = 10_000  # calls
PLACE = 'a measurement of speed'  # for watchdog.waiting
APART = 10.0  # a pipeline so many times as fast as the step costs it nothing worth measuring


@dataclasses.dataclass(frozen=True)
class Speed:
    """Images per second of the whole run.

    Attributes:
      pipeline: of batches as they arrive on the devices, without a step.
      step: of the same batch again and again.
      together: of training: both at once.
      update: seconds of one update, at that rate.
      evaluation: {split: seconds of one evaluation}.
      scaled: whether it was measured on a part of the devices, and multiplied.
      save: seconds that a checkpoint takes of training: the state's way to the host.
    """

    pipeline: float
    step: float
    together: float
    update: float
    evaluation: dict[str, float]
    save: float
    scaled: bool

    @property
    def bound(self) -> str:
        """Which of the two is slower."""
        return 'pipeline' if self.pipeline < self.step else 'step'

    def finding(self) -> Finding:
        """Returns the line of it."""
        other = 'step' if self.bound == 'pipeline' else 'pipeline'
        slower, faster = getattr(self, self.bound), getattr(self, other)
        text = (
            f'{self.bound} {_number(slower)} images/s, {other} {_number(faster)}: the {self.bound} '
            'bounds the run'
        )
        if self.together < 0.9 * slower:
            text += f'; together {_number(self.together)}, where they share the processor'
        if self.scaled:
            text += ', if nothing is lost between its devices, of which not all are here'
        return Finding(text, {**dataclasses.asdict(self), 'bound': self.bound})


def measure(run: Prepared, devices: float = 1.0, processes: float = 1.0) -> Speed:
    """Measures a prepared run.

    Args:
      run: what is measured.
      devices: how many times as many devices the run is to have as there are here.
      processes: the same of hosts, each of which has a pipeline.
    """
    images = run.updates * run.config.batch_size
    place = run.used[0].place
    with contextlib.closing(place.train_batches(0, lambda step: run.updates)) as batches:
        first = next(batches)
        ahead = _most(_ahead(run))  # processes may have other numbers of threads
        arriving = _most(_seconds(lambda: next(batches), ahead))
        step = _Steps(run)
        stepping = _most(_seconds(lambda: step(first)))
        both = max(arriving, stepping)
        if devices == 1 and arriving * APART > stepping and stepping * APART > arriving:
            both = _seconds(lambda: step(next(batches)), ahead)
    variables = step.state.variables()
    evaluation = {
        one.split.split: _evaluation(run, one, variables) / devices for one in run.used[1:]
    }
    start = time.monotonic()
    run.runner.fetch(step.state)
    save = time.monotonic() - start
    pipeline, alone = images * processes / arriving, images * devices / stepping
    together = images / both if devices == 1 else min(pipeline, alone)
    update = run.config.batch_size * devices / together
    return Speed(pipeline, alone, together, update, evaluation, save, devices != 1)


def _most(value: float) -> float:
    """The largest of all processes' values: what follows from it has to be the same on all."""
    return max(hosts.gather(value))


class _Steps:
    """The step that a run calls, from a state that it carries on."""

    def __init__(self, run: Prepared):
        self.state = fresh_state(run)
        self._hyper = run.runner.replicate(run.hyper)
        self._dataset = run.used[0].place.dataset
        self._call = run.runner.train_many if run.updates > 1 else run.runner.train

    def __call__(self, batch: dict) -> dict:
        with watchdog.waiting(PLACE):
            self.state, metrics = self._call(self.state, self._hyper, batch, self._dataset)
        return metrics


def _ahead(run: Prepared) -> int:
    """How many batches may be waiting, decoded, when a measurement begins."""
    if not run.used[0].place.streamed:
        return 0
    from data_sources import stream

    data = run.config.data
    decoding = data.workers * ((data.threads or 1) + 2) or data.threads or stream.available_cores()
    return data.prefetch + decoding + 2


def _seconds(start: Callable[[], Any], before: int = 0) -> float:
    """Returns the seconds of a call: the median over groups of calls.

    Args:
      start: begins a call and returns what can be waited for.
      before: calls that do not count.
    """
    trial = max(before, 3)
    each = _clocked(start, trial).mean()
    times = _clocked(start, affordable(each, SECONDS, 2, MOST))
    return float(np.median([group.mean() for group in np.array_split(times, GROUPS) if len(group)]))


def _clocked(start: Callable[[], Any], count: int) -> np.ndarray:
    """Returns the seconds between the ends of calls, RUN_AHEAD of which are under way at most."""
    ends, waiting = [time.monotonic()], collections.deque()
    for number in range(count):
        waiting.append(start())
        while len(waiting) > (RUN_AHEAD if number < count - 1 else 0):
            with watchdog.waiting(PLACE):
                jax.block_until_ready(waiting.popleft())
            ends.append(time.monotonic())
    return np.diff(ends)


def _evaluation(run: Prepared, used: Used, variables) -> float:
    """Returns the seconds of one evaluation; of a large split some batches are read."""
    batches = -(-used.split.size // used.batch_size)
    each = _evaluated(run, used, variables, 1)
    count = affordable(each, SECONDS, 1, batches)
    return _evaluated(run, used, variables, count) * batches / count


def _evaluated(run: Prepared, used: Used, variables, count: int) -> float:
    """Returns the seconds of the first batches of an evaluation."""
    dataset, start = used.place.dataset, time.monotonic()

    def evaluate(batch: dict):
        with watchdog.waiting(PLACE):
            return run.runner.evaluate(variables, batch, dataset)

    with contextlib.closing(used.place.eval_batches()) as batches:
        _clocked(lambda: evaluate(next(batches)), count)
    return time.monotonic() - start


def wall_time(run: Prepared, speed: Speed, start: float) -> Finding:
    """Returns the estimate for a first run, which compiles.

    Not in it: what is written to disk, and the curves that are drawn at the end.

    Args:
      run: what is to be trained.
      speed: what was measured of it.
      start: seconds from the start of the process to that of compilation.
    """
    found = run.experiment
    due, steps = Calendar.of(found), range(1, found.steps + 1)
    evaluations, saves = sum(map(due.evaluates, steps)), sum(map(due.saves, steps))
    parts = {
        'start': start,
        'compilation': run.compile_seconds,
        f'{found.steps:,} steps': found.steps * speed.update,
        f'{evaluations:,} validations': evaluations * speed.evaluation['validation'],
        'test': speed.evaluation['test'],
        f'{saves:,} saves': saves * speed.save,
    }
    total = sum(parts.values())
    listed = ', '.join(f'{name} {_seconds_text(value)}' for name, value in parts.items())
    return Finding(f'about {format_seconds(total)}: {listed}', {'seconds': total, 'parts': parts})


def _number(value: float) -> str:
    """Three digits that count, as a person writes them."""
    return f'{float(f"{value:.3g}"):,.0f}' if value >= 100 else f'{value:.3g}'


def _seconds_text(seconds: float) -> str:
    return f'{seconds:.1f} s' if seconds < 10 else format_seconds(seconds)
