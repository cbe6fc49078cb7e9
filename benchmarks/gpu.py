"""Speed on an accelerator: one command, below eight minutes, without network and data sets.

    python -m benchmarks.gpu                       all parts, on the first GPU or TPU
    python -m benchmarks.gpu --only=resnet50,lenet some of them
    python -m benchmarks.gpu --markdown            tables as README.md shows them
    python -m benchmarks.gpu --quick               tiny sizes, on a CPU too: shows that it works

    resnet50     training step in bfloat16, 224 pixels, at batch sizes until memory is out
    lenet        whole runs on 60,000 synthetic digits: one update a call, and several
    population   many LeNets trained at once, each with its own seed and learning rate
    vgg16, densenet121   as resnet50

Images are synthetic, uint8, on the device; the step is the one that train.py runs: it gathers the
batch, normalises it, and updates the state in place. Compilation is told apart, and no window has a
transfer between host and device. Rows of a part take turns; figures are medians of their windows.

Beside each figure stands what the device allows at best (benchmarks/roofline.py). XLA_FLAGS and the
like are left as they are set; what counts is printed. What does not fit into the time is left out,
the least important first, and said.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
from benchmarks import accelerator, gpu_tables
from benchmarks.contest import ROOT
from benchmarks.output import reserved
from errors import UserError, did_you_mean

# The parts in their order, and their shares of the time: what one leaves over, the later ones get.
# XLA compiles DenseNet-121 four times as long as ResNet-50.
SHARES = {'resnet50': 36, 'lenet': 10, 'population': 14, 'vgg16': 10, 'densenet121': 30}
ENDING = 10.0  # seconds kept back for starting and ending
ABOUT = ('device', 'platform', 'versions', 'settings')  # what a part says of where it runs
PATIENCE = 1.4  # times its share that a part may take before it is ended, if there is time


def main(argv: list[str]) -> int:
    """Runs the parts that the command line asks for; returns 1 if one of them gave nothing.

    Raises:
      UserError: no accelerator, no such part, or an output file that is there already.
    """
    arguments = _make_parser().parse_args(argv)
    with reserved(arguments.output) as output:
        results = _run_parts(arguments, output)
    empty = [name for name, found in results.items() if not found['rows']]
    if empty:
        _say(f'Nothing was measured for {", ".join(empty)}.')
    return 1 if empty else 0


def _run_parts(arguments: argparse.Namespace, output: Path | None) -> dict[str, Any]:
    """Runs the parts one after the other; returns what each said."""
    budget = accelerator.Budget(60 * arguments.minutes - ENDING)
    names = [name for name in SHARES if name in arguments.only]
    about = {'date': datetime.date.today().isoformat(), 'quick': arguments.quick}
    results: dict[str, Any] = {}
    for number, name in enumerate(names):
        seconds = budget.left * SHARES[name] / sum(SHARES[later] for later in names[number:])
        limit = min(PATIENCE * seconds, budget.left)
        found = _run_part(name, arguments.quick, seconds, limit)
        said = {key: found.pop(key) for key in ABOUT if key in found}
        if said and not results:
            about |= said
            gpu_tables.introduce(about)
        results[name] = found
        gpu_tables.show(gpu_tables.make(name, found, about), arguments.markdown)
        if output:  # after each part, so that what comes later takes nothing away
            output.write_text(json.dumps({**about, 'parts': results}, indent=2) + '\n')
    if output:
        _say(f'Written: {output}')
    return results


def _run_part(name: str, quick: bool, seconds: float, limit: float) -> dict[str, Any]:
    """Runs a part in a process of its own; returns what it said, with 'rows' and 'notes'.

    Args:
      name: of the part.
      quick: see --quick.
      seconds: that it is told to end in.
      limit: seconds after which it is ended.

    Raises:
      UserError: it refuses to run here.
    """
    found: dict[str, Any] = {'rows': [], 'notes': []}
    work = {'name': name, 'quick': quick, 'seconds': seconds, 'started': time.time()}
    command_line = [sys.executable, '-m', 'benchmarks.gpu_parts', json.dumps(work)]
    with tempfile.TemporaryFile('w+', errors='replace') as errors:
        process = subprocess.Popen(
            command_line, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
            env={**os.environ, **accelerator.environment(os.environ, quick)},
        )  # fmt: skip
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), process.kill()))
        timer.start()
        try:
            for line in process.stdout:
                _hear(name, json.loads(line), found, _say)
        finally:
            timer.cancel()
            process.kill()
            code = process.wait()
            process.stdout.close()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ['no message'])[-1]
    if 'refused' in found:
        raise UserError(found['refused'])
    if late.is_set():
        note = f'ended after {limit:.0f} s: its time was up. --only={name} gives it all there is.'
        _hear(name, {'note': note}, found, _say)
    elif not found.get('done'):
        _hear(name, {'note': f'it broke off (code {code}): {last:.300}'}, found, _say)
    return found


def _hear(
    name: str, said: dict[str, Any], found: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Takes in one thing that a part says: its notes add up, and the rest replaces what was."""
    if 'progress' in said:
        say(f'{name}: {said["progress"]}')
    elif 'note' in said:
        found['notes'].append(said['note'])
        say(f'{name}: {said["note"]}')
    else:
        found.update(said)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _parts(text: str) -> list[str]:
    names = text.split(',')
    for name in names:
        if name not in SHARES:
            raise UserError(
                f'--only={name}: there is no such part; there are {", ".join(SHARES)}.'
                + did_you_mean(name, SHARES)
            )
    return names


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 1 <= minutes <= 1000:
        raise UserError(f'--minutes={text}: a number from 1 to 1000 is needed.')
    return minutes


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.gpu',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--only', type=_parts, default=list(SHARES), help='some parts, NAME,NAME,...'
    )
    parser.add_argument('--minutes', type=_minutes, default=8.0, help='for all parts (default 8)')
    parser.add_argument('--markdown', action='store_true', help='print tables as Markdown')
    parser.add_argument('--output', type=Path, help='JSON file for all figures')
    parser.add_argument('--quick', action='store_true', help='tiny sizes; figures say nothing')
    return parser


if __name__ == '__main__':
    command.run(main)
