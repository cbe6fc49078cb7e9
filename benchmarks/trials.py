"""Sections `sweep`, which sweeps by two engines, and `trials`, which times their bookkeeping alone.

`sweep` runs trials side by side in one program against a process for each. A single trial shows
what can be gained at all: start-up and compilation are paid once instead of every time, arithmetic
is not saved.
"""

import statistics
import sys
import time

import files
import processes
from benchmarks import job
from benchmarks.tables import BenchmarkContext, BenchmarkTable, median_and_range
from configs import reading, search
from sweeps import study

CONFIG, SPACE = 'configs/digits_lenet.py', 'configs/sweeps/lenet.py'
EVALUATIONS = 12  # of each trial, as many as that configuration has
TRIALS, JOBS = 64, 2
WARM = 16  # trials of a sweep's first round, which compiles: as many as run side by side at most
ROUNDS = 3  # of sweeps at most, because a round takes minutes
SAMPLERS = ('tpe', 'random', 'grid', 'cmaes')


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Runs trials without training through a study in a journal, for each sampler."""
    count = 8 if context.quick else 64
    times, rows = {}, []
    for sampler in SAMPLERS:
        times[sampler] = _milliseconds(context, sampler, count)
        median, worst = f'{statistics.median(times[sampler]):.1f}', f'{max(times[sampler]):.1f}'
        context.say(f'{sampler}: {median} ms a trial')
        rows.append([sampler, median, worst])
    caption = (
        f'Bookkeeping of a trial by Optuna in milliseconds: {count} trials of {SPACE} drawn, each '
        f'reported {EVALUATIONS} times unless ASHA stops it, and ended; in a journal on the disk.'
    )
    return BenchmarkTable(caption, ('sampler', 'median', 'worst'), rows, times)


def _milliseconds(context: BenchmarkContext, sampler: str, count: int) -> list[float]:
    """Returns the milliseconds of each trial."""
    config = reading.from_arguments(CONFIG, [])
    sweep = search.load(SPACE).resolved(config)
    folder = context.scratch / sampler
    folder.mkdir()
    about = study.describe(sweep, config, sampler, None)
    storage = study.storage_of(folder, None)
    trials = study.Study(sweep, folder, count, sampler, 'asha', storage, about)
    times, begin = [], time.perf_counter()
    while (trial := trials.ask()) is not None:
        # Any curve will do, as long as some trials are better than others.
        values = ((trial.number % 7 + n / EVALUATIONS, n) for n in range(1, EVALUATIONS + 1))
        if any(trial.report(*value) for value in values):
            trial.prune()
        else:
            trial.complete()
        end = time.perf_counter()
        times.append(1e3 * (end - begin))
        begin = end
    trials.close()
    return times


def sweep(context: BenchmarkContext) -> BenchmarkTable:
    """Runs a single trial twice, and then sweeps by either engine in turn, without pruning."""
    trials, shorter = (2, ['epochs=3']) if context.quick else (TRIALS, [])
    overrides = [f'compilation_cache={context.scratch / "cache"}', *shorter]
    for number in range(2):  # the first one compiles
        workdir = context.scratch / f'single{number}'
        output = processes.watch(job.our_command(CONFIG, workdir, *overrides))
    result = files.read_json(workdir / 'result.json')
    arithmetic = result['steps'] * result['config']['batch_size'] / result['examples_per_second']
    single = {'arithmetic': arithmetic, 'rest': output.seconds - arithmetic}
    seconds: dict[str, list[float]] = {'vmap': [], 'local': []}
    for number in range(1 if context.quick else 1 + min(context.rounds, ROUNDS)):
        for engine, own in seconds.items():
            count = trials if number else min(trials, WARM)
            workdir = context.scratch / f'{engine}{number}'
            command = [sys.executable, 'sweep.py', f'--config={CONFIG}', f'--sweep={SPACE}']
            command += [f'--workdir={workdir}', f'--engine={engine}', f'--trials={count}']
            command += ['--sampler=random', '--pruner=none']
            command += [f'--jobs={JOBS}'] if engine == 'local' else []
            command += [f'--config.{text}' for text in overrides]
            elapsed = processes.watch(command).seconds
            context.say(f'{engine}: {count} trials in {elapsed:.1f} s')
            if number or context.quick:
                own.append(elapsed)
    return _sweep_table(seconds, single, trials)


def _sweep_table(seconds: dict[str, list], single: dict[str, float], trials: int) -> BenchmarkTable:
    vmap, local = map(statistics.median, seconds.values())
    allowed = local / (single['rest'] + trials * single['arithmetic'])
    names = ('side by side (vmap)', f'a process each, {JOBS} at a time (local)')
    rows = []
    for name, median, own in zip(names, (vmap, local), seconds.values(), strict=True):
        each = f'{median / trials:.2f}', f'{median / vmap:.2f}'
        rows.append([name, *median_and_range(own), *each])
    caption = (
        f'{trials} trials of {CONFIG} by sweep.py, nothing pruned, programs compiled before. Alone '
        f'a trial takes {single["rest"]:.1f} s of start, evaluation and files and '
        f'{single["arithmetic"]:.1f} s of arithmetic on {JOBS} cores, which allows a ratio of '
        f'{allowed:.2f}; reached: {local / vmap / allowed:.2f} of that.'
    )
    figures = {'seconds': seconds, 'lone': single, 'allowed': allowed, 'ratio': local / vmap}
    head = ('engine', 's', 'range', 's a trial', 'its time / vmap')
    return BenchmarkTable(caption, head, rows, figures)
