"""Section `memory`: the peak memory of short runs beside what preflight estimates for them.

A run trains for a few steps, evaluates, saves, tests and draws its curves, with nothing compiled
before, as preflight assumes. Its peak is what the operating system reports of the process.
"""

import json
import sys
from pathlib import Path
from typing import Any

import processes
from benchmarks.tables import BenchmarkContext, BenchmarkTable

STEPS = 6
NAMES = ('digits_lenet', 'mnist_lenet', 'mnist_deep_cnn', 'mnist_resnet18')


def estimate(arguments: list[str]) -> dict[str, Any]:
    """Returns preflight's report of a configuration: '--config=FILE' and its overrides."""
    command = [sys.executable, '-m', 'tools.preflight', *arguments, '--json']
    return json.loads('\n'.join(line for _, line in processes.watch(command).lines))


def peak(arguments: list[str], folder: Path, name: str) -> int:
    """Returns the bytes that a run takes at most; its workdir is the folder's `name`.

    What it compiles stays in the folder for a second run.
    """
    more = [f'--config.compilation_cache={folder / "cache"}', f'--workdir={folder / name}']
    return processes.watch([sys.executable, 'train.py', *arguments, *more]).peak_memory


def short(config: str, *overrides: str) -> list[str]:
    """Returns the arguments for a run of a few steps with two saves."""
    texts = (f'steps={STEPS}', 'schedule.warmup=0', f'checkpoint.every_steps={STEPS // 2}')
    return [f'--config={config}', *(f'--config.{text}' for text in (*texts, *overrides))]


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Runs preflight and two short runs of each configuration."""
    rows, figures = [], {}
    for name in NAMES[: 1 if context.quick else None]:
        config, folder = f'configs/{name}.py', context.scratch / name
        folder.mkdir()
        arguments = short(config, f'data.dir={context.data_dir}')
        figures[config] = peaks = {
            'estimated': estimate(arguments)['host_peak'],
            'first_run': peak(arguments, folder, 'first'),
            'later_run': peak(arguments, folder, 'later'),
        }
        context.say(f'{config}: {peaks}')
        megabytes = [f'{value / 1e6:,.0f}' for value in peaks.values()]
        rows.append([config, *megabytes, f'{peaks["estimated"] / peaks["first_run"]:.2f}'])
    caption = (
        'Peak memory of a run on the CPU in MB: what `python -m tools.preflight` estimates, what a '
        'first run takes, which compiles, and a later one, which does not.'
    )
    head = ('config', 'estimated', 'first run', 'later run', 'estimated / first')
    return BenchmarkTable(caption, head, rows, figures)
