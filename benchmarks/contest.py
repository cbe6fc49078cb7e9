"""Times contestants side by side: each is a process of its own, and they take turns.

Between its turns a contestant is stopped (SIGSTOP), so that it neither takes time from the others
nor prepares batches in advance: its queues are in the state in which its last turn left them.
"""

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

import processes
from benchmarks.tables import BenchmarkContext
from errors import UserError

# Batches before the first turn. Ours waits for the update two before its own (RUN_AHEAD): after so
# many batches the first update is over, which takes four times as long in ResNet-50.
WARM_UP = 4


class LeftOutError(Exception):
    """A contestant cannot take part; the message has the reason and what to do."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """How to start a contestant."""

    name: str  # of its row in the table
    command: Sequence[str | Path]  # that starts it; the work is appended as JSON
    work: Mapping[str, Any]  # what it has to do; see the functions that make contestants


def with_work(contestant: Contestant, name: str, **work: Any) -> Contestant:
    """Returns a contestant by another name whose work differs in some entries."""
    return Contestant(name, contestant.command, {**contestant.work, **work})


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a contestant."""

    images: int  # that it produced
    seconds: float  # from the request to the last image
    cpu_seconds: float  # of all its processes and threads
    resident: int = 0  # bytes of memory of its first process at the end


class ContestantProcess:
    """A contestant's process, stopped between its turns; ends when `stack` is closed.

    It prints into the file `log`. `about` has 'shape' and 'dtype' of a batch and 'versions'. One
    that does not start, lacks a package, or ends raises LeftOutError.
    """

    def __init__(self, contestant: Contestant, log: Path, stack: contextlib.ExitStack):
        self._log, self._python = log, contestant.command[0]
        command = [*contestant.command, json.dumps(contestant.work)]
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
        try:
            with log.open('wb') as errors:
                child = processes.child(command, stderr=errors, **pipes)
                self.process = stack.enter_context(child)
        except OSError as error:
            raise LeftOutError(f'{self._python} cannot be started: {error.strerror}.') from error
        stack.callback(self.process.stdin.close)
        stack.callback(self.process.stdout.close)
        self.about = self._answer()
        os.killpg(self.process.pid, signal.SIGSTOP)

    def run(self, batches: int) -> Turn:
        """Lets it produce a number of batches."""
        os.killpg(self.process.pid, signal.SIGCONT)
        cpu = self._cpu_seconds()
        self.process.stdin.write(f'{batches}\n')
        self.process.stdin.flush()
        answer = self._answer()
        cpu = self._cpu_seconds() - cpu
        os.killpg(self.process.pid, signal.SIGSTOP)
        resident = psutil.Process(self.process.pid).memory_info().rss
        return Turn(answer['images'], answer['seconds'], cpu, resident)

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            processes.kill(self.process)
            last = processes.last_line(self._log.read_text(errors='replace'))
            raise LeftOutError(f'it ended by itself: {last}.')
        answer = json.loads(line)
        if 'missing' in answer:
            package = f'"{answer["missing"]}"'
            raise LeftOutError(f'{self._python} has no package {package}: install it there.')
        return answer

    def _cpu_seconds(self) -> float:
        """Returns the CPU time of the process and of all that it has started, living or ended."""
        first = psutil.Process(self.process.pid)
        total = 0.0
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total


@dataclasses.dataclass(frozen=True)
class Score:
    """A contestant's figures."""

    name: str
    rate: float  # images per second, the median of the turns
    slowest: float  # of the worst turn
    fastest: float  # of the best turn
    cpu_rate: float  # images per second of CPU time, the median of the turns
    ratio: float = 1.0  # the first contestant's rate over this one's
    cpu_ratio: float = 1.0

    def cells(self, batch_size: int) -> list[str]:
        """Returns the texts of the milliseconds a batch, the rate, its range, and the ratio."""
        spread = f'{self.slowest:,.0f} to {self.fastest:,.0f}'
        milliseconds = f'{1000 * batch_size / self.rate:.1f}'
        return [milliseconds, f'{self.rate:,.0f}', spread, f'{self.ratio:.2f}']


@contextlib.contextmanager
def started(
    contestants: Sequence[Contestant],
    scratch: Path,
    leave_out: Callable[[str, str], None],
    starting: Callable[[str], None] = lambda name: None,
) -> Iterator[dict[str, ContestantProcess]]:
    """Starts contestants in turn, with their logs in `scratch`; they end with the context.

    Calls starting(name) before each, and leave_out(name, reason) for one that does not start.
    """
    with contextlib.ExitStack() as stack:
        running = {}
        for number, contestant in enumerate(contestants):
            starting(contestant.name)
            log = scratch / f'contestant-{number}.log'
            try:
                running[contestant.name] = ContestantProcess(contestant, log, stack)
            except LeftOutError as error:
                leave_out(contestant.name, str(error))
        yield running


def play(
    running: Mapping[str, ContestantProcess], rounds: int, batches: int, warm_up: int
) -> Iterator[tuple[str, Turn]]:
    """Yields (name, turn), with a turn of every contestant in each round.

    A first round of `warm_up` batches each, for tracing, page cache and queues, does not count.
    """
    for number in range(rounds + 1):
        for name, contestant in running.items():
            try:
                turn = contestant.run(batches if number else warm_up)
            except LeftOutError as error:
                raise UserError(f'{name}: {error}') from error
            if number:
                yield name, turn


def score(turns: Mapping[str, Sequence[Turn]]) -> list[Score]:
    """Returns all contestants' figures in order; the ratios are those of medians."""
    scores: list[Score] = []
    for name, own in turns.items():
        rates = [turn.images / turn.seconds for turn in own]
        rate = statistics.median(rates)
        cpu_rate = statistics.median(turn.images / max(turn.cpu_seconds, 1e-9) for turn in own)
        score = Score(name, rate, min(rates), max(rates), cpu_rate)
        first = scores[0] if scores else score
        ratios = {'ratio': first.rate / rate, 'cpu_ratio': first.cpu_rate / cpu_rate}
        scores.append(dataclasses.replace(score, **ratios))
    return scores


def side_by_side(
    contestants: Sequence[Contestant],
    batches: int,
    context: BenchmarkContext,
    what: str,
    processes: int = 1,
) -> dict[str, list[Turn]]:
    """Lets contestants take turns of so many batches; returns the turns by name, ours first.

    The user is told which of the others do not start; ours must (UserError). Each may have several
    processes, with `context.rounds` turns each: some programs run at one speed from start to end,
    and at another speed when they are started again.
    """
    left_out, turns, ours = {}, {}, contestants[0].name
    endings = [f', process {n}' for n in range(1, processes + 1)] if processes > 1 else ['']
    players = {each.name + end: each for end in endings for each in contestants}
    starts = [with_work(each, player) for player, each in players.items()]

    def leave_out(player: str, reason: str) -> None:
        name = players[player].name
        if name not in (ours, *left_out):
            context.say(f'{what}: {name} is left out: {reason}')
        left_out[name] = reason

    def show(text: str) -> None:
        context.show(f'{what}: {text}')

    with started(starts, context.scratch, leave_out, lambda it: show(f'starting {it}')) as running:
        if ours in left_out:
            raise UserError(f'{what}: ours does not run: {left_out[ours]}')
        show('warming up')
        for player, turn in play(running, context.rounds, batches, max(WARM_UP, batches // 4)):
            own = turns.setdefault(players[player].name, [])
            own.append(turn)
            show(f'{player}, round {-(-len(own) // processes)} of {context.rounds}')
    return turns
