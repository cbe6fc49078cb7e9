"""Where the time of our training step goes, by a trace of some steps: prints one line of JSON.

    python -m benchmarks.contestants.our_trace '{"model": "lenet", ...}'

The work is that of our_step.py. The answer is {operation of the compiled step: [its place in the
program, as JAX names it, and milliseconds a step]}.
"""

import collections
import json
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.contestants import our_step


def places(program: str) -> dict[str, str]:
    """Returns {name of an operation: its place} of a compiled program's text.

    One without a place of its own has that of the last operation fused within it that has one, or
    that of the operation whose result it takes.
    """
    found, inside, computation = {}, {}, ''
    for line in program.splitlines():
        head = re.match(r'(?:ENTRY )?%([\w.\-]+) \(', line)
        if head:
            computation = head[1]
        name = re.match(r'\s+(?:ROOT )?%([\w.\-]+) = ', line)
        if not name:
            continue
        place, called = re.search(r'op_name="([^"]*)"', line), re.search(r'calls=%([\w.\-]+)', line)
        taken = re.search(r'\(%([\w.\-]+)', line)
        own = place[1] if place else inside.get(called and called[1])
        found[name[1]] = own or found.get(taken and taken[1], '')
        if place:
            inside[computation] = place[1]
    return found


def elapsed(events: Collection[tuple[str, float, float]]) -> dict[str, float]:
    """Returns {name: time}; where several events run at once, each has an equal part of it.

    So the times add up to those in which anything ran.

    Args:
      events: (name, start, end), in any order.
    """
    edges = [(start, 1, name) for name, start, _ in events]
    edges += [(end, -1, name) for name, _, end in events]
    found, running, before = collections.Counter(), collections.Counter(), 0.0
    for at, change, name in sorted(edges):
        for other, count in running.items():
            found[other] += (at - before) * count / running.total()
        running[name] += change
        running += collections.Counter()  # leaves out what has ended
        before = at
    return found


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
    """Returns {operation: (its place, milliseconds a step)}; see the module."""
    runner, found = our_step.make_runner(work)
    import jax

    batches = our_step.training(runner, found)
    for _ in range(max(2, work['steps'] // 4)):
        next(batches)
    # Steps run ahead of the loop: none may be under way when the trace begins or ends.
    jax.block_until_ready(jax.live_arrays())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(work['steps']):
                next(batches)
            jax.block_until_ready(jax.live_arrays())
        named = places(runner.train.compiled.as_text())
        took = elapsed(events(Path(folder), named))
    return {name: (named[name], took[name] / work['steps'] / 1e6) for name in took}


if __name__ == '__main__':
    print(json.dumps(trace(json.loads(sys.argv[1]))))
