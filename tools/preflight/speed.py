"""The speed of a run: pipeline and step, alone and together, and its wall time.

Each is measured for a few seconds. Several processes do the same: the first one decides how many
calls are measured, and the slowest pipeline counts.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from distributed import hosts, watchdog
from tasks.task import Batch
from tools.preflight.findings import Finding
from tools.preflight.overfit import affordable, fresh_state
from tools.preflight.prepared import Prepared, Used
from training.calendar import Calendar
from training.progress import format_seconds
from training.runner import RUN_AHEAD

SECONDS = 2.0  # duration of each measurement, about
GROUPS = 5  # groups of calls; the median of their means counts
MOST = 10_000  # calls of one measurement
PLACE = 'a measurement of speed'  # for watchdog.waiting
# Pipeline and step are not measured together if one is this many times as fast as the other, which
# it then does not slow down measurably.
APART = 10.0


@dataclasses.dataclass(frozen=True)
class Speed:
    """The speed of the whole run.

    Attributes:
      pipeline: images per second as batches arrive on the devices, without a step.
      step: images per second of the step on one batch.
      together: images per second of training, which does both at once.
      update: seconds of one update at that speed.
      evaluation: {split: seconds of one evaluation}.
      scaled: whether it was measured on a part of the devices and multiplied.
      save: seconds for which a checkpoint stops training, that is, for copying the state.
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
        """The slower of the two, 'pipeline' or 'step'."""
        return 'pipeline' if self.pipeline < self.step else 'step'

    def finding(self) -> Finding:
        """Returns the speed as a finding."""
        other = 'step' if self.bound == 'pipeline' else 'pipeline'
        slower, faster = getattr(self, self.bound), getattr(self, other)
        text = (
            f'{self.bound} {_number(slower)} images/s, {other} {_number(faster)}: the {self.bound} '
            'bounds the run'
        )
        if self.together < 0.9 * slower:
            text += f'; together {_number(self.together)}, because they share the processor'
        if self.scaled:
            text += ', if nothing is lost between its devices, most of which are elsewhere'
        return Finding(text, {**dataclasses.asdict(self), 'bound': self.bound})


def measure(run: Prepared, devices: float = 1.0, processes: float = 1.0) -> Speed:
    """Measures a prepared run.

    Args:
      run: the run.
      devices: the number of planned devices divided by that of available ones.
      processes: the same for hosts, each of which has a pipeline.
    """
    images = run.updates * run.config.batch_size
    place = run.used[0].place
    with contextlib.closing(place.train_batches(0, lambda step: run.updates)) as batches:
        first = next(batches)
        ahead = _most(_ahead(run))  # processes may have different numbers of threads
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
    """Returns the largest value of all processes, so that all of them continue with the same."""
    return max(hosts.gather(value))


class _Steps:
    """Calls the step of a run, each time from the state of the last call."""

    def __init__(self, run: Prepared):
        self.state = fresh_state(run)
        self._hyper = run.runner.replicate(run.hyper)
        self._dataset = run.used[0].place.dataset
        self._call = run.runner.train_many if run.updates > 1 else run.runner.train

    def __call__(self, batch: Batch) -> dict[str, jax.Array]:
        with watchdog.waiting(PLACE):
            self.state, metrics = self._call(self.state, self._hyper, batch, self._dataset)
        return metrics


def _ahead(run: Prepared) -> int:
    """Returns how many decoded batches may be waiting when a measurement begins."""
    if not run.used[0].place.streamed:
        return 0
    from data_sources import stream

    data = run.config.data
    decoding = data.workers * ((data.threads or 1) + 2) or data.threads or stream.available_cores()
    return data.prefetch + decoding + 2


def _seconds(start: Callable[[], Any], before: int = 0) -> float:
    """Returns the seconds of a call: the median over groups of calls.

    Args:
      start: starts a call and returns its arrays, which need not be computed yet.
      before: number of calls before the measurement.
    """
    trial = max(before, 3)
    each = _clocked(start, trial).mean()
    times = _clocked(start, affordable(each, SECONDS, 2, MOST))
    return float(np.median([group.mean() for group in np.array_split(times, GROUPS) if len(group)]))


def _clocked(start: Callable[[], Any], count: int) -> np.ndarray:
    """Returns the seconds between the ends of calls, of which at most RUN_AHEAD are under way."""
    ends, waiting = [time.monotonic()], collections.deque()
    for number in range(count):
        waiting.append(start())
        while len(waiting) > (RUN_AHEAD if number < count - 1 else 0):
            with watchdog.waiting(PLACE):
                jax.block_until_ready(waiting.popleft())
            ends.append(time.monotonic())
    return np.diff(ends)


def _evaluation(run: Prepared, used: Used, variables: Mapping[str, Any]) -> float:
    """Returns the seconds of one evaluation, from some of the batches if the split is large."""
    batches = len(used.place.eval_plan())
    each = _evaluated(run, used, variables, 1)
    count = affordable(each, SECONDS, 1, batches)
    return _evaluated(run, used, variables, count) * batches / count


def _evaluated(run: Prepared, used: Used, variables: Mapping[str, Any], count: int) -> float:
    """Returns the seconds of the first batches of an evaluation."""
    dataset, start = used.place.dataset, time.monotonic()

    def evaluate(batch: Batch) -> Any:
        with watchdog.waiting(PLACE):
            return run.runner.evaluate(variables, batch, dataset)

    with contextlib.closing(used.place.eval_batches()) as batches:
        _clocked(lambda: evaluate(next(batches)), count)
    return time.monotonic() - start


def wall_time(run: Prepared, speed: Speed, start: float) -> Finding:
    """Returns the estimated duration of a first run, which compiles its programs.

    It does not include writing to the disk and drawing the curves at the end.

    Args:
      run: the run.
      speed: its measured speed.
      start: seconds from the start of the process to the compilation.
    """
    count = run.experiment.steps
    due, steps = Calendar.of(run.experiment), range(1, count + 1)
    evaluations, saves = sum(map(due.evaluates, steps)), sum(map(due.saves, steps))
    parts = {
        'start': start,
        'compilation': run.compile_seconds,
        f'{count:,} steps': count * speed.update,
        f'{evaluations:,} validations': evaluations * speed.evaluation['validation'],
        'test': speed.evaluation['test'],
        f'{saves:,} saves': saves * speed.save,
    }
    total = sum(parts.values())
    listed = ', '.join(f'{name} {_seconds_text(value)}' for name, value in parts.items())
    return Finding(f'about {format_seconds(total)}: {listed}', {'seconds': total, 'parts': parts})


def _number(value: float) -> str:
    """Returns a number as text, rounded to three significant digits."""
    return f'{float(f"{value:.3g}"):,.0f}' if value >= 100 else f'{value:.3g}'


def _seconds_text(seconds: float) -> str:
    return f'{seconds:.1f} s' if seconds < 10 else format_seconds(seconds)
