"""A drill from its first to its last trial, and the table of what held."""

import collections
import dataclasses
import math
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

import files
from tools.drill import inputs, runs, sweeps
from tools.drill.trial import DidNotHoldError, Ground, Held, Kind

_INTERVAL = 30.0  # seconds between two lines in a log
ALL: Mapping[str, Kind] = {kind.name: kind for kind in (*runs.KINDS, *inputs.KINDS, sweeps.KIND)}


@dataclasses.dataclass
class Row:
    """The results of one kind of trial: the number of cases, and how many of them held."""

    done: int = 0
    held: int = 0
    peak_memory: int = 0  # bytes


@dataclasses.dataclass
class Table:
    """The results of a drill.

    Attributes:
      rows: one for each kind, by its name.
      failures: a sentence for each trial that did not hold.
      minutes: how long it took.
    """

    rows: dict[str, Row]
    failures: list[str] = dataclasses.field(default_factory=list)
    minutes: float = 0.0

    def _cells(self) -> list[tuple[str, str, str]]:
        cells = []
        for name, row in self.rows.items():
            memory = f' (at most {row.peak_memory / 1e6:,.0f} MB)' if row.peak_memory else ''
            cells.append((name, f'{row.held:,} of {row.done:,}', ALL[name].promise + memory))
        return cells

    def text(self) -> str:
        """Returns the table for a terminal."""
        head = ('trials', 'held', 'what is done, and what has to hold')
        table = files.columns([head, *self._cells()], left_columns=3)
        return f'{table}\n\n{self.minutes:.1f} minutes'

    def markdown(self) -> str:
        """Returns the table for docs/reliability.md."""
        head = ['| trials | held | what is done, and what has to hold |', '|---|---|---|']
        return '\n'.join([*head, *(f'| {" | ".join(cells)} |' for cells in self._cells())])


def drill(
    folder: Path,
    kinds: Sequence[str],
    *,
    minutes: float,
    trials: Mapping[str, int] | None = None,
    seed: int = 0,
    jobs: int | None = None,
) -> Table:
    """Runs trials of some kinds.

    Args:
      folder: where they take place; it is removed if all of them held.
      kinds: names of kinds, which take turns.
      minutes: after these no trial starts.
      trials: {kind: number}; a kind that has done so many things has no further turn. None: no
        limit.
      seed: what all trials are drawn from.
      jobs: how many run at a time; None: half of the cores, since each uses several.

    Returns:
      the table.
    """
    start = time.monotonic()
    session = _Session(folder, kinds, start + 60 * minutes, trials, seed)
    jobs = jobs or max(1, (os.cpu_count() or 2) // 2)
    with ThreadPoolExecutor(jobs) as pool:
        for worker in [pool.submit(session.work) for _ in range(jobs)]:
            worker.result()
    session.table.minutes = (time.monotonic() - start) / 60
    if not session.table.failures:
        shutil.rmtree(folder)
    return session.table


class _Session:
    """The trials of a drill, which several threads work through."""

    def __init__(
        self,
        folder: Path,
        kinds: Sequence[str],
        end: float,
        trials: Mapping[str, int] | None,
        seed: int,
    ):
        self.table = Table({name: Row() for name in kinds})
        self._folder, self._end, self._trials, self._seed = folder, end, trials, seed
        self._waiting = collections.deque(kinds)
        self._numbers: collections.Counter[str] = collections.Counter()
        self._prepared: dict[str, tuple[Ground, object]] = {}
        self._lock, self._preparing = threading.Lock(), threading.Lock()
        self._console = Console(stderr=True)
        self._shown = time.monotonic()

    def work(self) -> None:
        """Does trials until there are no more."""
        while (turn := self._next()) is not None:
            name, number = turn
            try:
                held = self._trial(name, number)
            except DidNotHoldError as error:
                self._note(name, error.done, error.held, failure=f'{name} {number}: {error}')
            else:
                self._note(name, held.count, held.count, held.peak_memory)

    def _next(self) -> tuple[str, int] | None:
        """Returns (kind, number) of the next trial, or None."""
        with self._lock:
            while self._waiting and time.monotonic() < self._end:
                name = self._waiting.popleft()
                if self._trials and self.table.rows[name].done >= self._trials.get(name, math.inf):
                    continue
                self._waiting.append(name)
                self._numbers[name] += 1
                return name, self._numbers[name] - 1
            return None

    def _trial(self, name: str, number: int) -> Held:
        ground, shared = self._ground(name)
        own = ground.folder / f'{number:05d}'
        own.mkdir()
        held = ALL[name].trial(ground, shared, own, number)
        shutil.rmtree(own)  # only what did not hold is worth keeping
        return held

    def _ground(self, name: str) -> tuple[Ground, object]:
        """Returns a kind's ground and what its trials share, which the first one makes."""
        with self._preparing:
            if name not in self._prepared:
                ground = Ground(self._folder / name, self._seed)
                ground.folder.mkdir(parents=True)
                self._prepared[name] = ground, ALL[name].prepare(ground)
            return self._prepared[name]

    def _note(
        self, name: str, done: int, held: int, peak_memory: int = 0, failure: str = ''
    ) -> None:
        """Adds a trial to the table, and shows where the drill stands."""
        with self._lock:
            row = self.table.rows[name]
            row.done, row.held = row.done + done, row.held + held
            row.peak_memory = max(row.peak_memory, peak_memory)
            if failure:
                self.table.failures.append(failure)
                self._print(f'did not hold: {failure}', '\n')
            counts = '  '.join(f'{n} {r.held}/{r.done}' for n, r in self.table.rows.items())
            if self._console.is_terminal:
                self._print(counts, '\r')
            elif time.monotonic() > self._shown + _INTERVAL:
                self._shown = time.monotonic()
                self._print(counts, '\n')

    def _print(self, text: str, end: str) -> None:
        self._console.print(text, end=end, markup=False, highlight=False, soft_wrap=True)
