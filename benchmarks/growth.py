"""Sections `growth`, what images and memory cost as sets and runs grow, and `memory` of short runs.

First our training step on sets of 1,000 to 1,000,000 images that live on the device, in turns;
then one run of train.py of 10,000 steps, with everything around the step.

`memory` sets the peak of short runs, which the operating system reports, beside what preflight
estimates. A run trains for a few steps, evaluates, saves, tests and draws its curves, the first one
with nothing compiled before, as preflight assumes.
"""

import contextlib
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import input_pipeline
import processes
from benchmarks import contest, job, networks
from benchmarks.reader import growth
from benchmarks.tables import BenchmarkContext, BenchmarkTable
from errors import UserError
from training import records

CASE = dataclasses.replace(networks.CASES[0], steps=200)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CONFIG, BATCH = 'configs/digits_lenet.py', 128
STEPS, MARKS, LOG_EVERY = 10_000, 10, 20
SHORT_STEPS = 6
NAMES = ('digits_lenet', 'mnist_lenet', 'mnist_deep_cnn', 'mnist_resnet18')
STEADY_COST, STEADY_BYTES = 0.05, 16e6  # relative cost and memory that may be noise


@dataclasses.dataclass(frozen=True)
class SetSize:
    """Cost and memory of training on a set of some size."""

    examples: int
    step: float  # seconds per image of the training step, planning of batches included
    order: float  # seconds per image for the permutation of an epoch
    data: int  # bytes of images and labels
    resident: int  # bytes of the training process

    @property
    def cost(self) -> float:
        """Seconds per image in all."""
        return self.step + self.order


@dataclasses.dataclass(frozen=True)
class Mark:
    """A moment of a long run."""

    step: int  # updates done
    cost: float | None  # seconds per image since the mark before; None at the first
    resident: int  # bytes of the process


def sizes(context: BenchmarkContext) -> list[SetSize]:
    """Measures sets of all sizes in alternation."""
    counts, steps = (SIZES[:2], 2) if context.quick else (SIZES, CASE.steps)
    (ours,) = networks.make_contestants(CASE, 'train', None)
    contestants = [contest.with_work(ours, f'{n:,} images', examples=n) for n in counts]
    turns = contest.side_by_side(contestants, steps, context, 'size of the set')
    if len(turns) < len(counts):
        raise UserError('Training failed on a set of one of the sizes; why is said above.')
    by_size = []
    for count, own in zip(counts, turns.values(), strict=True):
        step = statistics.median(turn.seconds / turn.images for turn in own)
        times = [time.perf_counter()]  # of the order of a new epoch, which not every turn has
        for epoch in range(context.rounds):
            input_pipeline.permutation(0, epoch, count)
            times.append(time.perf_counter())
        order = statistics.median(end - start for start, end in itertools.pairwise(times)) / count
        data = count * (CASE.size**2 * CASE.channels + 4)
        by_size.append(SetSize(count, step, order, data, own[-1].resident))
    return by_size


def long_run(context: BenchmarkContext) -> list[Mark]:
    """Trains by train.py; returns its marks, the first after LOG_EVERY steps."""
    steps, count = (3 * LOG_EVERY, 3) if context.quick else (STEPS, MARKS)
    # The first mark may be one of the others, too.
    marks = list(dict.fromkeys([LOG_EVERY, *(steps * (n + 1) // count for n in range(count))]))
    folder, log = context.scratch / 'run', context.scratch / 'train.log'
    command = job.our_command(CONFIG, folder, f'steps={steps}', f'log_every={LOG_EVERY}')
    resident: dict[int, int] = {}
    with log.open('wb') as output, processes.child(command, stdout=output) as process:
        while process.poll() is None:
            done = max((record['step'] for record in records.read_metrics(folder)), default=0)
            for mark in marks:
                if mark <= done and mark not in resident:
                    resident[mark] = max(resident.values(), default=0)  # where it has just ended
                    with contextlib.suppress(psutil.Error):
                        resident[mark] = psutil.Process(process.pid).memory_info().rss
            context.show(f'a long run: step {done:,} of {steps:,}')
            time.sleep(0.1)
        if process.wait():
            last = processes.last_line(log.read_text(errors='replace'))
            raise UserError(f'train.py failed: {last}')
    clock = {record['step']: record['wall_seconds'] for record in records.read_metrics(folder)}
    found = [Mark(marks[0], None, resident[marks[0]])]
    for before, mark in itertools.pairwise(marks):
        cost = (clock[mark] - clock[before]) / ((mark - before) * BATCH)
        found.append(Mark(mark, cost, resident[mark]))
    return found


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Measures both."""
    by_size, marks = sizes(context), long_run(context)
    rows = []
    for size in by_size:
        cost = f'{1e6 * size.cost:.1f}', f'{size.cost / by_size[0].cost:.2f}'
        memory = f'{size.resident / 1e6:,.0f}', f'{size.data / 1e6:,.0f}'
        rows.append([f'{size.examples:,} images', *cost, *memory])
    for mark in marks:
        cost = '-', '-'
        if mark.cost is not None:
            cost = f'{1e6 * mark.cost:.1f}', f'{mark.cost / marks[1].cost:.2f}'
        rows.append([f'step {mark.step:,}', *cost, f'{mark.resident / 1e6:,.0f}', '-'])
    head = ('what', 'µs per image', 'to the first', 'memory, MB', 'of it images, MB')
    return BenchmarkTable(caption(by_size, marks), head, rows, {'sizes': by_size, 'marks': marks})


def caption(by_size: Sequence[SetSize], marks: Sequence[Mark]) -> str:
    """Returns the table's caption."""
    small, large = by_size[0], by_size[-1]
    beside = [size.resident - size.data for size in by_size]
    costs = [mark.cost for mark in marks if mark.cost is not None]
    half = max(len(costs) // 2, 1)
    cost = statistics.median(costs[-half:]) / statistics.median(costs[:half])
    grown = growth([mark.resident for mark in marks])
    return (
        f'LeNet, 28 px, batch {CASE.batch_size}. Upper rows: the training step on sets of uint8 '
        "images that live on the device, the epoch's order included, in alternation: an image of "
        f'{large.examples:,} costs {large.cost / small.cost:.2f} of one of {small.examples:,}, and '
        f'memory beside the images is {min(beside) / 1e6:,.0f} to {max(beside) / 1e6:,.0f} MB. '
        f'Lower rows: one run of `train.py --config={CONFIG}`, validation and checkpoints '
        f'included: the later half costs {cost:.2f} of the earlier '
        f'({"flat" if abs(cost - 1) <= STEADY_COST else "NOT FLAT"}), and memory grew by '
        f'{grown / 1e6:.1f} MB ({"flat" if grown < STEADY_BYTES else "GROWING"}).'
    )


def estimate(arguments: list[str]) -> dict[str, Any]:
    """Returns preflight's report of a configuration: '--config=FILE' and its overrides."""
    command = [sys.executable, '-m', 'tools.preflight', *arguments, '--json']
    return json.loads('\n'.join(line for _, line in processes.watch(command).lines))


def peak(arguments: list[str], folder: Path, name: str) -> int:
    """Returns the bytes that a run takes at most; its workdir is the folder's `name`.

    What it compiles stays in the folder for a second run.
    """
    more = [f'--config.compilation_cache={folder / "cache"}', f'--workdir={folder / name}']
    return processes.watch([sys.executable, 'train.py', *arguments, *more]).peak_memory


def short(config: str, *overrides: str) -> list[str]:
    """Returns the arguments for a run of a few steps with two saves."""
    lengths = f'steps={SHORT_STEPS}', f'checkpoint.every_steps={SHORT_STEPS // 2}'
    texts = (*lengths, 'schedule.warmup=0', *overrides)
    return [f'--config={config}', *(f'--config.{text}' for text in texts)]


def memory(context: BenchmarkContext) -> BenchmarkTable:
    """Runs preflight and two short runs of each configuration."""
    rows, figures = [], {}
    for name in NAMES[: 1 if context.quick else None]:
        config, folder = f'configs/{name}.py', context.scratch / name
        folder.mkdir()
        arguments = short(config, f'data.dir={context.data_dir}')
        figures[config] = peaks = {
            'estimated': estimate(arguments)['host_peak'],
            'first_run': peak(arguments, folder, 'first'),
            'later_run': peak(arguments, folder, 'later'),
        }
        context.say(f'{config}: {peaks}')
        megabytes = [f'{value / 1e6:,.0f}' for value in peaks.values()]
        rows.append([config, *megabytes, f'{peaks["estimated"] / peaks["first_run"]:.2f}'])
    caption = (
        'Peak memory of a run on the CPU in MB: what `python -m tools.preflight` estimates, what a '
        'first run takes, which compiles, and a later one, which does not.'
    )
    head = ('config', 'estimated', 'first run', 'later run', 'estimated / first')
    return BenchmarkTable(caption, head, rows, figures)
