"""curves.png: what metrics.jsonl says, as a picture."""

import io
import json
import math
import os
from pathlib import Path

import files
from training.records import read_metrics

CURVES_FILE = 'curves.png'


def plot_curves(workdir: str | os.PathLike, steps_per_epoch: float | None = None) -> Path | None:
    """Draws loss and accuracy against the step into curves.png and returns its path.

    Args:
      workdir: the run's folder; its metrics.jsonl is drawn, and the test accuracy of its
        result.json if there is one.
      steps_per_epoch: adds the epochs as an upper axis.

    Returns:
      The path of the picture, or None where there are no records to draw.
    """
    # The object interface: pyplot would keep global state and could ask for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(workdir)
    if not records:
        return None
    figure = Figure(figsize=(10, 4.2), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _plot_panel(loss_axes, records, 'loss', 'loss (nats per example)', 1.0)
    _plot_panel(accuracy_axes, records, 'accuracy', 'accuracy (%)', 100.0)
    last_step = max(1, *(record['step'] for record in records))
    test = _test_result(Path(workdir) / 'result.json')
    if test is not None:
        last_step = max(last_step, test[0])
        accuracy_axes.plot(
            *test, color='#1d3557', marker='*', markersize=12, linestyle='none',
            clip_on=False, zorder=5, label=f'test ({test[1]:.2f} %)',
        )  # fmt: skip
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlim(0, 1.03 * last_step)
        _finish_panel(axes, steps_per_epoch)
    _scale_loss(loss_axes)
    picture = io.BytesIO()
    figure.savefig(picture, format='png')
    path = Path(workdir) / CURVES_FILE
    with files.explaining_errors(path):
        files.replace(path, picture.getvalue())
    return path


def _plot_panel(axes, records, metric: str, label: str, factor: float) -> None:
    """Draws a metric's train and validation curves."""
    for split, colour, width in (('train', '#8da0b8', 1.2), ('validation', '#d1495b', 1.8)):
        name = f'{split}/{metric}'
        points = sorted((r['step'], r[name] * factor) for r in records if name in r)
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        last = f'{values[-1]:.2f} %' if factor == 100 else f'{values[-1]:.4f}'
        marker = 'o' if len(points) <= 50 else None
        axes.plot(
            steps, values, color=colour, linewidth=width, marker=marker, markersize=3.5,
            label=f'{split} (last: {last})',
        )  # fmt: skip
    axes.set_ylabel(label)
    axes.set_title(metric.capitalize(), loc='left', fontweight='bold')


def _test_result(path: Path) -> tuple[int, float] | None:
    """Returns the step and the accuracy (%) of the test, which is done once, at the end."""
    try:
        result = json.loads(path.read_text())
        return int(result['steps']), 100 * float(result['test_accuracy'])
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not finished yet: the curves are worth drawing all the same


def _finish_panel(axes, steps_per_epoch: float | None) -> None:
    """Adds what both panels share: grid, legend, step and epoch axes."""
    axes.set_xlabel('step (optimiser updates)')
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


def _scale_loss(axes) -> None:
    """Draws a loss that falls by orders of magnitude on a logarithmic axis."""
    values = [y for line in axes.lines for y in line.get_ydata() if math.isfinite(y)]
    if values and min(values) > 0 and max(values) / min(values) > 30:
        axes.set_yscale('log')
        axes.set_ylabel('loss (nats per example, logarithmic)')
