"""Section `trials`: what drawing, reporting and ending a trial costs, without any training."""

import statistics
import time

from benchmarks.tables import Table, Work
from configs import reading, search
from sweeps import study

CONFIG, SPACE = 'configs/digits_lenet.py', 'configs/sweeps/lenet.py'
EVALUATIONS = 12  # that each trial reports, as that configuration's do
SAMPLERS = ('tpe', 'random', 'grid', 'cmaes')


def run(work: Work) -> Table:
    """Runs trials that train nothing through a study in a journal, for each sampler."""
    count = 8 if work.quick else 64
    found = {}
    for sampler in SAMPLERS:
        found[sampler] = _milliseconds(work, sampler, count)
        work.say(f'{sampler}: {statistics.median(found[sampler]):.1f} ms a trial')
    rows = [
        [sampler, *(f'{value:.1f}' for value in (statistics.median(each), max(each)))]
        for sampler, each in found.items()
    ]
    caption = (
        f'Bookkeeping of a trial by Optuna in milliseconds: {count} trials of {SPACE} drawn, each '
        f'reported {EVALUATIONS} times unless ASHA stops it, and ended; in a journal on the disk.'
    )
    return Table(caption, ('sampler', 'median', 'worst'), rows, found)


def _milliseconds(work: Work, sampler: str, count: int) -> list[float]:
    """Of each trial."""
    config = reading.from_arguments(CONFIG, [])
    sweep = search.load(SPACE).resolved(config)
    folder = work.scratch / sampler
    folder.mkdir()
    about = study.describe(sweep, config, sampler, None)
    storage = study.storage_of(folder, None)
    trials = study.Study(sweep, folder, count, sampler, 'asha', storage, about)
    found = []
    begin = time.perf_counter()
    while (trial := trials.ask()) is not None:
        hopeless = False
        for number in range(1, EVALUATIONS + 1):
            # Any course will do, as long as some trials are better than others.
            hopeless = trial.report(trial.number % 7 + number / EVALUATIONS, number)
            if hopeless:
                break
        if hopeless:
            trial.prune()
        else:
            trial.complete()
        now = time.perf_counter()
        found.append(1e3 * (now - begin))
        begin = now
    trials.close()
    return found
