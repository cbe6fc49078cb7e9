"""Section `checkpoint`: how long training stands still for a save.

The loop of train.py runs on random images, and saves after every few updates. What counts is from
the end of the last update to where the next one may start: the records, the copy to the host, the
check that all is finite, room on the disk, the end of the save before, and Orbax until it returns.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import processes
from benchmarks.tables import BenchmarkContext, BenchmarkTable


@dataclasses.dataclass(frozen=True)
class SaveCase:
    """A network whose saves are timed."""

    model: str
    shape: tuple[int, int, int]  # of an image; the state is as large for a small one
    classes: int
    batch_size: int
    apart: int  # updates from one save to the next, which has ended by then
    goal: float  # milliseconds


CASES = (
    SaveCase('lenet', (28, 28, 1), 10, 128, 100, 30.0),
    SaveCase('resnet50', (32, 32, 3), 1000, 8, 20, 300.0),
)
SAVES = 10
PARTS = ('copy', 'finite', 'room', 'wait', 'Orbax')


class SaveTimer:
    """Collects the milliseconds of each save, from the record before it to its return, by part.

    Parts are the methods that the loop calls for a save, without the time of other parts that they
    call. What none of them accounts for is the check that the numbers are finite.
    """

    def __init__(self):
        self.saves: list[dict[str, float]] = []
        self._parts: Counter[str] = Counter()
        self._step, self._start, self._inner = None, 0.0, 0.0

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Replaces an object's method by one that is timed as a part."""
        call = getattr(owner, method)

        def timed(*arguments, **options):
            start, outer = time.perf_counter(), self._inner
            if part == 'records' and arguments[0] != self._step:
                self._step, self._start, self._parts = arguments[0], start, Counter()
            self._inner = 0.0
            result = call(*arguments, **options)
            end = time.perf_counter()
            self._parts[part] += 1000 * (end - start) - self._inner
            self._inner = outer + 1000 * (end - start)
            if part == 'Orbax':
                whole = 1000 * (end - self._start)
                rest = whole - self._parts.total()
                self.saves.append({**self._parts, 'finite': rest, 'whole': whole})
            return result

        setattr(owner, method, timed)


def measure(case: SaveCase, saves: int, folder: Path) -> dict[str, Any]:
    """Trains in this process; returns the milliseconds of each save by part, and its bytes.

    The first save does not count, because its code is cold.
    """
    from benchmarks.synthetic import SyntheticExperiment, random_split
    from configs import base
    from distributed.preemption import Preemption
    from training.checkpoints import Checkpoints
    from training.loop import Loop
    from training.progress import Progress
    from training.records import Records

    config = base.get_config()
    config.model.name, config.batch_size = case.model, case.batch_size
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-4
    config.steps, config.checkpoint.every_steps = (saves + 1) * case.apart, case.apart
    config.eval_every = 1e9
    split = random_split(64, case.shape, case.classes)
    ready, timer = SyntheticExperiment(config, split), SaveTimer()
    progress = Progress(config.steps, enabled=False)
    saved = Checkpoints(folder, ready.spec.task.metric())
    with saved as checkpoints, Records(folder) as records, Preemption() as preemption:
        timer.watch(records, 'write', 'records')
        timer.watch(ready.runner, 'fetch', 'copy')
        timer.watch(checkpoints, 'check_room', 'room')
        timer.watch(checkpoints, 'wait', 'wait')
        timer.watch(checkpoints, 'save', 'Orbax')
        loop = Loop(ready.experiment, ready.runner, split, split, records, progress, checkpoints)
        loop.run(ready.state(), 0, ready.hyper, preemption)
        files = [path for path in checkpoints.folder.rglob('*') if path.is_file()]
        size = sum(path.stat().st_size for path in files) / len(checkpoints.steps())
    return {'saves': timer.saves[1:], 'bytes': size}


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Times the saves of each network in a process of its own."""
    rows, figures = [], {}
    for number, case in enumerate(CASES[:1] if context.quick else CASES):
        saves = str(3 if context.quick else SAVES)
        command = [sys.executable, '-m', 'benchmarks.checkpoint', str(number), saves]
        _, answer = processes.watch([*command, context.scratch], until='^{"saves"').lines[-1]
        figures[case.model] = result = json.loads(answer)
        times = {name: [save[name] for save in result['saves']] for name in ('whole', *PARTS)}
        median = {name: f'{statistics.median(own):.0f}' for name, own in times.items()}
        whole = [median['whole'], f'{max(times["whole"]):.0f}', f'{case.goal:.0f}']
        parts = ', '.join(f'{name} {median[name]}' for name in PARTS)
        rows.append([case.model, f'{result["bytes"] / 1e6:.1f}', *whole, parts])
    caption = (
        f'Time for which training stands still for a save, in milliseconds: median and worst of '
        f'{SAVES} saves, Adam, on the CPU.'
    )
    head = ('network', 'MB', 'median', 'worst', 'to reach', 'of which')
    return BenchmarkTable(caption, head, rows, figures)


if __name__ == '__main__':
    number, saves, scratch = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        print(json.dumps(measure(CASES[int(number)], int(saves), Path(folder))))
