"""The report of a detector: average precision, curves by score, and counts at a threshold."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import files
from tasks.average_precision import Counts, Curve, Curves, Precision, Threshold, at, best_threshold
from tasks.overlays import color_of
from tasks.section import Picture, Section, Table

MOST = 10  # classes with a curve of their own
_CURVES = (
    'Precision against recall at an IoU of 0.5, as the threshold goes down from left to right. '
    'The circle is the threshold at which the results are counted.'
)


@dataclasses.dataclass(frozen=True)
class DetectionReport:
    """The results of a split.

    Attributes:
      metrics: {name: value}.
      precision: COCO's figures.
      curves: precision and recall by score.
      counts: by how much the numbers of objects are wrong, for each class.
      threshold: the score from which an answer counts.
      class_names: of the data set.
      examples: number of pictures.
    """

    metrics: Mapping[str, float]
    precision: Precision
    curves: Curves
    counts: Sequence[Counts]
    threshold: float
    class_names: Sequence[str]
    examples: int

    def text(self) -> str:
        """Returns the metrics, results by size and class, and those at the threshold."""
        best = best_threshold(self.curves)
        chosen = (
            f'Answers count from a score of {self.threshold:.3f}. On this split the best F1, '
            f'{best.f1:.2%}, is at {best.threshold:.3f}.'
        )
        tables = (files.columns(rows, 1) for rows in (self._metric_rows(), self._class_rows()))
        return '\n\n'.join([*tables, chosen])

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics, and the results by size and class."""
        own = dataclasses.asdict(self.precision)
        classes = {}
        for number, name in enumerate(self.class_names):
            ap, ap50 = self.precision.per_class[number]
            curve, counts = self.curves.per_class[number], self.counts[number]
            there = at(curve, self.threshold)
            classes[name] = {
                'objects': curve.objects, 'AP': ap, 'AP50': ap50, 'precision': there.precision,
                'recall': there.recall, 'F1': there.f1, 'count_error': counts.error,
                'mean_count': counts.mean,
            }  # fmt: skip
        together, best = at(self.curves.together, self.threshold), best_threshold(self.curves)
        return files.nan_to_null(
            {
                **self.metrics,
                **{f'AP_{size}': own[size] for size in ('small', 'medium', 'large')},
                'examples': self.examples,
                'threshold': self.threshold,
                'precision': together.precision,
                'recall': together.recall,
                'F1': together.f1,
                'best_threshold_here': best.threshold,
                'best_F1_here': best.f1,
                'classes': classes,
            }
        )

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws precision_recall_SPLIT.png; returns its path."""
        path = folder / f'precision_recall_{split}.png'
        files.write(path, self._curves(title))
        return [path]

    def sections(self) -> list[Section]:
        """Returns the tables and the curves."""
        tables = [
            Table('Average precision', self._metric_rows()),
            Table(f'By class, at a score of {self.threshold:.3f}', self._class_rows()),
        ]
        return [Section('Results', [*tables, Picture(self._curves(''), _CURVES, plot=True)])]

    def _metric_rows(self) -> list[tuple[str, ...]]:
        found = self.precision
        return [
            ('metric', 'value'),
            ('AP (IoU 0.50 to 0.95)', _percent(found.ap)),
            ('AP50', _percent(found.ap50)),
            ('AP75', _percent(found.ap75)),
            ('AP, below 32x32 pixels', _percent(found.small)),
            ('AP, to 96x96 pixels', _percent(found.medium)),
            ('AP, above', _percent(found.large)),
            ('loss', f'{self.metrics["loss"]:.4f}'),
        ]

    def _class_rows(self) -> list[tuple[str, ...]]:
        rows = [('class', 'objects', 'AP', 'AP50', 'precision', 'recall', 'F1', 'mean count',
                 'count error')]  # fmt: skip
        for number, name in enumerate(self.class_names):
            curve, counts = self.curves.per_class[number], self.counts[number]
            values = [*self.precision.per_class[number], *_rates(at(curve, self.threshold), curve)]
            numbers = (f'{counts.mean:.2f}', f'{counts.error:.2f}')
            rows.append((name, f'{curve.objects:,}', *map(_percent, values), *numbers))
        together = self.curves.together
        values = (self.precision.ap, self.precision.ap50)
        values += _rates(at(together, self.threshold), together)
        rows.append(('all', f'{together.objects:,}', *map(_percent, values), '', ''))
        return rows

    def _curves(self, title: str) -> bytes:
        """Returns the curves as a PNG file."""
        # The object interface, because pyplot keeps global state and may need a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.6, 4.2), dpi=130, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, name in enumerate(self.class_names[:MOST]):
            curve = self.curves.per_class[number]
            if curve.objects:
                color = tuple(level / 255 for level in color_of(number + 1))
                axes.plot(curve.recall, curve.precision, color=color, label=name)
                self._mark(axes, curve, color)
        together = self.curves.together
        axes.plot(together.recall, together.precision, 'k--', label='all classes')
        self._mark(axes, together, 'black')
        axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1.02), ylim=(0, 1.02), title=title)
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, title=f'circle: score {self.threshold:.2f}', title_fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format='png', metadata={'Software': None})
        return file.getvalue()

    def _mark(self, axes: Any, curve: Curve, color: Any) -> None:
        there = at(curve, self.threshold)
        axes.plot([there.recall], [there.precision], 'o', color=color, fillstyle='none')


def _rates(there: Threshold, curve: Curve) -> tuple[float | None, float | None, float | None]:
    """Returns precision, recall and F1, or None where there is no object."""
    return (there.precision, there.recall, there.f1) if curve.objects else (None,) * 3


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.2f} %'
