"""Section `trace`: where the time of a training step on the CPU goes, and what a second core saves.

Each network is traced on one core and on two (benchmarks/contestants/our_trace.py). What XLA does
on one thread, whatever there are, is what takes as long on both.
"""

import dataclasses
import json
import re
import sys

from benchmarks import commands, step
from benchmarks.tables import Table, Work

CORES = (1, step.THREADS)
# By the last part of a place that names a layer.
LAYERS = {
    'convolution': 'conv',
    'normalisation': 'norm',
    'pooling': 'pool',
    'dense layers': 'dense|head',
}
FORWARD, BACKWARD = ', forward', ', backward'
ELSEWHERE = 'activations, sums and loss'  # within the network, in no layer with weights
REST = 'batch, optimiser and metrics'
SMALL, TOGETHER = 0.03, 'the others, less than 3 % each'


def kind(place: str) -> str:
    """Returns which row a place of the program belongs to.

    Args:
      place: as JAX writes it, '.../transpose(jvp(LeNet))/LeNet.stages/conv1/dot_general'.
    """
    if 'jvp(' not in place:
        return REST
    layer = ELSEWHERE
    for part in re.split('[/.]', place)[:-1]:  # the last is the operation
        layer = next((name for name, sign in LAYERS.items() if re.search(sign, part)), layer)
    return layer + (BACKWARD if 'transpose(jvp(' in place else FORWARD)


def measure(case: step.Case, cores: int) -> dict[str, float]:
    """Returns {row: milliseconds a step} of a network on so many cores.

    Raises:
      UserError: the step could not be traced.
    """
    entry = step.make_entries(case, 'train', None)[0]
    work = json.dumps({**entry.work, 'threads': cores})
    command = [sys.executable, '-m', 'benchmarks.contestants.our_trace', work]
    printed = commands.watch(command, until=r'^\{"').lines[-1][1]
    found: dict[str, float] = {}
    for place, milliseconds in json.loads(printed).values():
        found[kind(place)] = found.get(kind(place), 0) + milliseconds
    return found


def with_small_ones_together(
    one: dict[str, float], several: dict[str, float]
) -> list[tuple[str, float, float]]:
    """Returns (row, milliseconds on one core, on several), the longest first, small ones last."""
    total, left, rows = sum(several.values()), [0.0, 0.0], []
    for name in sorted(several, key=several.get, reverse=True):
        pair = one.get(name, 0.0), several[name]
        if pair[1] >= SMALL * total:
            rows.append((name, *pair))
        else:
            left = [have + more for have, more in zip(left, pair, strict=True)]
    return [*rows, (TOGETHER, *left)] if left[1] else rows


def run(work: Work) -> Table:
    """Measures all cases."""
    rows, figures = [], {}
    for case in step.CASES[:1] if work.quick else step.CASES:
        if work.quick:
            case = dataclasses.replace(case, steps=2)
        found = {}
        for cores in CORES:
            work.show(f'{case.model} on {cores} core(s)')
            found[cores] = measure(case, cores)
        one, several = (found[cores] for cores in CORES)
        total = sum(several.values())
        figures[case.model] = {str(cores): times for cores, times in found.items()}
        for name, alone, together in with_small_ones_together(one, several):
            times, share = (f'{alone:.2f}', f'{together:.2f}'), f'{100 * together / total:.0f} %'
            rows.append([case.model, name, *times, share, f'{alone / together:.2f}'])
    head = ('network', 'what', 'ms on 1 core', f'on {step.THREADS}', 'share', 'times as fast')
    caption = (
        "Where our training step's time goes: how long XLA's operations run, in one trace on one "
        f'core and one on {step.THREADS}, by the layer they stand in; those that run at once share '
        'the time. XLA fuses an activation with what comes before or after it.'
    )
    return Table(caption, head, rows, figures)
