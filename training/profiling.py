"""Traces some steps for TensorBoard's profile plugin, as config.profile.steps says."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import jax

import files
from distributed import hosts
from errors import UserError
from training import records


def check(steps: tuple[int, ...]) -> None:
    """Checks config.profile.steps.

    Raises:
      UserError: it is not () or (start, stop) with 0 <= start < stop.
    """
    if steps and not (len(steps) == 2 and steps[0] < steps[1]):
        raise UserError(
            'config.profile.steps must be (start, stop) with 0 <= start < stop, to trace the '
            f'updates start + 1 to stop, such as (20, 25); not {steps!r}.'
        )


def check_length(steps: tuple[int, ...], total: int) -> None:
    """Checks that the steps to trace are part of the run.

    Raises:
      UserError: they lie beyond its end.
    """
    if steps and steps[1] > total:
        raise UserError(
            f'config.profile.steps={steps!r} lies beyond the end of the run, which has {total} '
            'steps: choose earlier steps.'
        )


class Profile:
    """Traces the updates start + 1 to stop; used as a context manager around the loop.

    A run that is resumed in the middle of them traces the rest. Only process 0 writes a trace, that
    of its own devices.

    Args:
      workdir: the run's folder; the trace goes to its TensorBoard folder.
      steps: (start, stop), or () for no trace.
      say: prints a line for the user.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        steps: tuple[int, ...],
        say: Callable[[str], None] = print,
    ):
        self._folder = Path(workdir) / records.TENSORBOARD_FOLDER
        self._workdir, self._steps, self._say = workdir, steps, say
        self._running, self._first = False, 0

    @property
    def edges(self) -> tuple[int, ...]:
        """The steps that have to be the end of a call."""
        return self._steps

    def starts(self, step: int) -> bool:
        """Returns whether the trace starts after `step` updates."""
        return bool(self._steps) and not self._running and self._steps[0] <= step < self._steps[1]

    def stops(self, step: int, reason: str | None) -> bool:
        """Returns whether the trace stops after `step` updates.

        Args:
          step: number of updates done.
          reason: why the run ends after them, or None if it does not.
        """
        return self._running and (step >= self._steps[1] or reason is not None)

    def start(self, step: int) -> None:
        """Starts the trace after `step` updates; no call may be under way.

        Raises:
          UserError: the folder cannot be written.
        """
        self._first, self._running = step + 1, True
        hosts.on_first(self._start)

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # tracing Python would slow down the steps
        with files.explaining_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        jax.profiler.start_trace(self._folder, profiler_options=options)

    def stop(self, step: int) -> None:
        """Stops the trace after `step` updates, which must be done, and writes it.

        Raises:
          UserError: the trace cannot be written.
        """
        self._running = False
        hosts.on_first(lambda: self._stop(step))

    def _stop(self, step: int) -> None:
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:
            raise UserError(f'Cannot write the trace to {self._folder}: {error}') from error
        self._say(
            f'A trace of steps {self._first} to {step} is in {self._folder}/plugins/profile. '
            f'To see it: pip install xprof, then tensorboard --logdir={self._workdir}'
        )

    def step(self, number: int) -> contextlib.AbstractContextManager:
        """Returns a context manager by which the trace names update `number`."""
        if not self._running:
            return contextlib.nullcontext()
        return jax.profiler.StepTraceAnnotation('train', step_num=number)

    def __enter__(self) -> 'Profile':
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The trace is still running only if an error left the loop; that error is raised, not one
        # of stopping the trace.
        if self._running and hosts.is_first():
            with contextlib.suppress(Exception):
                jax.profiler.stop_trace()
        self._running = False
