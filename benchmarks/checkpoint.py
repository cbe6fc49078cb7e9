"""Section `checkpoint`: how long training stands still for a save.

The training loop runs as it does in train.py, on made-up images, and saves after every few updates.
What counts is from the end of the last update to where the next one may start: the records, the
copy to the host, the check that all is finite, room on the disk, the end of the save before, and
what Orbax does before it returns.
"""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import ROOT
from benchmarks.tables import Table, Work
from errors import UserError


@dataclasses.dataclass(frozen=True)
class Case:
    """One network whose saves are timed.

    Attributes:
      model: its name in models/registry.py.
      shape: of an image; the state is as large for a small one.
      classes: number of logits.
      batch_size: images an update.
      apart: updates from one save to the next, which has ended by then.
      goal: milliseconds.
    """

    model: str
    shape: tuple[int, int, int]
    classes: int
    batch_size: int
    apart: int
    goal: float


CASES = (
    Case('lenet', (28, 28, 1), 10, 128, 100, 30.0),
    Case('resnet50', (32, 32, 3), 1000, 8, 20, 300.0),
)
SAVES = 10
PARTS = ('copy', 'finite', 'room', 'wait', 'Orbax')


class Clock:
    """Adds up what some functions take: milliseconds of each part, in every save."""

    def __init__(self):
        self.saves: list[dict[str, float]] = []
        self._parts: dict[str, float] = {}

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Replaces the method of an object by one whose time is counted as that part."""
        method = getattr(owner, name)

        def timed(*arguments, **options):
            start = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                taken = 1000 * (time.perf_counter() - start)
                self._parts[part] = self._parts.get(part, 0.0) + taken

        setattr(owner, name, timed)

    def watch_saves(self, loop) -> None:
        """Counts a write of the loop as a save if it is one, with the parts that it is made of."""
        write = loop._write

        def timed(state, step, *rest):
            self._parts = {}
            start = time.perf_counter()
            write(state, step, *rest)
            if loop.due.saves(step):
                whole = 1000 * (time.perf_counter() - start)
                self.saves.append({'whole': whole, **self._parts})

        loop._write = timed


@contextlib.contextmanager
def _run(case: Case, saves: int, folder: Path) -> Iterator[tuple[Any, Any]]:
    """Yields (loop, function that trains), with checkpoints under `folder`."""
    from configs import base
    from data_sources.arrays import ArraySource
    from distributed import devices
    from distributed.preemption import Preemption
    from training import experiment
    from training.checkpoints import Checkpoints
    from training.loop import Loop
    from training.progress import Progress
    from training.records import Records
    from training.runner import Runner

    config = base.get_config()
    config.model.name, config.batch_size = case.model, case.batch_size
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    config.steps, config.checkpoint.every_steps = saves * case.apart, case.apart
    config.eval_every = 1e9
    all_devices = devices.start(config)
    draw = np.random.default_rng(0)
    source = ArraySource(
        'noise',
        'train',
        draw.integers(256, size=(64, *case.shape), dtype=np.uint8),
        {'label': draw.integers(case.classes, size=64, dtype=np.int32)},
        tuple(map(str, range(case.classes))),
    )
    found = experiment.from_split(config, source)
    runner = Runner(found.spec(), config.runner, all_devices)
    state = runner.replicate(found.initial_state(found.spec()))
    hyper = runner.replicate(experiment.hyperparameters(config))
    records, progress = Records(folder), Progress(found.steps, enabled=False)
    saved = Checkpoints(folder, runner.spec.task.metric())
    with saved as checkpoints, records, Preemption() as preemption:
        loop = Loop(found, runner, source, source, records, progress, checkpoints)
        yield loop, lambda: loop.run(state, 0, hyper, preemption)


def measure(case: Case, saves: int, folder: Path) -> dict[str, Any]:
    """Trains in this process; returns the milliseconds of each save by part, and its bytes.

    The first save is left out: it finds its code cold.
    """
    clock = Clock()
    with _run(case, saves + 1, folder) as (loop, train):
        checkpoints = loop.checkpoints
        clock.watch_saves(loop)
        clock.watch(loop.runner, 'fetch', 'copy')
        clock.watch(loop, '_check_state', 'finite')
        clock.watch(checkpoints, '_check_room', 'room')
        clock.watch(checkpoints, 'wait', 'wait')
        clock.watch(checkpoints._manager, 'save', 'Orbax')
        train()
        files = [p for p in checkpoints.folder.rglob('*') if p.is_file()]
        size = sum(p.stat().st_size for p in files) / len(checkpoints.steps())
    return {'saves': clock.saves[1:], 'bytes': size}


def run(work: Work) -> Table:
    """Times the saves of each network in a process of its own."""
    rows, figures = [], {}
    for number, case in enumerate(CASES[:1] if work.quick else CASES):
        saves = 3 if work.quick else SAVES
        arguments = [str(number), str(saves), str(work.scratch)]
        child = subprocess.run(
            [sys.executable, '-m', 'benchmarks.checkpoint', *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if child.returncode:
            raise UserError(f'{case.model}: the saves could not be timed: {child.stderr[-300:]}')
        found = figures[case.model] = json.loads(child.stdout.splitlines()[-1])
        part = {name: [save[name] for save in found['saves']] for name in ('whole', *PARTS)}
        rows.append(
            [
                case.model,
                f'{found["bytes"] / 1e6:.1f}',
                f'{statistics.median(part["whole"]):.0f}',
                f'{max(part["whole"]):.0f}',
                f'{case.goal:.0f}',
                ', '.join(f'{name} {statistics.median(part[name]):.0f}' for name in PARTS),
            ]
        )
    caption = (
        f'Time for which training stands still for a save, in milliseconds: median and worst of '
        f'{SAVES} saves, Adam, on the CPU.'
    )
    head = ('network', 'MB', 'median', 'worst', 'to reach', 'of which')
    return Table(caption, head, rows, figures)


if __name__ == '__main__':
    number, saves, scratch = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        print(json.dumps(measure(CASES[int(number)], int(saves), Path(folder))))
