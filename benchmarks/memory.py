"""Section `memory`: the peak memory of short runs beside what preflight estimates for them.

A run trains for a few steps, evaluates, saves, tests and draws its curves, with nothing compiled
before, as preflight assumes. Its peak is what the operating system says of the process.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.contest import ROOT
from benchmarks.tables import Table, Work
from errors import UserError

STEPS = 6
DIGITS = ('configs/digits_lenet.py', [])
CASES = (
    DIGITS,
    ('configs/mnist_lenet.py', []),
    ('configs/mnist_deep_cnn.py', []),
    ('configs/mnist_resnet18.py', []),
)


@dataclasses.dataclass(frozen=True)
class Peak:
    """A finished child.

    Attributes:
      output: its standard output.
      bytes: of memory at most, without processes that it started.
    """

    output: str
    bytes: int


def peak_of(command: list[str], log: Path) -> Peak:
    """Runs a command at the project's root to its end.

    Args:
      command: program and arguments.
      log: file for its output.

    Raises:
      UserError: it failed.
    """
    with log.open('wb') as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(errors='replace')
    if child.returncode:
        raise UserError(f'{" ".join(command[:4])} ... failed: {output[-300:]}')
    return Peak(output, usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024))


def compare(config: str, overrides: list[str], folder: Path) -> dict[str, int]:
    """Returns the bytes that preflight estimates for a short run of a config, and those it took."""
    short = [f'steps={STEPS}', 'schedule.warmup=0', 'checkpoint.every_steps=3', *overrides]
    given = [f'--config={config}', *(f'--config.{text}' for text in short)]
    estimated = peak_of(
        [sys.executable, '-m', 'tools.preflight', *given, '--json'], folder / 'preflight.log'
    )
    cache = f'--config.compilation_cache={folder / "cache"}'
    train = [sys.executable, 'train.py', *given, cache]
    cold = peak_of([*train, f'--workdir={folder / "cold"}'], folder / 'cold.log')
    warm = peak_of([*train, f'--workdir={folder / "warm"}'], folder / 'warm.log')
    report = json.loads(estimated.output)
    return {'estimated': report['host_peak'], 'first_run': cold.bytes, 'later_run': warm.bytes}


def run(work: Work) -> Table:
    """Runs preflight and two short runs of each config."""
    rows, figures = [], {}
    for number, (config, overrides) in enumerate([DIGITS] if work.quick else CASES):
        folder = work.scratch / str(number)
        folder.mkdir()
        found = compare(config, [f'data.dir={work.data_dir}', *overrides], folder)
        figures[config] = found
        work.say(f'{config}: {found}')
        megabytes = [f'{found[name] / 1e6:,.0f}' for name in found]
        rows.append([config, *megabytes, f'{found["estimated"] / found["first_run"]:.2f}'])
    caption = (
        'Peak memory of a run on the CPU in MB: what `python -m tools.preflight` estimates, what a '
        'first run takes, which compiles, and a later one, which does not.'
    )
    head = ('config', 'estimated', 'first run', 'later run', 'estimated / first')
    return Table(caption, head, rows, figures)
