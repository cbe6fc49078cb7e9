"""Section `trace`: where the time of a training step on the CPU goes, and what a second core saves.

Each network is traced on one core and on two (benchmarks/contestants/our_trace.py). What takes as
long on both is what XLA does on one thread.
"""

import collections
import dataclasses
import json
import re
import sys

from benchmarks import networks, processes
from benchmarks.tables import BenchmarkContext, BenchmarkTable

CORES = (1, networks.THREADS)
# By the last component of a location that names a layer.
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


def kind(location: str) -> str:
    """Returns the row of a location in the program, as JAX writes it.

    For example '.../transpose(jvp(LeNet))/LeNet.stages/conv1/dot_general'.
    """
    if 'jvp(' not in location:
        return REST
    layer = ELSEWHERE
    for component in re.split('[/.]', location)[:-1]:  # the last is the operation
        layer = next((name for name, sign in LAYERS.items() if re.search(sign, component)), layer)
    return layer + (BACKWARD if 'transpose(jvp(' in location else FORWARD)


def measure(case: networks.NetworkCase, cores: int) -> dict[str, float]:
    """Returns {row: milliseconds a step} of a network on so many cores.

    Raises:
      UserError: the step could not be traced.
    """
    (ours,) = networks.make_contestants(case, 'train', None)
    work = json.dumps({**ours.work, 'threads': cores})
    command = [sys.executable, '-m', 'benchmarks.contestants.our_trace', work]
    _, answer = processes.watch(command, until=r'^\{"').lines[-1]
    times: collections.Counter[str] = collections.Counter()
    for location, milliseconds in json.loads(answer).values():
        times[kind(location)] += milliseconds
    return dict(times)


def with_small_ones_together(
    one: dict[str, float], several: dict[str, float]
) -> list[tuple[str, float, float]]:
    """Returns (row, milliseconds on one core, on several), the longest first, small ones last."""
    total, small, rows = sum(several.values()), [0.0, 0.0], []
    for name in sorted(several, key=several.get, reverse=True):
        alone, together = one.get(name, 0.0), several[name]
        if together >= SMALL * total:
            rows.append((name, alone, together))
        else:
            small = [small[0] + alone, small[1] + together]
    return [*rows, (TOGETHER, *small)] if small[1] else rows


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Measures all networks."""
    rows, figures = [], {}
    for case in networks.CASES[:1] if context.quick else networks.CASES:
        if context.quick:
            case = dataclasses.replace(case, steps=2)
        times = {}
        for cores in CORES:
            context.show(f'{case.model} on {cores} core(s)')
            times[cores] = measure(case, cores)
        one, several = times.values()
        total = sum(several.values())
        figures[case.model] = {str(cores): own for cores, own in times.items()}
        for name, alone, together in with_small_ones_together(one, several):
            shown, share = (f'{alone:.2f}', f'{together:.2f}'), f'{100 * together / total:.0f} %'
            rows.append([case.model, name, *shown, share, f'{alone / together:.2f}'])
    head = ('network', 'what', 'ms on 1 core', f'on {CORES[1]}', 'share', 'times as fast')
    caption = (
        "Where our training step's time goes: how long XLA's operations run, in one trace on one "
        f'core and one on {CORES[1]}, by the layer they stand in; those that run at once share '
        'the time. XLA fuses an activation with what comes before or after it.'
    )
    return BenchmarkTable(caption, head, rows, figures)
