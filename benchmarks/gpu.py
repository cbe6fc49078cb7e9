"""Speed on an accelerator: one command, below eight minutes, without network and data sets.

    python -m benchmarks.gpu                       all parts, on the first GPU or TPU
    python -m benchmarks.gpu --only=resnet50,lenet some of them
    python -m benchmarks.gpu --markdown            tables as docs/speed.md shows them
    python -m benchmarks.gpu --quick               tiny sizes, on a CPU too: shows that it works

    resnet50     training step in bfloat16, 224 pixels, at growing batch sizes
    lenet        whole runs on 60,000 synthetic digits: one update a call, and several
    population   many LeNets trained at once, each with its own seed and learning rate
    vgg16, densenet121   as resnet50

Images are synthetic, uint8, on the device; the step is the one that train.py runs: it gathers the
batch, normalizes it, and updates the state in place. Compilation is timed apart, and no window has
a transfer between host and device. Rows of a part take turns; figures are medians of their windows.

Beside each figure is what the device allows at best (benchmarks/gpu_tables.py). XLA_FLAGS and the
like stay as they are set, and are printed where they matter. What does not fit into the time is
left out, the least important first, with a note.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command
import processes
from benchmarks import gpu_tables
from errors import UserError

# The parts in their order, with their shares of the time; later parts get what one leaves over.
# XLA compiles DenseNet-121 four times as long as ResNet-50.
SHARES = {'resnet50': 36, 'lenet': 10, 'population': 14, 'vgg16': 10, 'densenet121': 30}
ENDING = 10.0  # seconds reserved for starting and ending
MEMORY_SHARE = '0.92'
# These make programs compile sooner and run slower: good enough for --quick.
_QUICK_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
PATIENCE = 1.4  # times its share that a part may take before it is ended, if there is time


def main(argv: list[str]) -> int:
    """Runs the parts that the command line asks for; returns 1 if one of them gave nothing."""
    parser = command.make_parser('benchmarks.gpu', __doc__)
    add = parser.add_argument
    add('--only', help='some parts, NAME,NAME,...')
    add('--minutes', type=_minutes, default=8.0, help='for all parts (default 8)')
    add('--markdown', action='store_true', help='print tables as Markdown')
    add('--output', type=Path, help='JSON file for all figures')
    add('--quick', action='store_true', help='tiny sizes; figures mean nothing')
    arguments = parser.parse_args(argv)
    with command.reserved(arguments.output) as output:
        results = _run_parts(arguments, output)
    empty = [name for name, result in results.items() if not result['rows']]
    if empty:
        print(f'Nothing was measured for {", ".join(empty)}.', file=sys.stderr)
    return int(bool(empty))


def _run_parts(arguments, output: Path | None) -> dict[str, Any]:
    """Runs the parts one after the other; returns their results."""
    end = time.monotonic() + 60 * arguments.minutes - ENDING
    names = command.chosen(arguments.only, list(SHARES), 'part')
    about = {'date': datetime.date.today().isoformat(), 'quick': arguments.quick}
    results: dict[str, Any] = {}
    for number, name in enumerate(names):
        left = end - time.monotonic()
        seconds = left * SHARES[name] / sum(SHARES[later] for later in names[number:])
        limit = min(PATIENCE * seconds, left)
        result = run_part(name, arguments.quick, seconds, limit)
        described = result.pop('about', None)  # where it runs
        if described and not results:
            about |= described
            gpu_tables.introduce(about)
        results[name] = result
        gpu_tables.show(gpu_tables.make(name, result, about), arguments.markdown)
        if output:  # after each part, so that a later failure loses nothing
            output.write_text(json.dumps({**about, 'parts': results}, indent=2) + '\n')
    if output:
        print(f'Written: {output}', file=sys.stderr)
    return results


def run_part(name: str, quick: bool, seconds: float, limit: float) -> dict[str, Any]:
    """Runs a part in a process of its own; returns what it reported, with 'rows' and 'notes'.

    The part plans to end in `seconds`, and is ended after `limit` seconds.
    """
    result: dict[str, Any] = {'rows': [], 'notes': []}
    work = {'name': name, 'quick': quick, 'seconds': seconds, 'started': time.time()}
    command_line = [sys.executable, '-m', 'benchmarks.gpu_parts', json.dumps(work)]
    options = {'stdout': subprocess.PIPE, 'text': True}
    options['env'] = {**os.environ, **environment(os.environ, quick)}
    with tempfile.TemporaryFile('w+', errors='replace') as errors:
        with processes.child(command_line, stderr=errors, **options) as process, process.stdout:
            late = threading.Event()
            timer = threading.Timer(limit, lambda: (late.set(), process.kill()))
            timer.start()
            try:
                for line in process.stdout:
                    _receive(name, json.loads(line), result)
                code = process.wait()
            finally:
                timer.cancel()
        errors.seek(0)
        last = processes.last_line(errors.read())
    if 'refused' in result:
        raise UserError(result['refused'])
    if late.is_set():
        note = f'ended after {limit:.0f} s: its time was up. --only={name} gives it all there is.'
        _receive(name, {'note': note}, result)
    elif not result.get('done'):
        _receive(name, {'note': f'it broke off (code {code}): {last}'}, result)
    return result


def environment(given: Mapping[str, str], quick: bool = False) -> dict[str, str]:
    """Returns the variables to set before JAX starts; the user's own settings stay.

    JAX takes 75 % of a GPU's memory by default; more of it admits larger batches. The rest is
    for cuDNN, cuBLAS and the driver. No other documented setting helps one device: XLA chooses
    convolution layouts (NHWC for bfloat16) and tunes kernels by default.
    """
    wanted = {}
    if not {'XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'} & set(given):
        wanted['XLA_CLIENT_MEM_FRACTION'] = MEMORY_SHARE
    if quick:
        wanted['XLA_FLAGS'] = f'{given.get("XLA_FLAGS", "")} {_QUICK_FLAGS}'.strip()
    return wanted


def _receive(name: str, message: dict[str, Any], result: dict[str, Any]) -> None:
    """Takes in a part's message: notes are collected, everything else replaces what was there."""
    if 'note' in message:
        result['notes'].append(message['note'])
    elif 'progress' not in message:
        result.update(message)
        return
    print(f'{name}: {message.get("note") or message["progress"]}', file=sys.stderr)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 1 <= minutes <= 1000:
        raise UserError(f'--minutes={text}: a number from 1 to 1000 is needed.')
    return minutes


if __name__ == '__main__':
    command.run(main)
