"""Notices that the scheduler or the user wants the run to stop, and leaves the loop in peace.

SIGTERM, SIGUSR2 (SLURM's warning) and the first Ctrl-C set a flag; the loop asks for it after each
call of the step. With several processes the flag has to come up at the same step everywhere: there,
JAX's own preemption service takes the SIGTERM, and the other two are passed on as one.
"""

import contextlib
import os
import signal
from types import FrameType

import jax

from distributed import watchdog

EXIT_CODE = 75  # sysexits.h: EX_TEMPFAIL, try again


class Preemption:
    """Use as a context manager around the loop; the earlier handlers come back afterwards."""

    def __init__(self):
        self._asked: str | None = None
        self._earlier = {}
        self._asked_times = 0
        self._several = jax.process_count() > 1

    def __enter__(self) -> 'Preemption':
        if self._several:
            # A Python handler for SIGTERM would silently switch JAX's service off.
            self._install(signal.SIGUSR2, self._pass_on)
            self._install(signal.SIGINT, self._pass_on)
            return self
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            self._install(number, self._ask)
        return self

    def __exit__(self, *exc_info) -> None:
        for number, handler in self._earlier.items():
            # None stands for a handler that is not Python's; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _install(self, number: signal.Signals, handler) -> None:
        # Outside the main thread (a notebook, a test) the caller's handlers stay.
        with contextlib.suppress(ValueError):
            self._earlier[number] = signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._let_second_interrupt(number)
        self._asked = signal.Signals(number).name

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._let_second_interrupt(number)
        os.kill(os.getpid(), signal.SIGTERM)

    def _let_second_interrupt(self, number: int) -> None:
        # A second Ctrl-C means now.
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def reason(self) -> str | None:
        """Returns the signal's name if the run shall stop now, the same on all hosts.

        All of them have to ask equally often.
        """
        if self._several:
            from jax.experimental import multihost_utils

            # JAX's service stops them at a number that it announces, which must not be skipped:
            # the step would not do, because a call may take several.
            self._asked_times += 1
            with watchdog.waiting():
                stop = multihost_utils.reached_preemption_sync_point(self._asked_times)
            return 'SIGTERM' if stop else None
        return self._asked
