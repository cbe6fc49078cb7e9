"""Section `trials`: what drawing, reporting and ending a trial costs, without any training."""

import statistics
import time

from benchmarks.tables import BenchmarkContext, BenchmarkTable
from configs import reading, search
from sweeps import study

CONFIG, SPACE = 'configs/digits_lenet.py', 'configs/sweeps/lenet.py'
EVALUATIONS = 12  # of each trial, as many as that configuration has
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
    sweep, config = search.load(SPACE), reading.from_arguments(CONFIG, [])
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
