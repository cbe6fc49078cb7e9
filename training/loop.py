"""The training loop: state(t+1) = step(state(t), batch(t)), with what surrounds it.

A call of the step does one update, or several where the data are on the devices and nothing is due
in between. At most two calls are under way (the loss of call i-2 is waited for), which bounds
memory, keeps XLA's CPU collectives from starving each other, and finds a non-finite loss soon.
Nothing in a step waits for the host.
"""

import collections
import contextlib
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from distributed import hosts, watchdog
from distributed.preemption import Preemption
from errors import UserError
from training import flops
from training.calendar import Calendar
from training.checkpoints import Checkpoints
from training.evaluation import Evaluator
from training.experiment import Experiment
from training.meter import Meter, Window
from training.placement import Placement, updates_per_call
from training.profiling import Profile
from training.progress import Progress
from training.records import Records
from training.runner import RUN_AHEAD, Runner
from training.state import named_leaves


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call under way: of `count` updates, after `after` others; `fresh`: it compiled."""

    after: int
    count: int
    metrics: dict[str, Any]
    fresh: bool


class Loop:
    """One process's training loop.

    Args:
      experiment: what is trained.
      runner: how the step is run.
      train_split, validation_split: open splits.
      records, progress, checkpoints: where it reports; checkpoints is None but on process 0.
      window: sums from before the run was stopped.
      profile: the steps that are traced.

    Raises:
      UserError: several updates per call are asked for where the data do not allow it.
    """

    def __init__(
        self,
        experiment: Experiment,
        runner: Runner,
        train_split,
        validation_split,
        records: Records,
        progress: Progress,
        checkpoints: Checkpoints | None,
        window: Window | None = None,
        profile: Profile | None = None,
    ):
        self.experiment, self.runner = experiment, runner
        self.records, self.progress, self.checkpoints = records, progress, checkpoints
        self._profile = profile or Profile('', ())
        self.due = Calendar.of(experiment, self._profile.edges)
        self.validate = Evaluator(experiment, runner, validation_split)
        config, device = experiment.config, runner.local[0]
        self._data = Placement(runner, train_split, config)
        self._most = updates_per_call(config, self._data.resident, device.platform)
        self._peak = flops.peak(runner.devices, config.dtype, config.peak_tflops)
        self._task = runner.spec.task
        self._window, self._latest = window or Window(), None
        self._meter = Meter()
        self._compiled: set[int] = set()
        self._waiting = collections.deque()
        self._last_saved: int | None = None
        self._on_host = None  # the state that was saved last

    @property
    def examples_per_second(self) -> float:
        """Training images per second, without compilation, evaluation and checkpoints."""
        return self._meter.images_per_second

    @functools.cached_property
    def model_flops_per_image(self) -> int:
        """What one training image takes; see training/flops.py."""
        exp = self.experiment
        return flops.per_image(self.runner.spec, exp.image_shape, exp.config.linear_probe)

    def run(self, state, step: int, hyper, preemption: Preemption):
        """Trains from `step` to the end, or until preempted.

        Args:
          state: placed on the devices; given up to the step, do not use it afterwards.
          step: number of updates it has done.
          hyper: scalars, placed on the devices.
          preemption: asked after each call.

        Returns:
          (state, step, reason): reason is None at the end, else the signal's name.

        Raises:
          UserError: the loss is not finite, or something could not be written.
        """
        self._last_saved = step or None
        reason = None
        batches = self._data.train_batches(step, self._updates)
        with contextlib.closing(batches), self._profile:
            while step < self.due.steps and reason is None:
                if self._profile.starts(step):
                    self._drain()
                    self._profile.start(step)
                state, step = self._advance(state, step, hyper, batches)
                while len(self._waiting) > RUN_AHEAD:
                    self._collect()
                reason = preemption.reason()
                if self._profile.stops(step, reason):
                    self._drain()
                    self._profile.stop(step)
                if reason or self.due.logs(step):
                    self._report(state, step, reason)
        hosts.on_first(lambda: self.checkpoints.wait())
        return state, step, reason

    def _updates(self, step: int) -> int:
        return self.due.call(step, self._most)

    def _advance(self, state, step: int, hyper, batches):
        """Starts the next call; returns its state and step."""
        count = self._updates(step)
        program = self.runner.train_many if count > 1 else self.runner.train
        batch = self._meter.next(batches)
        fresh = count not in self._compiled
        arguments = state, hyper, batch, self._data.dataset
        if fresh:  # this call compiles
            self._compiled.add(count)
            self._drain()
            self._meter.stop()
            if jax.process_count() > 1:  # compiling has no limit; waiting for others has
                hosts.barrier(f'step {step + count}')
                program.compile(*arguments)
        with self._profile.step(step + count), watchdog.waiting(f'step {step + count}'):
            state, metrics = program(*arguments)
        self._waiting.append(_Call(step, count, metrics, fresh))
        return state, step + count

    def catch_up(self, state, step: int) -> None:
        """Does the evaluation that a run had no time for when it was stopped after `step`."""
        if not self.due.evaluates(step):
            return
        self._last_saved = step
        validation = self._validate(state, step)

        def write():
            self._record_validation(step, validation)
            # An undisturbed run has no checkpoint elsewhere that could be the best.
            if self.due.saves(step):
                self.checkpoints.add_metrics(step, validation)

        hosts.on_first(write)

    def _drain(self) -> None:
        """Waits for all calls under way."""
        while self._waiting:
            self._collect()

    def _collect(self) -> None:
        """Waits for the oldest call under way, and checks that its losses are finite."""
        call = self._waiting.popleft()
        with watchdog.waiting(f'the end of step {call.after + call.count}'):
            metrics = self.runner.fetch(call.metrics)
        self._meter.done(call.count * self.experiment.config.batch_size)
        if call.fresh:
            self._meter.start()
        for number in range(call.count):
            one = {k: v[number] for k, v in metrics.items()} if call.count > 1 else metrics
            step = call.after + number + 1
            for name, value in (('loss', one['loss']), ('gradient', one['grad_norm'])):
                self._check_finite(value, name, step)
            self._window.add(one)
            self._latest = one
        means = self._task.summarize(self._window.sums)
        self.progress.update(step, means, self.examples_per_second or None)

    def _check_finite(self, value, what: str, step: int) -> None:
        if np.all(np.isfinite(value)):
            return
        saved = 'there is no checkpoint yet'
        if self.checkpoints is not None:
            self.checkpoints.wait()
        if self._last_saved is not None:
            saved = f'the last good checkpoint is step {self._last_saved}'
        raise UserError(
            f'The {what} is not finite at step {step}; {saved}. Lower '
            'config.optimizer.learning_rate, or set config.optimizer.clip_norm, and start in '
            'another --workdir.'
        )

    def _report(self, state, step: int, reason: str | None) -> None:
        """Records the window's training metrics; evaluates and saves if that is due.

        A run that is told to stop has little time: the evaluation that is due, unless it is the
        last, is left to the next start, and so is a record that an undisturbed run has not.
        """
        self._drain()
        self._meter.stop()
        validation = None
        if self.due.evaluates(step) and (reason is None or step == self.due.steps):
            validation = self._validate(state, step)
        hosts.on_first(lambda: self._write(state, step, validation, reason))
        if reason or self.due.saves(step):
            self._last_saved = step
        self._meter.start()

    def _write(self, state, step: int, validation, reason: str | None) -> None:
        """What process 0 does of a report."""
        if self.due.logs(step):
            self._record_training(step)
        if validation is not None:
            self._record_validation(step, validation)
        if reason or self.due.saves(step):
            self.checkpoints.wait()  # the save before may still read what is written over now
            self._on_host = self.runner.fetch(state, into=self._on_host)
            self._check_state(self._on_host, step)
            self.checkpoints.save(step, self._on_host, validation, self._window.stored())

    def _check_state(self, state, step: int) -> None:
        # The loss of this step is of the parameters before it.
        for name, leaf in named_leaves(state):
            self._check_finite(leaf, f'state ({name})', step)

    def _record_training(self, step: int) -> None:
        window, self._window = self._window, Window()
        values = {
            **{f'train/{name}': v for name, v in self._task.summarize(window.sums).items()},
            'train/learning_rate': float(self._latest['learning_rate']),
            'train/grad_norm': float(self._latest['grad_norm']),
            **self._rates(),
        }
        if window.bad_records:
            values['train/bad_records'] = window.bad_records
            self.progress.message(
                f'step {step}: {window.bad_records} record(s) did not decode; others took their '
                'place'
            )
        self.records.write(step, values)

    def _rates(self) -> dict[str, float]:
        """How fast the window's steps were; {} where nothing was measured."""
        rates = self._meter.take()
        if rates is None:
            return {}
        values = {
            'train/images_per_second': rates.images_per_second,
            'train/input_wait': rates.input_wait,
        }
        if self._peak:
            done = rates.images_per_second * self.model_flops_per_image
            values['train/model_flops_utilisation'] = done / self._peak
        return values

    def _validate(self, state, step: int) -> dict[str, float]:
        """Reads the validation split once; returns the task's metrics."""
        evaluation = self.validate(state.variables())
        means = self._task.summarize(evaluation.sums, evaluation.rows)
        self._check_finite(means['loss'], 'validation loss', step)
        values = {f'validation/{name}': value for name, value in means.items()}
        if evaluation.bad_records:
            values['validation/bad_records'] = evaluation.bad_records
        return values

    def _record_validation(self, step: int, validation: dict[str, float]) -> None:
        self.records.write(step, validation)
        epoch = step / self.experiment.steps_per_epoch
        shown = ', '.join(
            f'{metric.name} {metric.shown(validation[f"validation/{metric.name}"])}'
            for metric in self._task.metrics
        )
        self.progress.message(f'epoch {epoch:.1f}: validation {shown}')
