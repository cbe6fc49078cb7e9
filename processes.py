"""Child processes that end with their context, and commands timed line by line."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from distributed import devices
from errors import UserError

ROOT = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class CommandOutput:
    """The output of a command, with times."""

    lines: tuple[tuple[float, str], ...]  # (seconds since the start, line without its end)
    seconds: float  # until the process ended, or until the line at which it was stopped
    peak_memory: int = 0  # bytes of resident memory, unless it was stopped

    def numbers(self, pattern: str) -> list[tuple[float, float]]:
        """Returns (seconds, number) of each matching line; the number is the first group."""
        matches = [(seconds, re.search(pattern, line)) for seconds, line in self.lines]
        return [(seconds, float(match[1])) for seconds, match in matches if match]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM, so that no process starts without being registered.

    It uses handlers and not a signal mask, which the process would inherit. Only the main thread
    is ever interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    earlier = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def child(command: Sequence[str | Path], **options) -> Iterator[subprocess.Popen]:
    """Runs a command in the project's root; kills it and its children when the context ends.

    By default it has no input, and errors go where the output goes; `options` are those of Popen.
    """
    options = {'stdin': subprocess.DEVNULL, 'stderr': subprocess.STDOUT, **options}
    command, process = [*map(str, command)], None
    try:
        with undisturbed():
            process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **options)
        yield process
    finally:
        if process is not None:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kills a process of `child` with its own children; harmless when called twice."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def watch(command: Sequence[str | Path], until: str | None = None) -> CommandOutput:
    """Runs a command in the project's root to its end, or to the first line that matches `until`.

    Raises:
      UserError: the command failed; the message has its last line.
    """
    lines: list[tuple[float, str]] = []
    start = time.perf_counter()
    options = {'stdout': subprocess.PIPE, 'text': True, 'errors': 'replace'}
    options['env'] = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    with child(command, **options) as process, process.stdout:
        for line in process.stdout:
            lines.append((time.perf_counter() - start, line.rstrip('\n')))
            if until is not None and re.search(until, line):
                return CommandOutput(tuple(lines), lines[-1][0])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    if process.returncode:
        reason = last_line('\n'.join(line for _, line in lines))
        raise UserError(f'{" ".join(map(str, command[:3]))} ... failed: {reason}')
    return CommandOutput(tuple(lines), seconds, devices.peak_resident_bytes(usage))


def last_line(text: str) -> str:
    """Returns the last line that is not empty, without what a command puts before its errors."""
    last = (text.strip().splitlines() or ['no message'])[-1]
    return f'{last.removeprefix("error: "):.300}'
