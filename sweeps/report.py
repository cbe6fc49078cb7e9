"""Writes the results of a sweep: trials.csv, best_config.json, pictures, TensorBoard, a table."""

import contextlib
import csv
import io
import math
import shutil
import warnings

from optuna.trial import FrozenTrial, TrialState
from rich import console as rich_console
from rich import table as rich_table

import files
from configs import base
from sweeps.engine import Work, configuration

TRIALS, BEST, PICTURES, TENSORBOARD = 'trials.csv', 'best_config.json', 'pictures', 'tensorboard'
STATES = {
    TrialState.COMPLETE: 'complete',
    TrialState.PRUNED: 'pruned',
    TrialState.FAIL: 'failed',
    TrialState.RUNNING: 'running',
    TrialState.WAITING: 'waiting',
}
ROWS = 10  # trials in the printed table
LEGEND = 12  # trials above which a legend would fill the picture


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
    _draw(work)
    _write_tensorboard(work, trials)
    _print_table(work)
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


def _draw(work: Work) -> None:
    """Draws those of Optuna's plots that the trials allow."""
    import matplotlib

    matplotlib.use('Agg')  # otherwise pyplot, which Optuna uses, needs a display
    import matplotlib.pyplot as plt
    import optuna.visualization.matplotlib as plots

    folder = work.folder / PICTURES
    folder.mkdir(exist_ok=True)
    metric = work.sweep.objective.metric
    for name, plot in (
        ('history', plots.plot_optimization_history),
        ('intermediate_values', plots.plot_intermediate_values),
        ('parallel_coordinates', plots.plot_parallel_coordinate),
        ('importances', plots.plot_param_importances),
        ('slices', plots.plot_slice),
    ):
        options = {} if name == 'intermediate_values' else {'target_name': metric}
        if name not in ('history', 'intermediate_values'):
            options['params'] = list(work.sweep.space)
        # Importances need several trials with different values; without them, Optuna raises.
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):
            warnings.simplefilter('ignore')
            axes = plot(work.study.optuna, **options)
            first = axes.flat[0] if hasattr(axes, 'flat') else axes
            figure = first.figure
            if name == 'intermediate_values':
                first.set(title='Evaluations', xlabel='evaluation', ylabel=metric)
                if len(work.study.optuna.get_trials(deepcopy=False)) > LEGEND:
                    first.legend().remove()
            wide = 3.2 * len(work.sweep.space) if name == 'slices' else 10
            figure.set_size_inches(max(wide, 10), 5)
            picture = io.BytesIO()
            figure.savefig(picture, format='png', dpi=110, bbox_inches='tight')
            with files.explaining_errors(folder / f'{name}.png'):
                files.replace(folder / f'{name}.png', picture.getvalue())
        plt.close('all')


def _write_tensorboard(work: Work, trials: list[FrozenTrial]) -> None:
    from tensorboardX import SummaryWriter

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
    done = work.study.ranked()
    table = rich_table.Table(title=f'best of {len(done)} completed trials')
    for name in ('trial', work.sweep.objective.metric, *work.sweep.space):
        table.add_column(name, justify='right', overflow='fold')
    for trial in done[:ROWS]:
        values = [trial.params.get(name, '') for name in work.sweep.space]
        shown = [f'{v:.4g}' if isinstance(v, float) else str(v) for v in values]
        table.add_row(str(trial.number), f'{trial.value:.4f}', *shown)
    rich_console.Console().print(table)
