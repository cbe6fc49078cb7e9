"""Notices that the scheduler or the user wants the run to stop, without interrupting the loop.

SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 (SLURM's warnings) and the first Ctrl-C set a flag, which the
loop reads after each call of the step. A thread acknowledges the signal at once, even while the
main thread compiles; the same signal again, or Ctrl-C, then ends the process. With several
processes, all of them must stop at the same step. JAX's preemption service ensures that for
SIGTERM, so the other signals are forwarded as SIGTERM.

JAX is imported late here: signals are caught before it is loaded.
"""

import _thread
import contextlib
import os
import select
import signal
import threading
from types import FrameType
from typing import Any

from distributed import watchdog

EXIT_CODE = 75  # sysexits.h: EX_TEMPFAIL, a temporary failure; the same command resumes
ABORTED = 130  # as a shell reports a process that Ctrl-C has ended
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
SAME = 0.05  # seconds in which signals are one: shells and timeout(1) may send theirs twice
UNWIND = 5.0  # seconds for the main thread to end by itself when the run is aborted


class Preemption:
    """A context manager around a run; it restores the earlier handlers at its end."""

    def __init__(self):
        self._signal_name: str | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._seen: set[str] = set()  # names of the signals that the handlers have run for
        self._aborted = False
        self._calls = 0
        self._several = False
        self._acknowledgement: _Acknowledgement | None = None

    def __enter__(self) -> 'Preemption':
        # Python allows handlers in the main thread only; elsewhere the caller's handlers stay.
        if threading.current_thread() is not threading.main_thread():
            return self
        self._acknowledgement = _Acknowledgement()
        for number in SIGNALS:
            # nohup means that the end of the terminal is to end nothing.
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._earlier[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The thread ends first: it may still call a handler, which must be one of these.
        if self._acknowledgement is not None:
            self._acknowledgement.close()
        for number, handler in self._earlier.items():
            # None means that the handler was not installed by Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def connected(self) -> None:
        """Must be called when the processes of the run have been connected, if there are several.

        JAX's service catches SIGTERM from then on. It stays so with several processes: a handler
        of Python's would silently disable the service.
        """
        import jax

        self._several = jax.process_count() > 1
        for number in self._earlier:
            if not self._several:
                signal.signal(number, self._record)
            elif number != signal.SIGTERM:
                signal.signal(number, self._forward)
        if self._several and self._signal_name:
            os.kill(os.getpid(), signal.SIGTERM)  # the service has not seen what came before it

    def _record(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._abort_at_second(name)
        self._signal_name = name

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._abort_at_second(signal.Signals(number).name)
        os.kill(os.getpid(), signal.SIGTERM)

    def _abort_at_second(self, name: str) -> None:
        """Raises KeyboardInterrupt, once, if the signal is not the first.

        That it was answered does not say so: while the main thread was in code that runs no Python,
        the answer came before this handler. A second Ctrl-C counts even before the first was
        answered. Other signals come from programs, which may send one twice without meaning more
        by it.
        """
        earlier = self._seen if name == signal.SIGINT.name else self._seen & {name}
        second = name == signal.SIGINT.name and name in earlier
        second |= self._acknowledgement.answered(earlier)
        self._seen.add(name)
        if (second or self._acknowledgement.aborting) and not self._aborted:
            self._aborted = True
            raise KeyboardInterrupt

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


class _Acknowledgement:
    """A thread that answers signals at once, and ends the process if one is sent again.

    The interpreter runs handlers between two instructions of the main thread, which may be minutes
    when that compiles. The numbers of signals are in a pipe at once.
    """

    def __init__(self):
        self.aborting = False  # whether a signal has come again
        self._given: set[str] = set()  # names of the signals that have been answered
        self._closed = threading.Event()
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._earlier = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._answer, name='signals', daemon=True)
        self._thread.start()

    def answered(self, names: set[str]) -> bool:
        """Whether one of these signals was answered."""
        return not self._given.isdisjoint(names)

    def close(self) -> None:
        """Ends the thread."""
        signal.set_wakeup_fd(self._earlier)
        self._closed.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b'\0')
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _answer(self) -> None:
        while not self._closed.is_set():
            select.select([self._read], [], [])
            names = self._pending()
            if self.answered(names) or (self._given and signal.SIGINT.name in names):
                self.aborting = True
                _say('aborted: the same command resumes from the last checkpoint')
                # The main thread's handler raises KeyboardInterrupt once it runs Python again. It
                # is called once more, because it may have run just before this was decided.
                _thread.interrupt_main()
                if not self._closed.wait(UNWIND):
                    os._exit(ABORTED)
            elif names and not self._closed.wait(SAME):
                names |= self._pending()
                self._given |= names
                _say(f'{", ".join(sorted(names))}: stopping after this step; again to abort')

    def _pending(self) -> set[str]:
        """Returns the names of the signals that have come since the last call."""
        with contextlib.suppress(BlockingIOError):
            return {signal.Signals(n).name for n in os.read(self._read, 4096) if n in SIGNALS}
        return set()


def _say(text: str) -> None:
    """Writes a line to standard error, past Python's buffers, which the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f'{text}\n'.encode())
