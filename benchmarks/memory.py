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
from typing import Any

from benchmarks.contest import ROOT
from benchmarks.tables import Table, Work
from distributed import devices
from errors import UserError

STEPS = 6
CASES = (
    'configs/digits_lenet.py',
    'configs/mnist_lenet.py',
    'configs/mnist_deep_cnn.py',
    'configs/mnist_resnet18.py',
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
    return Peak(output, devices.peak_resident_bytes(usage))


def estimate(given: list[str], folder: Path) -> dict[str, Any]:
    """Returns what preflight says of a configuration, as JSON has it.

    Args:
      given: '--config=FILE' and what it is to differ in.
      folder: for its output.
    """
    command = [sys.executable, '-m', 'tools.preflight', *given, '--json']
    return json.loads(peak_of(command, folder / 'preflight.log').output)


def taken(given: list[str], folder: Path, name: str) -> int:
    """Returns the bytes that a run takes at most; its workdir is the folder's `name`.

    What it compiles is left in the folder for a second run.
    """
    places = [f'--config.compilation_cache={folder / "cache"}', f'--workdir={folder / name}']
    command = [sys.executable, 'train.py', *given, *places]
    return peak_of(command, folder / f'{name}.log').bytes


def short(config: str, *overrides: str) -> list[str]:
    """Returns the arguments for a run of a few steps with two saves."""
    texts = (f'steps={STEPS}', 'schedule.warmup=0', f'checkpoint.every_steps={STEPS // 2}')
    return [f'--config={config}', *(f'--config.{text}' for text in (*texts, *overrides))]


def run(work: Work) -> Table:
    """Runs preflight and two short runs of each config."""
    rows, figures = [], {}
    for number, config in enumerate(CASES[:1] if work.quick else CASES):
        folder = work.scratch / str(number)
        folder.mkdir()
        given = short(config, f'data.dir={work.data_dir}')
        found = {
            'estimated': estimate(given, folder)['host_peak'],
            'first_run': taken(given, folder, 'first'),
            'later_run': taken(given, folder, 'later'),
        }
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
