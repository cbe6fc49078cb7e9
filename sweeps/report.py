"""Writes the results of a sweep: trials.csv, best_config.json, pictures, TensorBoard, a table."""

import csv
import io
import math
import os
import shutil

from optuna.trial import FrozenTrial, TrialState
from rich import console as rich_console

import files
from configs import base
from sweeps import pictures, room, table
from sweeps.engine import Work, configuration
from tasks import registry

TRIALS, BEST, PICTURES, TENSORBOARD = 'trials.csv', 'best_config.json', 'pictures', 'tensorboard'
STATES = {
    TrialState.COMPLETE: 'complete',
    TrialState.PRUNED: 'pruned',
    TrialState.FAIL: 'failed',
    TrialState.RUNNING: 'running',
    TrialState.WAITING: 'waiting',
}
EVENTS = 8192  # bytes, at most, of a file for TensorBoard
ROWS = 10  # trials in the printed table
FILE_WIDTH = 100  # characters in a line of the table where it is not printed on a terminal


def write(work: Work) -> None:
    """Writes all files from the study and prints the best trials.

    Raises:
      UserError: a file cannot be written.
    """
    trials = work.study.optuna.get_trials(deepcopy=False)
    _write_csv(work, trials)
    best = work.study.best()
    if best is None:
        return
    config = configuration(work.config, best.params)
    files.write_json(work.folder / BEST, base.stored(config))
    _print_table(work)
    pictures.Drawer(work).draw(work.folder / PICTURES)
    _write_tensorboard(work, trials)
    counts = [sum(t.state == state for t in trials) for state in STATES]
    states = ', '.join(f'{n} {name}' for n, name in zip(counts, STATES.values(), strict=True) if n)
    work.say(f'{len(trials)} trials: {states}')
    work.say(
        f'\nWritten to {work.folder}: {TRIALS}, {BEST}, {PICTURES}/*.png, {TENSORBOARD}/\n'
        f'Next:\n  python train.py --config={work.folder / BEST} --workdir={work.folder / "best"}'
    )


def _write_csv(work: Work, trials: list[FrozenTrial]) -> None:
    names = list(work.sweep.space)
    text = io.StringIO()
    out = csv.writer(text, lineterminator='\n')
    out.writerow(['trial', 'state', work.sweep.objective.metric, 'steps', 'seconds', *names, 'why'])
    for trial in trials:
        about = trial.user_attrs
        out.writerow(
            [
                trial.number,
                STATES[trial.state],
                '' if trial.value is None else repr(trial.value),
                about.get('steps', 0),
                about.get('seconds', ''),
                *(trial.params.get(name, '') for name in names),
                about.get('reason', ''),
            ]
        )
    with files.explaining_errors(work.folder / TRIALS):
        files.replace(work.folder / TRIALS, text.getvalue().encode())


def _write_tensorboard(work: Work, trials: list[FrozenTrial]) -> None:
    from tensorboardX import SummaryWriter

    # Its library leaves a thread and tracebacks behind where it cannot write.
    room.check(work.folder, least=EVENTS * (len(trials) + 1))
    folder = work.folder / TENSORBOARD
    shutil.rmtree(folder, ignore_errors=True)  # it has this sweep only, and is rewritten as a whole
    metric = work.sweep.objective.metric
    with SummaryWriter(str(folder)) as writer:
        for trial in trials:
            if trial.value is None or not math.isfinite(trial.value):
                continue
            values = {k: v if isinstance(v, bool | int | float) else str(v)
                      for k, v in trial.params.items()}  # fmt: skip
            step = trial.user_attrs.get('steps', 0)
            name = f'trial{trial.number:04d}'
            writer.add_hparams(values, {metric: trial.value}, name=name, global_step=step)


def _print_table(work: Work) -> None:
    done, space = work.study.ranked(), work.sweep.space
    metric = registry.metric_of(work.config, work.sweep.objective.metric, 'objective.metric')
    rows = [
        [str(trial.number), metric.shown(trial.value), *(_shown(trial, name) for name in space)]
        for trial in done[:ROWS]
    ]
    # A file has no width of its own; rich takes the terminal's, or COLUMNS.
    console = rich_console.Console()
    width = console.width if console.is_terminal or 'COLUMNS' in os.environ else FILE_WIDTH
    heading = (
        f'The best of {len(done)} completed trials' if len(done) > 1 else 'The completed trial'
    )
    work.say(f'\n{heading}:\n')
    work.say(table.layout(['trial', work.sweep.objective.metric, *space], rows, width) + '\n')


def _shown(trial: FrozenTrial, name: str) -> str:
    """Returns a trial's value of a field as text; '-' where the trial has none."""
    value = trial.params.get(name, '-')
    if value is None:
        return 'not set'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
