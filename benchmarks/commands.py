"""Runs whole commands and notes when each line of their output came, from the start on."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import contest
from errors import UserError


@dataclasses.dataclass(frozen=True)
class Output:
    """What a command printed, and when.

    Attributes:
      lines: (seconds from the start of the process, line without its end).
      seconds: from its start to its end; to the line it was stopped at, if it was.
    """

    lines: tuple[tuple[float, str], ...]
    seconds: float

    def found(self, pattern: str) -> list[tuple[float, float]]:
        """Returns (seconds, number) of each line that matches; the number is the first group."""
        matches = [(at, re.search(pattern, line)) for at, line in self.lines]
        return [(at, float(match[1])) for at, match in matches if match]


@contextlib.contextmanager
def child(command: Sequence[str | Path], **options) -> Iterator[subprocess.Popen]:
    """A command at the project's root, with its own children ended when the context is.

    Args:
      command: program and arguments.
      options: of Popen; it reads nothing, and its errors go where its output goes.
    """
    process = None
    try:
        with contest.undisturbed():
            process = subprocess.Popen(
                [*map(str, command)],
                cwd=contest.ROOT,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        yield process
    finally:
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def watch(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    until: str | None = None,
) -> Output:
    """Runs a command at the project's root to its end, or to the first line that matches `until`.

    Args:
      command: program and arguments.
      environment: variables beside the present ones.
      until: a regular expression; the command is killed when a line matches.

    Raises:
      UserError: it failed; says its last line.
    """
    lines, stopped = [], False
    start = time.perf_counter()
    options = {'stdout': subprocess.PIPE, 'text': True, 'errors': 'replace'}
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})}
    with child(command, env=environment, **options) as process, process.stdout:
        for line in process.stdout:
            lines.append((time.perf_counter() - start, line.rstrip('\n')))
            stopped = until is not None and re.search(until, line) is not None
            if stopped:
                break
        else:
            process.wait()
        seconds = lines[-1][0] if stopped else time.perf_counter() - start
    if process.returncode and not stopped:
        last = next((text for _, text in reversed(lines) if text.strip()), 'no message')
        raise UserError(f'{" ".join(map(str, command[:3]))} ... failed: {last:.300}')
    return Output(tuple(lines), seconds)
