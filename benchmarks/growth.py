"""Section `growth`: whether an image costs the same in large sets and long runs, and memory stays.

First our training step over sets of 1,000 to 1,000,000 images that live on the device, in turns;
then one run of train.py of 10,000 steps, with all that surrounds the step.
"""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

import input_pipeline
from benchmarks import commands, contest, step
from benchmarks.reader import growth
from benchmarks.tables import Table, Work, side_by_side
from errors import UserError
from training import records

CASE = dataclasses.replace(step.CASES[0], steps=200)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CONFIG, BATCH = 'configs/digits_lenet.py', 128
STEPS, MARKS, LOG_EVERY = 10_000, 10, 20
STEADY_SHARE, STEADY_BYTES = 0.05, 16e6  # what noise may make of a cost, of a memory


@dataclasses.dataclass(frozen=True)
class Size:
    """Cost and memory of training on a set of some size.

    Attributes:
      examples: in the set.
      step: seconds per image of the training step, batches planned included.
      order: seconds per image for the permutation of an epoch.
      data: bytes of the images and labels.
      resident: bytes of the training process.
    """

    examples: int
    step: float
    order: float
    data: int
    resident: int

    @property
    def cost(self) -> float:
        """Seconds per image in all."""
        return self.step + self.order


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point of a long run.

    Attributes:
      step: updates done.
      cost: seconds per image since the mark before; None at the first.
      resident: bytes of the process.
    """

    step: int
    cost: float | None
    resident: int


def sizes(work: Work) -> list[Size]:
    """Measures sets of all sizes in alternation."""
    counts, steps = (SIZES[:2], 2) if work.quick else (SIZES, CASE.steps)
    common = {**dataclasses.asdict(CASE), 'task': 'train', 'threads': step.THREADS, 'overrides': []}
    ours = [sys.executable, '-m', 'benchmarks.contestants.our_split']
    entries = [
        contest.Entry(f'{count:,} images', ours, {**common, 'examples': count}) for count in counts
    ]
    turns = side_by_side(entries, steps, work, 'size of the set')
    if len(turns) < len(counts):
        raise UserError('A set of one of the sizes could not be trained on; why is said above.')
    return [
        Size(
            count,
            step=statistics.median(turn.seconds / turn.images for turn in own),
            order=_order_seconds(count, work.rounds) / count,
            data=count * (CASE.size**2 * CASE.channels + 4),
            resident=own[-1].resident,
        )
        for count, own in zip(counts, turns.values(), strict=True)
    ]


def _order_seconds(count: int, rounds: int) -> float:
    """Seconds that the order of a new epoch takes, median. Too rare to fall into every turn."""
    found = []
    for epoch in range(rounds):
        start = time.perf_counter()
        input_pipeline.permutation(0, epoch, count)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


# --- a long run ------------------------------------------------------------------------------


def long_run(work: Work) -> list[Mark]:
    """Trains by train.py; returns its marks, the first after LOG_EVERY steps.

    Raises:
      UserError: train.py failed.
    """
    steps, marks = (3 * LOG_EVERY, 3) if work.quick else (STEPS, MARKS)
    wanted = [LOG_EVERY, *(steps * (number + 1) // marks for number in range(marks))]
    folder, log = work.scratch / 'run', work.scratch / 'train.log'
    options = {'steps': steps, 'log_every': LOG_EVERY}
    command = [sys.executable, 'train.py', f'--config={CONFIG}', f'--workdir={folder}']
    command += [f'--config.{name}={value}' for name, value in options.items()]
    resident = {}
    with log.open('wb') as output, commands.child(command, stdout=output) as process:
        for step_done in _steps_done(process, folder):
            for mark in wanted:
                if mark <= step_done and mark not in resident:
                    resident[mark] = _resident(process, resident)
            work.show(f'a long run: step {step_done:,} of {steps:,}')
        if process.wait():
            last = (log.read_text(errors='replace').strip().splitlines() or ['no message'])[-1]
            raise UserError(f'train.py failed: {last.removeprefix("error: ")}')
    clock = {record['step']: record['wall_seconds'] for record in records.read_metrics(folder)}
    found = []
    for before, mark in zip((None, *wanted), wanted, strict=False):
        if before != mark:  # the first mark may be the first of the others, too
            cost = None
            if before is not None:
                cost = (clock[mark] - clock[before]) / ((mark - before) * BATCH)
            found.append(Mark(mark, cost, resident[mark]))
    return found


def _steps_done(process: subprocess.Popen, folder: Path) -> Iterator[int]:
    """Yields the step of the newest record while the process runs, ten times a second."""
    while process.poll() is None:
        found = records.read_metrics(folder)
        yield max((record['step'] for record in found), default=0)
        time.sleep(0.1)


def _resident(process: subprocess.Popen, earlier: dict[int, int]) -> int:
    try:
        return psutil.Process(process.pid).memory_info().rss
    except psutil.Error:
        return max(earlier.values(), default=0)


# --- the table -------------------------------------------------------------------------------


def run(work: Work) -> Table:
    """Measures both."""
    by_size = sizes(work)
    marks = long_run(work)
    rows = [
        [
            f'{size.examples:,} images',
            f'{1e6 * size.cost:.1f}',
            f'{size.cost / by_size[0].cost:.2f}',
            f'{size.resident / 1e6:,.0f}',
            f'{size.data / 1e6:,.0f}',
        ]
        for size in by_size
    ]
    costs = [mark.cost for mark in marks if mark.cost is not None]
    for mark in marks:
        cost = ['-', '-']
        if mark.cost is not None:
            cost = [f'{1e6 * mark.cost:.1f}', f'{mark.cost / costs[0]:.2f}']
        rows.append([f'step {mark.step:,}', *cost, f'{mark.resident / 1e6:,.0f}', '-'])
    head = ('what', 'µs per image', 'to the first', 'memory, MB', 'of it images, MB')
    figures: dict[str, Any] = {
        'sizes': [dataclasses.asdict(size) for size in by_size],
        'marks': [dataclasses.asdict(mark) for mark in marks],
    }
    return Table(caption(by_size, marks), head, rows, figures)


def caption(by_size: Sequence[Size], marks: Sequence[Mark]) -> str:
    """Returns what the table shows, in words."""
    small, large = by_size[0], by_size[-1]
    beside = [size.resident - size.data for size in by_size]
    costs = [mark.cost for mark in marks if mark.cost is not None]
    cost, memory = _later_to_earlier(costs), [mark.resident for mark in marks]
    grown = growth(memory)
    return (
        f'LeNet, 28 px, batch {CASE.batch_size}. Upper rows: the training step on sets of uint8 '
        "images that live on the device, the epoch's order included, in alternation: an image of "
        f'{large.examples:,} costs {large.cost / small.cost:.2f} of one of {small.examples:,}, and '
        f'memory beside the images is {min(beside) / 1e6:,.0f} to {max(beside) / 1e6:,.0f} MB. '
        f'Lower rows: one run of `train.py --config={CONFIG}`, validation and checkpoints '
        f'included: the later half costs {cost:.2f} of the earlier '
        f'({"flat" if abs(cost - 1) <= STEADY_SHARE else "NOT FLAT"}), and memory grew by '
        f'{grown / 1e6:.1f} MB ({"flat" if grown < STEADY_BYTES else "GROWING"}).'
    )


def _later_to_earlier(costs: Sequence[float]) -> float:
    half = max(len(costs) // 2, 1)
    return statistics.median(costs[-half:]) / statistics.median(costs[:half])
