"""The training loop: state(t+1) = step(state(t), batch(t)), with records, validation and saving.

A call of the step does one update, or several where the data are on the devices and nothing is due
in between. At most two calls are under way: call i is started when the loss of call i-2 is there.
This bounds memory, keeps XLA's CPU collectives from starving each other, and finds a non-finite
loss soon. Between two reports nothing waits for the devices but that.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from distributed import hosts, watchdog
from distributed.preemption import Preemption
from errors import UserError
from tasks.task import Batch, Hyper, Sums
from training import flops
from training.calendar import Calendar
from training.checkpoints import Checkpoints
from training.evaluation import Evaluator
from training.experiment import Experiment, Split
from training.meter import Meter, Window
from training.placement import Placement, updates_per_call
from training.profiling import Profile
from training.progress import Progress
from training.records import Records
from training.runner import RUN_AHEAD, Runner
from training.state import TrainState, named_leaves


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of the step that is under way.

    Attributes:
      after: number of updates before it.
      count: number of updates it does.
      metrics: what the step returns beside the state; leaves [count, ...] if it does several.
      fresh: whether its program was compiled for it.
    """

    after: int
    count: int
    metrics: Sums
    fresh: bool


class Loop:
    """One process's training loop.

    Args:
      experiment: what is trained.
      runner: the step over the devices.
      train_split, validation_split: open splits, or their features for a linear probe.
      records, progress, checkpoints: where it reports. Only process 0 has checkpoints; the others
        pass None.
      window: sums of the training metrics from before the run was stopped.
      profile: the steps that are traced.

    Raises:
      UserError: several updates per call are asked for where the data do not allow it.
    """

    def __init__(
        self,
        experiment: Experiment,
        runner: Runner,
        train_split: Split,
        validation_split: Split,
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
        self._compiled: set[int] = set()  # numbers of updates whose programs have been compiled
        self._under_way: collections.deque[_Call] = collections.deque()
        self._last_saved: int | None = None
        self._on_host: TrainState | None = None  # memory of the last saved state, used again

    @property
    def examples_per_second(self) -> float:
        """Training images per second, without compilation, evaluation and checkpoints."""
        return self._meter.images_per_second

    @property
    def began(self) -> bool:
        """Whether a step has been done."""
        return self._latest is not None

    @functools.cached_property
    def model_flops_per_image(self) -> int | None:
        """FLOPs of one training image, None if they are not known; see training/flops.py."""
        exp = self.experiment
        return flops.per_image(self.runner.spec, exp.image_shape, exp.config.linear_probe)

    def run(
        self, state: TrainState, step: int, hyper: Hyper, preemption: Preemption
    ) -> tuple[TrainState, int, str | None]:
        """Trains from `step` to the end, or until preempted.

        Args:
          state: placed on the devices; the step takes its memory, so do not use it afterwards.
          step: number of updates that the state has.
          hyper: scalars, placed on the devices.
          preemption: asked after each call whether the run is to stop.

        Returns:
          (state, step, reason): reason is None at the end, otherwise the name of a signal.

        Raises:
          UserError: the loss is not finite, or something could not be written.
        """
        self._last_saved = step or None
        reason = None
        batches = self._data.train_batches(step, self._updates)
        with contextlib.closing(batches), self._profile:
            while step < self.due.steps and reason is None:
                # A trace begins and ends with idle devices, or it would show parts of other steps.
                if self._profile.starts(step):
                    self._drain()
                    self._profile.start(step)
                # A call is started first and an older one collected afterwards, so that the
                # devices always have the next call waiting while the host is busy.
                state, step = self._advance(state, step, hyper, batches)
                while len(self._under_way) > RUN_AHEAD:
                    self._collect()
                # Asked after each call and not in a signal handler: all processes have to see it
                # at the same step, and a checkpoint needs a whole update.
                reason = preemption.reason()
                if self._profile.stops(step, reason):
                    self._drain()
                    self._profile.stop(step)
                # Whatever is due at this step is done before the next call takes the memory of
                # this state.
                if reason or self.due.logs(step):
                    self._report(state, step, reason)
        # The last checkpoint is written in the background; the run is done when it is finished.
        hosts.on_first(lambda: self.checkpoints.wait())
        return state, step, reason

    def _updates(self, step: int) -> int:
        return self.due.call(step, self._most)

    def _advance(
        self, state: TrainState, step: int, hyper: Hyper, batches: Iterator[Batch]
    ) -> tuple[TrainState, int]:
        """Starts the next call; returns its state, which need not be computed yet, and step."""
        count = self._updates(step)
        program = self.runner.train_many if count > 1 else self.runner.train
        batch = self._meter.next(batches)
        fresh = count not in self._compiled
        arguments = state, hyper, batch, self._data.dataset
        if fresh:
            # This call compiles. The clock is stopped with nothing under way, so that compilation
            # is no part of the speed of any step.
            self._compiled.add(count)
            self._drain()
            self._meter.stop()
            # Compilation may take any time, but waiting for another process has a limit. So each
            # process compiles first, outside `waiting`, and the calls then start together.
            if jax.process_count() > 1:
                hosts.barrier(f'step {step + count}')
                program.compile(*arguments)
        with self._profile.step(step + count), watchdog.waiting(f'step {step + count}'):
            state, metrics = program(*arguments)
        self._under_way.append(_Call(step, count, metrics, fresh))
        return state, step + count

    def catch_up(self, state: TrainState, step: int) -> None:
        """Does the evaluation that was due when the run was stopped after `step`.

        A run that is told to stop saves at once and leaves its evaluation to the next start.
        """
        if not self.due.evaluates(step):
            return
        self._last_saved = step
        validation = self._validate(state, step)

        def write() -> None:
            self._record_validation(step, validation)
            # A checkpoint that is only there because of the stop gets no metrics: it could become
            # the best one, and a run that was never stopped would not have it.
            if self.due.saves(step):
                self.checkpoints.add_metrics(step, validation)

        hosts.on_first(write)

    def _drain(self) -> None:
        """Waits for all calls under way."""
        while self._under_way:
            self._collect()

    def _collect(self) -> None:
        """Waits for the oldest call under way, and checks that its losses are finite.

        Raises:
          UserError: a loss or gradient is not finite.
        """
        call = self._under_way.popleft()
        with watchdog.waiting(f'the end of step {call.after + call.count}'):
            metrics = self.runner.fetch(call.metrics)
        # The images of a call that compiled are counted while the clock is still stopped, that is,
        # not at all; the clock starts with its end.
        self._meter.done(call.count * self.experiment.config.batch_size)
        if call.fresh:
            self._meter.start()
        for number in range(call.count):
            update = {k: v[number] for k, v in metrics.items()} if call.count > 1 else metrics
            step = call.after + number + 1
            # Checked before they are added: a record must never hold a sum that is not finite.
            for name, value in (('loss', update['loss']), ('gradient', update['grad_norm'])):
                self._check_finite(value, name, step)
            self._window.add(update)
            self._latest = update
        means = self._task.summarize(self._window.sums)
        self.progress.update(step, means, self.examples_per_second or None)

    def _check_finite(self, value: Any, what: str, step: int) -> None:
        """Checks a scalar or an array.

        Raises:
          UserError: it is not finite; names the last good checkpoint.
        """
        if np.all(np.isfinite(value)):
            return
        saved = 'there is no checkpoint yet'
        # The save under way is of a good state; the sentence promises that it is on the disk.
        if self.checkpoints is not None:
            self.checkpoints.wait()
        if self._last_saved is not None:
            saved = f'the last good checkpoint is step {self._last_saved}'
        raise UserError(
            f'The {what} is not finite at step {step}; {saved}. Lower '
            'config.optimizer.learning_rate or set config.optimizer.clip_norm, and start in '
            'another --workdir.'
        )

    def _report(self, state: TrainState, step: int, reason: str | None) -> None:
        """Records the training metrics; evaluates and saves if that is due.

        A run that is told to stop has little time. An evaluation that is due is then left to the
        next start, unless it is the last one, and so is a record that is not due.
        """
        # All losses up to this step are checked before anything of it is written.
        self._drain()
        self._meter.stop()
        validation = None
        # Validation comes before the checkpoint, which is saved with its metrics: the best
        # checkpoint is chosen by them.
        if self.due.evaluates(step) and (reason is None or step == self.due.steps):
            validation = self._validate(state, step)
        hosts.on_first(lambda: self._write(state, step, validation, reason))
        if reason or self.due.saves(step):
            self._last_saved = step
        self._meter.start()

    def _write(
        self,
        state: TrainState,
        step: int,
        validation: Mapping[str, float] | None,
        reason: str | None,
    ) -> None:
        """Writes a report; only process 0 does."""
        self.checkpoints.check_there()
        # Records come before the checkpoint: on resume, whatever lies up to its step is kept, and
        # a checkpoint without its records would leave a gap in metrics.jsonl.
        if self.due.logs(step):
            self._record_training(step)
        if validation is not None:
            self._record_validation(step, validation)
        if reason or self.due.saves(step):
            # The previous save may still be reading the arrays that are overwritten now.
            self.checkpoints.wait()
            self._on_host = self.runner.fetch(state, into=self._on_host)
            self._check_state(self._on_host, step)
            self.checkpoints.save(step, self._on_host, validation, self._window.stored())

    def _check_state(self, state: TrainState, step: int) -> None:
        # The loss of a step is that of the parameters before its update, so a finite loss does not
        # mean that the new state is finite.
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
        """Returns the speed of the steps since the last record; {} if nothing was measured."""
        rates = self._meter.take()
        if rates is None:
            return {}
        values = {
            'train/images_per_second': rates.images_per_second,
            'train/input_wait': rates.input_wait,
        }
        if self._peak and self.model_flops_per_image:
            done = rates.images_per_second * self.model_flops_per_image
            values['train/model_flops_utilisation'] = done / self._peak
        return values

    def _validate(self, state: TrainState, step: int) -> dict[str, float]:
        """Evaluates the validation split; returns the task's metrics as records name them."""
        evaluation = self.validate(state.variables())
        means = self._task.summarize(evaluation.sums, evaluation.rows)
        self._check_finite(means['loss'], 'validation loss', step)
        values = {f'validation/{name}': value for name, value in means.items()}
        if evaluation.bad_records:
            values['validation/bad_records'] = evaluation.bad_records
        return values

    def _record_validation(self, step: int, validation: Mapping[str, float]) -> None:
        self.records.write(step, validation)
        epoch = step / self.experiment.steps_per_epoch
        shown = ', '.join(
            f'{metric.name} {metric.shown(validation[f"validation/{metric.name}"])}'
            for metric in self._task.metrics
        )
        self.progress.message(f'epoch {epoch:.1f}: validation {shown}')
