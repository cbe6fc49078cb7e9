"""Notices that the scheduler or the user wants the run to stop, without interrupting the loop.

SIGTERM, SIGUSR2 (SLURM's warning) and the first Ctrl-C set a flag, which the loop reads after each
call of the step. With several processes, all of them must stop at the same step. JAX's preemption
service ensures that for SIGTERM, so the other two signals are forwarded as SIGTERM.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax

from distributed import watchdog

EXIT_CODE = 75  # sysexits.h: EX_TEMPFAIL, a temporary failure; the same command resumes


class Preemption:
    """A context manager around the loop; it restores the earlier handlers at its end."""

    def __init__(self):
        self._signal_name: str | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._calls = 0
        self._several = jax.process_count() > 1

    def __enter__(self) -> 'Preemption':
        if self._several:
            # No Python handler for SIGTERM: it would silently disable JAX's service.
            self._install(signal.SIGUSR2, self._forward)
            self._install(signal.SIGINT, self._forward)
            return self
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            self._install(number, self._record)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._earlier.items():
            # None means that the handler was not installed by Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _install(
        self, number: signal.Signals, handler: Callable[[int, FrameType | None], None]
    ) -> None:
        # Python allows handlers in the main thread only; elsewhere the caller's handlers stay.
        with contextlib.suppress(ValueError):
            self._earlier[number] = signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._let_second_interrupt(number)
        self._signal_name = signal.Signals(number).name

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._let_second_interrupt(number)
        os.kill(os.getpid(), signal.SIGTERM)

    def _let_second_interrupt(self, number: int) -> None:
        # A second Ctrl-C ends the process at once.
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def reason(self) -> str | None:
        """Returns the name of the signal if the run should stop now, otherwise None.

        The answer is the same on all processes, which must call this equally often.
        """
        if self._several:
            from jax.experimental import multihost_utils

            # JAX's service announces a number at which all processes stop, and which none may skip.
            # Calls of this method are counted because one call of the step may do several steps.
            self._calls += 1
            with watchdog.waiting():
                stop = multihost_utils.reached_preemption_sync_point(self._calls)
            return 'SIGTERM' if stop else None
        return self._signal_name
