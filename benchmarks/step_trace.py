"""Section `trace`: where the time of a training step on the CPU goes, and what a second core saves.

Each network is traced on one core and on two, by this module as a command: with the work of
contestants/our_networks.py in JSON, it prints {operation of the compiled step: [its location in the
program, as JAX names it, and milliseconds a step]}. What takes as long on both is what XLA does on
one thread.
"""

import collections
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import processes
from benchmarks import networks
from benchmarks.contestants import our_networks
from benchmarks.tables import BenchmarkContext, BenchmarkTable

CORES = (1, networks.THREADS)
# By the last component of a location that names a layer.
LAYERS = {'convolution': 'conv', 'normalisation': 'norm', 'pooling': 'pool'}
LAYERS['dense layers'] = 'dense|head'
ELSEWHERE = 'activations, sums and loss'  # within the network, in no layer with weights
REST = 'batch, optimiser and metrics'
SMALL, TOGETHER = 0.03, 'the others, less than 3 % each'


def kind(location: str) -> str:
    """Returns the row of a location such as '.../transpose(jvp(LeNet))/LeNet.stages/conv1/dot'."""
    if 'jvp(' not in location:
        return REST
    layer = ELSEWHERE
    for component in re.split('[/.]', location)[:-1]:  # the last is the operation
        layer = next((name for name, sign in LAYERS.items() if re.search(sign, component)), layer)
    return layer + (', backward' if 'transpose(jvp(' in location else ', forward')


def measure(case: networks.NetworkCase, cores: int) -> dict[str, float]:
    """Returns {row: milliseconds a step} of a network on so many cores."""
    (ours,) = networks.make_contestants(case, 'train', None)
    work = json.dumps({**ours.work, 'threads': cores})
    command = [sys.executable, '-m', 'benchmarks.step_trace', work]
    _, answer = processes.watch(command, until=r'^\{"').lines[-1]
    times: collections.Counter[str] = collections.Counter()
    for location, milliseconds in json.loads(answer).values():
        times[kind(location)] += milliseconds
    return dict(times)


def with_small_ones_together(
    one: dict[str, float], several: dict[str, float]
) -> list[tuple[str, float, float]]:
    """Returns (row, milliseconds on one core, on several), the longest first, small ones last."""
    names = sorted(several, key=several.get, reverse=True)
    rows = [(name, one.get(name, 0.0), several[name]) for name in names]
    large = [row for row in rows if row[2] >= SMALL * sum(several.values())]
    small = rows[len(large) :]
    rest = (TOGETHER, sum(row[1] for row in small), sum(row[2] for row in small))
    return [*large, rest] if small else large


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Measures all networks."""
    rows, figures = [], {}
    quick_case = dataclasses.replace(networks.CASES[0], steps=2)
    for case in [quick_case] if context.quick else networks.CASES:
        figures[case.model] = times = {}
        for cores in CORES:
            context.show(f'{case.model} on {cores} core(s)')
            times[str(cores)] = measure(case, cores)
        one, several = times.values()
        total = sum(several.values())
        for name, alone, together in with_small_ones_together(one, several):
            cells = f'{alone:.2f}', f'{together:.2f}', f'{100 * together / total:.0f} %'
            rows.append([case.model, name, *cells, f'{alone / together:.2f}'])
    head = ('network', 'what', 'ms on 1 core', f'on {CORES[1]}', 'share', 'times as fast')
    caption = (
        "Where our training step's time goes: how long XLA's operations run, in one trace on one "
        f'core and one on {CORES[1]}, by the layer they stand in; those that run at once share '
        'the time. XLA fuses an activation with what comes before or after it.'
    )
    return BenchmarkTable(caption, head, rows, figures)


def locations(program: str) -> dict[str, str]:
    """Returns {name of an operation: its location} of a compiled program's text.

    One without a location of its own has that of the last operation fused within it that has one,
    or that of the operation whose result it takes.
    """
    known, inside, computation = {}, {}, ''
    for line in program.splitlines():
        if head := re.match(r'(?:ENTRY )?%([\w.\-]+) \(', line):
            computation = head[1]
        if not (name := re.match(r'\s+(?:ROOT )?%([\w.\-]+) = ', line)):
            continue
        patterns = r'op_name="([^"]*)"', r'calls=%([\w.\-]+)', r'\(%([\w.\-]+)'
        matches = (re.search(pattern, line) for pattern in patterns)
        location, called, operand = (match and match[1] for match in matches)
        if location:
            inside[computation] = location
        known[name[1]] = location or inside.get(called) or known.get(operand, '')
    return known


def elapsed(events: Collection[tuple[str, float, float]]) -> dict[str, float]:
    """Returns {name: time} of events (name, start, end), in any order.

    Where several run at once, each has an equal part of the time. So the times add up to those in
    which anything ran.
    """
    edges = [(start, 1, name) for name, start, _ in events]
    edges += [(end, -1, name) for name, _, end in events]
    times, running, before = collections.Counter(), collections.Counter(), 0.0
    for moment, change, name in sorted(edges):
        for other, count in running.items():
            times[other] += (moment - before) * count / running.total()
        running[name] += change
        running += collections.Counter()  # leaves out what has ended
        before = moment
    return times


def events(folder: Path, names: Collection[str]) -> list[tuple[str, float, float]]:
    """Returns (name, start, end) in nanoseconds of all events of these names in a trace."""
    import jax

    (trace,) = folder.rglob('*.xplane.pb')
    return [
        (event.name, event.start_ns, event.start_ns + event.duration_ns)
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
        if event.name in names
    ]


def trace(work: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Returns {operation: (its location, milliseconds a step)}."""
    ready = our_networks.prepare(work)
    import jax

    batches = our_networks.updates(ready)
    for _ in range(max(2, work['steps'] // 4)):
        next(batches)
    # Steps run ahead of the loop: none may be under way when the trace begins or ends.
    jax.block_until_ready(jax.live_arrays())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(work['steps']):
                next(batches)
            jax.block_until_ready(jax.live_arrays())
        known = locations(ready.runner.train.compiled.as_text())
        times = elapsed(events(Path(folder), known))
    return {name: (known[name], time / work['steps'] / 1e6) for name, time in times.items()}


if __name__ == '__main__':
    print(json.dumps(trace(json.loads(sys.argv[1]))))
