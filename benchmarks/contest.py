"""Times pipelines side by side: processes of their own that take turns, round after round.

Between its turns a contestant is stopped (SIGSTOP), so that what it prepares ahead neither costs
the others anything nor comes to it as a gift: its queues are in the state in which its last turn
left them.
"""

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from errors import UserError

ROOT = Path(__file__).resolve().parent.parent


class LeftOutError(Exception):
    """A contestant that cannot take part: why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What it takes to start a contestant.

    Attributes:
      name: of its row in the table.
      command: that starts it; the work is given as one more argument, in JSON.
      work: see benchmarks/input_pipeline.py:make_entries.
    """

    name: str
    command: Sequence[str | Path]
    work: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a contestant.

    Attributes:
      images: that it gave.
      seconds: from the first request to the last image.
      cpu_seconds: of all its processes and threads.
      resident: bytes of memory that its first process had at the end.
    """

    images: int
    seconds: float
    cpu_seconds: float
    resident: int = 0


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back: no process may start that nobody knows of.

    By handlers, not by a mask, which the process would inherit. In the main thread only; others
    are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    earlier = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


class Contestant:
    """A running contestant, stopped between its turns.

    Args:
      entry: what to start.
      log: file for what it prints.
      register: called with `close` as soon as there is a process.

    Attributes:
      about: what it said of itself: 'shape' and 'dtype' of a batch, 'versions'.

    Raises:
      LeftOutError: it did not start, lacks a package, or ended.
    """

    def __init__(
        self, entry: Entry, log: Path, register: Callable[[Callable], Any] = lambda close: None
    ):
        self._entry, self._log, self._process = entry, log, None
        try:
            with undisturbed():
                self._start()
                register(self.close)
            self.about = self._answer()
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        command = [*map(str, self._entry.command), json.dumps(self._entry.work)]
        try:
            with self._log.open('wb') as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    cwd=ROOT,
                    start_new_session=True,
                )
        except OSError as error:
            raise LeftOutError(f'{command[0]} cannot be started: {error.strerror}.') from error

    def go(self, batches: int) -> Turn:
        """Lets it give a number of batches."""
        self._signal(signal.SIGCONT)
        cpu = self._cpu_seconds()
        self._process.stdin.write(f'{batches}\n')
        self._process.stdin.flush()
        answer = self._answer()
        cpu = self._cpu_seconds() - cpu
        self._signal(signal.SIGSTOP)
        resident = psutil.Process(self._process.pid).memory_info().rss
        return Turn(answer['images'], answer['seconds'], cpu, resident)

    def close(self) -> None:
        """Ends it with all its processes; harmless when called twice."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text(errors='replace').strip().splitlines()
            raise LeftOutError(f'it ended by itself: {lines[-1] if lines else "no message":.300}.')
        answer = json.loads(line)
        if 'missing' in answer:
            raise LeftOutError(
                f'{self._entry.command[0]} has no package "{answer["missing"]}": install it there.'
            )
        return answer

    def _cpu_seconds(self) -> float:
        """Of the process, and of what it has started: living or ended."""
        first = psutil.Process(self._process.pid)
        total = 0.0
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total


@dataclasses.dataclass(frozen=True)
class Score:
    """A contestant's turns in figures.

    Attributes:
      name: of the contestant.
      rate: images per second, the median of its turns.
      slowest, fastest: images per second in the worst and best turn.
      cpu_rate: images per second of CPU time, median.
      ratio: the rate of the first contestant over this one's.
      cpu_ratio: the same of cpu_rate.
    """

    name: str
    rate: float
    slowest: float
    fastest: float
    cpu_rate: float
    ratio: float
    cpu_ratio: float


@contextlib.contextmanager
def started(
    entries: Sequence[Entry],
    scratch: Path,
    report: Callable[[str, str], None],
    starting: Callable[[str], None] = lambda name: None,
) -> Iterator[dict[str, Contestant]]:
    """Starts all that can be started, one after the other; they end with the context.

    Args:
      entries: in the order of their turns.
      scratch: folder for their logs.
      report: called with (name, reason) for each that is left out.
      starting: called with the name of each before it is started, which may take a while.
    """
    with contextlib.ExitStack() as stack:
        running = {}
        for number, entry in enumerate(entries):
            starting(entry.name)
            try:
                log = scratch / f'contestant-{number}.log'
                running[entry.name] = Contestant(entry, log, stack.callback)
            except LeftOutError as error:
                report(entry.name, str(error))
        yield running


def play(
    contestants: Mapping[str, Contestant], rounds: int, batches: int, warm_up: int
) -> Iterator[tuple[str, Turn]]:
    """Yields (name, turn): all of them in turn in each round.

    A first round of `warm_up` batches each is not counted: tracing, page cache, queues.

    Raises:
      UserError: one of them ended.
    """
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            try:
                turn = contestant.go(batches if number else warm_up)
            except LeftOutError as error:
                raise UserError(f'{name}: {error}') from error
            if number:
                yield name, turn


def score(turns: Mapping[str, Sequence[Turn]]) -> list[Score]:
    """Returns the figures of all contestants, in their order; ratios are those of medians."""
    rates = {name: [turn.images / turn.seconds for turn in own] for name, own in turns.items()}
    cpu = {name: [t.images / max(t.cpu_seconds, 1e-9) for t in own] for name, own in turns.items()}
    rate = {name: statistics.median(own) for name, own in rates.items()}
    cpu_rate = {name: statistics.median(own) for name, own in cpu.items()}
    first = next(iter(turns))
    return [
        Score(
            name,
            rate=rate[name],
            slowest=min(rates[name]),
            fastest=max(rates[name]),
            cpu_rate=cpu_rate[name],
            ratio=rate[first] / rate[name],
            cpu_ratio=cpu_rate[first] / cpu_rate[name],
        )
        for name in turns
    ]
