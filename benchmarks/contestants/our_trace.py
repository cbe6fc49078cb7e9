"""Where the time of our training step goes, by a trace of some steps: prints one line of JSON.

    python -m benchmarks.contestants.our_trace '{"model": "lenet", ...}'

The work is that of our_step.py. The answer is {operation of the compiled step: [its place in the
program, as JAX names it, and milliseconds a step]}.
"""

import json
import re
import sys
import tempfile
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


def milliseconds(folder: Path, steps: int) -> dict[str, float]:
    """Returns {name of whatever was traced on XLA's threads: milliseconds a step}."""
    import jax

    (trace,) = folder.rglob('*.xplane.pb')
    found: dict[str, float] = {}
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            if 'XLA' in line.name:
                for event in line.events:
                    found[event.name] = found.get(event.name, 0) + event.duration_ns / steps / 1e6
    return found


def trace(work: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Returns {operation: (its place, milliseconds a step)}; see the module."""
    runner, found = our_step.make_runner(work)
    import jax

    batches = our_step.training(runner, found)
    for _ in range(max(2, work['steps'] // 4)):
        next(batches)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(work['steps']):
                next(batches)
            jax.effects_barrier()
        took = milliseconds(Path(folder), work['steps'])
    named = places(runner.train.compiled.as_text())
    return {name: (named[name], took[name]) for name in named if name in took}


if __name__ == '__main__':
    print(json.dumps(trace(json.loads(sys.argv[1]))))
