"""The pictures of a sweep: its history, a slice by each field, the trials' curves, importances."""

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

import files
from configs.search import Categorical, Objective
from sweeps.engine import Work
from tasks import registry
from tasks.answer import Metric
from training import curves

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPLETED, STOPPED, FAILED, BEST = '#33658a', '#8d99a6', '#e08e45', '#d1495b'
COLUMNS = 4  # panels beside each other
LONGEST = 40  # characters of a name in a title
LONGEST_TITLE = 28  # characters above a panel in one line
LONGEST_TICK = 14  # characters of a choice below its column
MANY_CHOICES = 4  # above which their names stand upright
WIDE = 6  # times that one error is as large as another, above which their axis is logarithmic
FEWEST, FEWEST_PER_FIELD = 20, 5  # completed trials below which importances would be chance


class Drawer:
    """Draws the pictures of one sweep.

    Args:
      work: the sweep, of which at least one trial is completed.
    """

    def __init__(self, work: Work):
        self._work, self._space = work, work.sweep.space
        self._objective: Objective = work.sweep.objective
        name = self._objective.metric
        self._metric: Metric = registry.metric_of(work.config, name, 'objective.metric')
        trials = work.study.optuna.get_trials(deepcopy=False)
        self._trials = [trial for trial in trials if trial.state != TrialState.WAITING]
        self._completed = self._of(TrialState.COMPLETE)
        self._best = work.study.best()

    def draw(self, folder: Path) -> None:
        """Writes the pictures into a folder.

        Raises:
          UserError: a file cannot be written.
        """
        figures = {
            'history': self._history(),
            'slices': self._slices(),
            'learning_curves': self._curves(),
            'importances': self._importances(),
        }
        for name, figure in figures.items():
            path = folder / f'{name}.png'
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            picture = io.BytesIO()
            figure.savefig(picture, format='png')
            with files.explaining_errors(path):
                folder.mkdir(exist_ok=True)
                files.replace(path, picture.getvalue())

    def _of(self, state: TrialState) -> list[FrozenTrial]:
        return [trial for trial in self._trials if trial.state == state]

    def _figure(self, what: str, width: float, height: float) -> 'Figure':
        """Returns an empty figure below a title: what it shows, and of which sweep."""
        # The object interface, because pyplot keeps global state and may need a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), dpi=110, layout='constrained')
        FigureCanvasAgg(figure)
        about = [
            '/'.join(map(str, self._space[name].choices))
            if isinstance(self._space.get(name), Categorical)
            else str(value)
            for name, value in (
                ('model.name', self._work.config.model.name),
                ('data.name', self._work.config.data.name),
            )
        ]
        model, data = (shortened(text, LONGEST) for text in about)
        name = shortened(self._work.folder.name, LONGEST)
        text = f'{what}\nsweep {name}: {self._objective.metric} of {model} on {data}'
        figure.suptitle(text, fontsize=11, parse_math=False)
        return figure

    def _value(self, trial: FrozenTrial) -> float | None:
        """Returns a trial's value as it is drawn: of a stopped one, what it had reached."""
        value = trial.value
        if trial.state == TrialState.PRUNED and trial.intermediate_values:
            steps = sorted(trial.intermediate_values)
            value = self._objective.value([trial.intermediate_values[step] for step in steps])
        if value is None or not math.isfinite(value):
            return None
        return curves.scale(self._metric) * value

    def _points(self) -> list[tuple[str, str, dict[str, Any], list[FrozenTrial]]]:
        """Returns (label, color, style, trials) of each sort of trial that has a value."""
        stopped = [t for t in self._of(TrialState.PRUNED) if self._value(t) is not None]
        done = [t for t in self._completed if self._value(t) is not None]
        hollow = {'markerfacecolor': 'white', 'markersize': 5}
        sorts = (
            (f'stopped early ({len(stopped)})', STOPPED, hollow, stopped),
            (f'completed ({len(done)})', COMPLETED, {'markersize': 6}, done),
        )
        return [sort for sort in sorts if sort[-1]]

    def _finish(self, axes: 'Axes') -> None:
        """Adds what all panels share, and spreads an axis that has to show 50 and 99 %."""
        axes.set_ylabel(curves.axis_label(self._metric))
        values = [y for line in axes.lines for y in line.get_ydata()]
        errors = [100.0 - value for value in values]
        if not self._metric.percent or max(errors) > WIDE * max(min(errors), 0.1):
            curves.scale_axis(axes, self._metric)
        if axes.get_yscale() == 'function':  # up to 100 %; the part that nothing reaches is cut
            above = [tick for tick in axes.get_yticks()[:-1] if tick >= max(values)]
            axes.set_ylim(top=min(above, default=100.03))
        axes.tick_params(labelsize=9)
        axes.grid(alpha=0.25)
        axes.spines[['top', 'right']].set_visible(False)

    def _history(self) -> 'Figure':
        """The value of every trial, by its number, and the best one so far."""
        figure = self._figure('Every trial, and the best so far', 9, 5)
        axes = figure.subplots()
        for label, color, style, trials in self._points():
            numbers = [trial.number for trial in trials]
            values = list(map(self._value, trials))
            axes.plot(numbers, values, 'o', color=color, label=label, alpha=0.85, **style)
        last = max(trial.number for trial in self._trials)
        best, steps = None, []
        for trial in self._completed:
            value = self._value(trial)
            if best is None or self._objective.better(value, best):
                best = value
                steps.append((trial.number, best))
        numbers, values = zip(*steps, (max(last, 1), best), strict=True)
        shown = self._metric.shown(self._best.value)
        label = f'best so far: in the end {shown}, trial {self._best.number}'
        axes.step(numbers, values, where='post', color=BEST, linewidth=1.8, label=label, zorder=1)
        axes.plot(
            self._best.number, self._value(self._best), '*', color=BEST, markersize=14, zorder=4
        )
        failed = self._of(TrialState.FAIL)
        if failed:  # without a value: at the lower edge
            axes.scatter(
                [trial.number for trial in failed], [0.02] * len(failed), marker='x', color=FAILED,
                transform=axes.get_xaxis_transform(), label=f'failed ({len(failed)})',
            )  # fmt: skip
        axes.set_xlabel('trial')
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_xlim(-0.5 - 0.02 * last, last + 0.5 + 0.02 * last)
        self._finish(axes)
        _legend(figure, axes)
        return figure

    def _slices(self) -> 'Figure':
        """A panel for each field: the values of the trials by theirs of the field."""
        count = len(self._space)
        columns = min(count, COLUMNS)
        rows = -(-count // columns)
        title = "Each field alone: the trials' results by its value"
        figure = self._figure(title, max(3.1 * columns, 7), 2.9 * rows + 1.1)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for panel, (name, values) in enumerate(self._space.items()):
            self._slice(panels[panel], name, values)
            if panel % columns:
                panels[panel].set_ylabel('')
        for unused in panels[count:]:
            unused.remove()
        _legend(figure, panels[0])
        return figure

    def _slice(self, axes: 'Axes', name: str, values: Any) -> None:
        # Nowhere, so that all panels have one scale, although some trials leave out the field.
        everywhere = [self._value(trial) for *_, trials in self._points() for trial in trials]
        axes.plot([math.nan] * len(everywhere), everywhere)
        categorical = isinstance(values, Categorical)
        place = _columns(values.choices) if categorical else lambda trial, value: value
        for label, color, style, trials in self._points():
            having = [trial for trial in trials if name in trial.params]
            places = [place(trial, trial.params[name]) for trial in having]
            axes.plot(
                places, list(map(self._value, having)), 'o', color=color, label=label, alpha=0.8,
                **style,
            )  # fmt: skip
        if name in self._best.params:
            axes.plot(
                place(self._best, self._best.params[name]), self._value(self._best), '*',
                color=BEST, markersize=13, label=f'the best, trial {self._best.number}', zorder=4,
            )  # fmt: skip
        if categorical:
            ticks = [shortened(_plain(choice), LONGEST_TICK) for choice in values.choices]
            upright = len(ticks) > MANY_CHOICES or max(map(len, ticks)) * len(ticks) > 28
            axes.set_xticks(range(len(ticks)), ticks, rotation=90 if upright else 0)
            axes.set_xlim(-0.6, len(ticks) - 0.4)
        else:
            _number_axis(axes, values)
        title = name if len(name) <= LONGEST_TITLE else name.replace('.', '.\n')
        axes.set_title(title, fontsize=10, parse_math=False)
        self._finish(axes)

    def _curves(self) -> 'Figure':
        """The metric of every trial, evaluation by evaluation."""
        figure = self._figure('Learning curves of the trials', 9, 5)
        axes = figure.subplots()
        sorts = (
            ('stopped early', TrialState.PRUNED, STOPPED, 'x'),
            ('failed', TrialState.FAIL, FAILED, 'x'),
            ('running', TrialState.RUNNING, '#6a994e', None),
            ('completed', TrialState.COMPLETE, COMPLETED, None),
        )
        thin = 0.35 if len(self._trials) > 20 else 0.6
        for label, state, color, end in sorts:
            shown = [trial for trial in self._of(state) if trial.intermediate_values]
            for trial in shown:
                self._curve(axes, trial, color=color, linewidth=1, alpha=thin)
                if end:
                    step = max(trial.intermediate_values)
                    value = curves.scale(self._metric) * trial.intermediate_values[step]
                    axes.plot(step, value, end, color=color, markersize=5)
            if shown:
                axes.plot([], [], color=color, marker=end, label=f'{label} ({len(shown)})')
        text = f'the best, trial {self._best.number}: {self._metric.shown(self._best.value)}'
        self._curve(axes, self._best, color=BEST, linewidth=2.2, label=text, zorder=4)
        axes.set_xlabel('evaluation on the validation split')
        last = max(max(trial.intermediate_values, default=1) for trial in self._trials)
        axes.set_xlim(0.5, last + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.xaxis.get_major_locator().set_params(integer=True)
        self._finish(axes)
        _legend(figure, axes)
        return figure

    def _curve(self, axes: 'Axes', trial: FrozenTrial, **style: Any) -> None:
        points = sorted(trial.intermediate_values.items())
        points = [(step, value) for step, value in points if math.isfinite(value)]
        if points:
            steps, values = zip(*points, strict=True)
            scaled = curves.scale(self._metric) * np.array(values)
            marker = 'o' if len(points) == 1 else None
            axes.plot(steps, scaled, marker=marker, markersize=4, **style)

    def _importances(self) -> 'Figure | None':
        """How much of the differences between trials each field explains; None with few trials."""
        fields = [name for name in self._space if all(name in t.params for t in self._completed)]
        needed = max(FEWEST, FEWEST_PER_FIELD * len(fields))
        if len(fields) < 2:
            return None  # there is nothing to compare
        if len(self._completed) < needed:
            self._work.say(
                f'importances.png is not drawn: with {len(fields)} fields it needs {needed} '
                f'completed trials, and there are {len(self._completed)}'
            )
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                found = optuna.importance.get_param_importances(
                    self._work.study.optuna, params=fields
                )
        except (ValueError, RuntimeError) as error:  # such as trials that are all equally good
            self._work.say(f'importances.png is not drawn: {error}')
            return None
        names = list(reversed(found))
        figure = self._figure(
            f'How much of the differences each field explains, by {len(self._completed)} '
            'completed trials', 9, 1.6 + 0.42 * len(names),
        )  # fmt: skip
        axes = figure.subplots()
        bars = axes.barh([*map(_escaped, names)], [100 * found[name] for name in names],
                         color=COMPLETED, height=0.6)  # fmt: skip
        axes.bar_label(bars, fmt='%.0f %%', padding=4)
        axes.set_xlabel('importance (% of the variance, by Optuna)')
        axes.set_xlim(0, 110)
        axes.set_xticks(range(0, 101, 20))
        axes.spines[['top', 'right']].set_visible(False)
        return figure


def _columns(choices: Sequence[Any]) -> Any:
    """Returns where a trial's point stands in the column of its choice, beside others of it."""

    def place(trial: FrozenTrial, value: Any) -> float:
        spread = (trial.number * 0.618034) % 1 - 0.5
        return list(choices).index(value) + 0.5 * spread

    return place


def _number_axis(axes: 'Axes', values: Any) -> None:
    """Gives an axis the range of a field, and few numbers on it."""
    from matplotlib import ticker

    low, high = values.low, values.high
    if values.log:
        axes.set_xscale('log')
        ticks = _log_ticks(low, high)
        axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        margin = (high / low) ** 0.05
        axes.set_xlim(low / margin, high * margin)
        return
    whole = isinstance(low, int) and isinstance(high, int)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=whole))
    margin = 0.05 * (high - low)
    axes.set_xlim(low - margin, high + margin)


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns up to six round numbers in a range, or its ends where there are not two."""
    decades = math.log10(high / low)
    leading = (1, 2, 5) if decades < 1.3 else (1, 3) if decades < 2.6 else (1,)
    step = max(1, math.ceil(decades / 5))
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    exponents = [exponent for exponent in exponents if exponent % step == 0]
    ticks = [float(f'{digit}e{exponent}') for exponent in exponents for digit in leading]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return ticks if len(ticks) > 1 else [low, high]


def _legend(figure: 'Figure', axes: 'Axes') -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)


def _plain(choice: Any) -> str:
    return 'not set' if choice is None else str(choice)


def _escaped(text: str) -> str:
    return text.replace('$', r'\$')


def shortened(text: str, width: int) -> str:
    """Returns a text of at most so many characters, without its middle if it is longer."""
    if len(text) > width:
        half = (width - 1) // 2
        text = f'{text[: width - 1 - half]}…{text[len(text) - half :]}'
    return text
