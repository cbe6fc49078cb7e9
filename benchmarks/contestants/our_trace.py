"""Where the time of our training step goes, by a trace of some steps: prints one line of JSON.

    python -m benchmarks.contestants.our_trace '{"model": "lenet", ...}'

The work is that of our_networks.py. The answer is {operation of the compiled step: [its location in
the program, as JAX names it, and milliseconds a step]}.
"""

import collections
import json
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.contestants import our_networks


def locations(program: str) -> dict[str, str]:
    """Returns {name of an operation: its location} of a compiled program's text.

    One without a location of its own has that of the last operation fused within it that has one,
    or that of the operation whose result it takes.
    """
    known, inside, computation = {}, {}, ''
    for line in program.splitlines():
        head = re.match(r'(?:ENTRY )?%([\w.\-]+) \(', line)
        if head:
            computation = head[1]
        name = re.match(r'\s+(?:ROOT )?%([\w.\-]+) = ', line)
        if not name:
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
