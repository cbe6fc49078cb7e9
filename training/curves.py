"""curves.png: the metrics of metrics.jsonl as a picture."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import files
from tasks.answer import Metric
from training.records import read_metrics

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes

CURVES_FILE = 'curves.png'
# Above this percentage an axis shows how much is missing to 100 %.
_ALMOST_ALL = 90
_PERCENTAGES = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 100)
_SMALLEST_ERROR = 0.1  # in percent; smaller ones are drawn close to 100 %


def plot_curves(
    workdir: str | os.PathLike,
    metrics: Sequence[Metric],
    steps_per_epoch: float | None = None,
    title: str = '',
) -> Path | None:
    """Draws the metrics against the step into curves.png and returns its path.

    Each point of the training split stands for equally many steps: records of a few steps, which
    stand before a validation or a checkpoint, are drawn together with their neighbors.

    Args:
      workdir: the run's folder. Its metrics.jsonl is drawn, and the first metric of the test if
        there is a result.json.
      metrics: the task's metrics; the loss is drawn first.
      steps_per_epoch: adds the epochs as an upper axis.
      title: one line above the picture, such as the model, the data set and the run.

    Returns:
      The path of the picture, or None if there are no records to draw.
    """
    records = read_metrics(workdir)
    if not records:
        return None
    panels = sorted(metrics, key=lambda metric: metric.name != 'loss')
    picture = _drawn(workdir, records, panels, metrics[0], steps_per_epoch, title)
    path = Path(workdir) / CURVES_FILE
    files.write(path, picture)
    return path


def pictures(
    workdir: str | os.PathLike, metrics: Sequence[Metric], steps_per_epoch: float | None = None
) -> list[bytes]:
    """Returns the panels of curves.png as pictures of their own, PNG, one for each metric.

    Without records the list is empty. The arguments are those of `plot_curves`.

    Raises:
      UserError: a record is damaged.
    """
    records = read_metrics(workdir)
    return [
        _drawn(workdir, records, [metric], metrics[0], steps_per_epoch, '')
        for metric in metrics
        if records
    ]


def _drawn(
    workdir: str | os.PathLike,
    records: Sequence[Mapping[str, Any]],
    panels: Sequence[Metric],
    tested: Metric,
    steps_per_epoch: float | None,
    title: str,
) -> bytes:
    """Returns panels side by side, PNG; the result of the test is added to the `tested` metric."""
    # The object interface, because pyplot keeps global state and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 4.2), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, parse_math=False)  # a folder may be called $1
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    last_step = max(1, *(record['step'] for record in records))
    for axes, metric in zip(all_axes, panels, strict=True):
        _plot_panel(axes, records, metric)
        test = _test_result(Path(workdir) / 'result.json', metric)
        if test is not None and metric == tested:
            step, value = test
            last_step = max(last_step, step)
            axes.plot(
                step, scale(metric) * value, color='#1d3557', marker='*', markersize=12,
                linestyle='none', clip_on=False, zorder=5, label=f'test ({metric.shown(value)})',
            )  # fmt: skip
    for axes, metric in zip(all_axes, panels, strict=True):
        axes.set_xlim(0, 1.03 * last_step)
        _finish_panel(axes, steps_per_epoch)
        scale_axis(axes, metric)
    picture = io.BytesIO()
    figure.savefig(picture, format='png')
    return picture.getvalue()


def scale(metric: Metric) -> float:
    """Returns the factor by which a value is multiplied to be drawn."""
    return 100.0 if metric.percent else 1.0


def axis_label(metric: Metric, scale: str = '') -> str:
    """Returns the label of a metric's axis: its name, its unit and a word about the scale."""
    words = [word for word in ('%' if metric.percent else metric.unit, scale) if word]
    return f'{metric.name} ({", ".join(words)})' if words else metric.name


def _plot_panel(axes: 'Axes', records: Sequence[Mapping[str, Any]], metric: Metric) -> None:
    """Draws a metric's curves of the training and the validation split."""
    for split, color, width in (('train', '#8da0b8', 1.2), ('validation', '#d1495b', 1.8)):
        name = f'{split}/{metric.name}'
        points = sorted((r['step'], r[name]) for r in records if name in r)
        if not points:
            continue
        steps, values = zip(*(_equal_windows(points) if split == 'train' else points), strict=True)
        last, values = metric.shown(values[-1]), [scale(metric) * value for value in values]
        marker = 'o' if len(points) <= 50 else None
        axes.plot(
            steps, values, color=color, linewidth=width, marker=marker, markersize=3.5,
            label=f'{split} (last: {last})',
        )  # fmt: skip
    axes.set_ylabel(axis_label(metric))
    axes.set_title(metric.name[:1].upper() + metric.name[1:], loc='left', fontweight='bold')


def _test_result(path: Path, metric: Metric) -> tuple[int, float] | None:
    """Returns the step and the metric of the test at the end of the run; None before."""
    name = f'test_{metric.name}'
    result = files.usable_json(path, {'steps': int, name: float})
    # None: the run is not finished.
    return (result['steps'], result[name]) if result else None


def _finish_panel(axes: 'Axes', steps_per_epoch: float | None) -> None:
    """Adds what all panels share: grid, legend, step and epoch axes."""
    axes.set_xlabel('step (optimizer updates)')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.spines['right'].set_visible(False)
    if steps_per_epoch:
        epochs = axes.secondary_xaxis(
            'top', functions=(lambda s: s / steps_per_epoch, lambda e: e * steps_per_epoch)
        )
        epochs.set_xlabel('epoch')
    else:
        axes.spines['top'].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, 'nothing recorded', transform=axes.transAxes, ha='center')


def _equal_windows(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Returns the points, short ones joined until each stands for as many steps as the longest.

    A point (step, mean) stands for the steps since the point before it. What is left at the end is
    drawn as it is, if it is at least half as long as the others.
    """
    counts = np.diff([step for step, _ in points], prepend=0)
    width = max(counts)
    windows, steps, total = [], 0, 0.0
    for count, (step, mean) in zip(counts, points, strict=True):
        steps, total = steps + count, total + count * mean
        if steps >= width:
            windows.append((step, total / steps))
            steps, total = 0, 0.0
    if steps > width / 2:
        windows.append((points[-1][0], total / steps))
    return windows


def scale_axis(axes: 'Axes', metric: Metric) -> None:
    """Spreads the axis where differences would not be seen: small values, or almost 100 %."""
    values = [y for line in axes.lines for y in line.get_ydata() if math.isfinite(y)]
    if not values:
        return
    if metric.percent and metric.higher_is_better:
        if max(values) > _ALMOST_ALL:
            _scale_by_errors(axes, metric, min(values))
    elif min(values) > 0 and max(values) / min(values) > 30:
        axes.set_yscale('log')
        axes.set_ylabel(axis_label(metric, 'logarithmic'))


def _scale_by_errors(axes: 'Axes', metric: Metric, lowest: float) -> None:
    """Makes the axis logarithmic in what is missing to 100 %, so that 98 and 99.4 % differ.

    On a linear axis the first steps would take all the height. The smallest error is added, so that
    100 % has a place.
    """
    axes.set_yscale(
        'function',
        functions=(
            lambda y: -np.log10(np.maximum(100 - y, 0) + _SMALLEST_ERROR),
            lambda x: 100 + _SMALLEST_ERROR - 10.0 ** -np.asarray(x),
        ),
    )
    ticks = [tick for tick in _PERCENTAGES if tick >= lowest - 10]
    axes.set_ylim(max(0, min(lowest - 3, ticks[0])), 100.03)
    axes.set_yticks(ticks, [f'{tick:g}' for tick in ticks])
    axes.set_ylabel(axis_label(metric, 'logarithmic in the error'))
