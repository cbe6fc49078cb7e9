"""Section `sweep`: trials side by side in one program against a process for each.

What can be gained at all follows from a lone trial: start-up and compilation are paid once instead
of every time, arithmetic is not saved. The section measures that split, too.
"""

import json
import statistics
import sys

from benchmarks import commands, job
from benchmarks.tables import Table, Work

CONFIG, SPACE = 'configs/digits_lenet.py', 'configs/sweeps/lenet.py'
TRIALS, JOBS = 64, 2
WARM = 16  # trials of the first round, which compiles: as many as run side by side at most
ROUNDS = 3  # at most: a round takes minutes


def run(work: Work) -> Table:
    """Sweeps in turn by either engine, without pruning; before them a lone trial, twice."""
    trials, shorter = (2, ['epochs=3']) if work.quick else (TRIALS, [])
    settings = [f'compilation_cache={work.scratch / "cache"}', *shorter]
    lone = [_lone(work, number, settings) for number in range(2)][1]
    seconds: dict[str, list[float]] = {'vmap': [], 'local': []}
    for number in range(1 if work.quick else 1 + min(work.rounds, ROUNDS)):
        for engine, found in seconds.items():
            count = trials if number else min(trials, WARM)
            took = _sweep(work, engine, number, count, settings)
            work.say(f'{engine}: {count} trials in {took:.1f} s')
            if number or work.quick:
                found.append(took)
    return _table(seconds, lone, trials)


def _lone(work: Work, number: int, settings: list[str]) -> dict[str, float]:
    """Seconds of one train.py on all cores: 'arithmetic' of its steps, and the 'rest'."""
    workdir = work.scratch / f'lone{number}'
    output = commands.watch(job.our_command(CONFIG, workdir, *settings))
    result = json.loads((workdir / 'result.json').read_text())
    images = result['steps'] * result['config']['batch_size']
    arithmetic = images / result['examples_per_second']
    return {'arithmetic': arithmetic, 'rest': output.seconds - arithmetic}


def _sweep(work: Work, engine: str, number: int, trials: int, settings: list[str]) -> float:
    command = [sys.executable, 'sweep.py', f'--config={CONFIG}', f'--sweep={SPACE}']
    command += [f'--workdir={work.scratch / f"{engine}{number}"}', f'--engine={engine}']
    command += [f'--trials={trials}', f'--jobs={JOBS}', '--sampler=random', '--pruner=none']
    return commands.watch([*command, *(f'--config.{text}' for text in settings)]).seconds


def _table(seconds: dict[str, list[float]], lone: dict[str, float], trials: int) -> Table:
    vmap, local = (statistics.median(seconds[name]) for name in ('vmap', 'local'))
    allowed = local / (lone['rest'] + trials * lone['arithmetic'])
    rows = [
        [
            who,
            f'{statistics.median(found):.1f}',
            f'{min(found):.1f} to {max(found):.1f}',
            f'{statistics.median(found) / trials:.2f}',
            f'{statistics.median(found) / vmap:.2f}',
        ]
        for who, found in (
            ('side by side (vmap)', seconds['vmap']),
            (f'a process each, {JOBS} at a time (local)', seconds['local']),
        )
    ]
    caption = (
        f'{trials} trials of {CONFIG} by sweep.py, nothing pruned, programs compiled before. Alone '
        f'a trial takes {lone["rest"]:.1f} s of start, evaluation and files and '
        f'{lone["arithmetic"]:.1f} s of arithmetic on {JOBS} cores, which allows a ratio of '
        f'{allowed:.2f}; reached: {local / vmap / allowed:.2f} of that.'
    )
    figures = {'seconds': seconds, 'lone': lone, 'allowed': allowed, 'ratio': local / vmap}
    head = ('engine', 's', 'range', 's a trial', 'its time / vmap')
    return Table(caption, head, rows, figures)
