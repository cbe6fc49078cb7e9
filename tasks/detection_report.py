"""The report of a detector: average precision, curves, and what is right at a threshold."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import files
import fonts
from tasks.average_precision import Counts, Curve, Curves, Precision, best_threshold
from tasks.numbers import percent
from tasks.overlays import color_of
from tasks.section import Picture, Section, Table

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes

MOST = 10  # classes with a curve of their own: there are as many colors
LONGEST_NAME = 24  # in a picture, in characters
# Where a legend covers no curve.
_BELOW = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.14), 'frameon': False}
_SIZES = {
    'small': 'AP of objects below 32 x 32 pixels',
    'medium': 'AP of those to 96 x 96 pixels',
    'large': 'AP of larger ones',
}
_MEANING = (
    'AP is the average precision, the mean over the recalls from 0 to 1, and over the IoU '
    'thresholds from 0.50 to 0.95; AP50 and AP75 are those at one of them. Figures of sizes count '
    'the objects of that size. Everything below is at an IoU of 0.50.'
)
_CURVES = (
    'Left: precision against recall of each class, and of all together. Right: precision, recall '
    'and F1 of all together against the score from which a detection counts. The chosen one is '
    'marked: by circles on the left, by a line on the right.'
)


@dataclasses.dataclass(frozen=True)
class DetectionReport:
    """The results of a split.

    Attributes:
      metrics: {name: value}, with 'loss'.
      precision: COCO's average precision.
      curves: what is right at each threshold.
      counts: how well the objects of a picture are counted at `threshold`.
      threshold: the score from which a detection counts, chosen on the validation split.
      class_names: of the data set.
      examples: how many pictures there are.
    """

    metrics: Mapping[str, float]
    precision: Precision
    curves: Curves
    counts: Counts
    threshold: float
    class_names: Sequence[str]
    examples: int

    def text(self) -> str:
        """Returns the metrics, and tables by class."""
        tables = [
            files.columns(self._metric_rows()),
            f'{self._chosen()}\n{files.columns(self._class_rows())}',
            f'Objects in a picture, means\n{files.columns(self._count_rows())}',
        ]
        return '\n\n'.join(tables)

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics, and the results by size and class; None where there are none."""
        own, together = self.precision, self.curves.together
        best = best_threshold(self.curves)
        values = {
            **self.metrics,
            **{'AP': own.ap, 'AP50': own.ap50, 'AP75': own.ap75},
            **{f'AP_{size}': getattr(own, size) for size in _SIZES},
            'examples': self.examples,
            'objects': together.objects,
            'threshold': self.threshold,
            **self._at_threshold(together),
            'best_here': {'threshold': best.threshold, 'F1': best.f1},
            'classes': {name: self._of_class(i) for i, name in enumerate(self.class_names)},
        }
        return files.nan_to_null(values)

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws precision_recall_SPLIT.png; returns its path."""
        path = folder / f'precision_recall_{split}.png'
        files.write(path, self._drawn(title))
        return [path]

    def sections(self) -> list[Section]:
        """Returns the tables and the curves."""
        folded = len(self.class_names) > 3 * MOST
        return [
            Section(
                'Results',
                [
                    _MEANING,
                    Table('Average precision', self._metric_rows()),
                    Table(self._chosen(), self._class_rows(), folded=folded),
                    Table('Objects in a picture, means', self._count_rows(), folded=folded),
                    Picture(self._drawn(''), _CURVES, [_CURVES], plot=True),
                ],
            )
        ]

    # --- numbers --------------------------------------------------------------------------------

    def _chosen(self) -> str:
        best = best_threshold(self.curves)
        return (
            f'Precision, recall and F1 of detections with a score of {self.threshold:.3f} or more '
            f'(best F1 on this split: {percent(best.f1)} from {best.threshold:.3f})'
        )

    def _at_threshold(self, curve: Curve) -> dict[str, float]:
        return dict(zip(('precision', 'recall', 'F1'), curve.at(self.threshold), strict=True))

    def _of_class(self, number: int) -> dict[str, Any]:
        curve = self.curves.per_class[number]
        return {
            'objects': curve.objects,
            'AP': self.precision.class_ap[number],
            'AP50': self.precision.class_ap50[number],
            **self._at_threshold(curve),
            'mean_count': self.counts.true[number],
            'mean_count_found': self.counts.found[number],
            'count_error': self.counts.error[number],
        }

    def _metric_rows(self) -> list[tuple[str, ...]]:
        own = self.precision
        return [
            ('metric', 'value'),
            ('AP', _shown(own.ap)),
            ('AP50', _shown(own.ap50)),
            ('AP75', _shown(own.ap75)),
            *((text, _shown(getattr(own, size))) for size, text in _SIZES.items()),
            ('loss', f'{self.metrics["loss"]:.4f}'),
        ]

    def _class_rows(self) -> list[tuple[str, ...]]:
        rows = [('class', 'objects', 'AP', 'AP50', 'precision', 'recall', 'F1')]
        for i, name in enumerate(self.class_names):
            curve = self.curves.per_class[i]
            average = (self.precision.class_ap[i], self.precision.class_ap50[i])
            rows.append(_row(name, curve, average, self.threshold))
        average = (self.precision.ap, self.precision.ap50)
        return [*rows, _row('all classes', self.curves.together, average, self.threshold)]

    def _count_rows(self) -> list[tuple[str, ...]]:
        rows = [('class', 'true number', 'found', 'absolute error')]
        for name, *values in zip(self.class_names, *self.counts, strict=True):
            rows.append((name, *('-' if np.isnan(v) else f'{v:.2f}' for v in values)))
        return rows

    # --- pictures -------------------------------------------------------------------------------

    def _drawn(self, title: str) -> bytes:
        """Returns the curves as a PNG file."""
        # The object interface, because pyplot keeps global state and may need a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 5.2), dpi=130, layout='constrained')
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, fontsize=10, parse_math=False)
        left, right = figure.subplots(1, 2)
        self._draw_classes(left)
        self._draw_scores(right)
        for axes in (left, right):
            axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
            axes.grid(alpha=0.3)
        file = io.BytesIO()
        figure.savefig(file, format='png', metadata={'Software': None})
        return file.getvalue()

    def _draw_classes(self, axes: 'Axes') -> None:
        objects = np.array([curve.objects for curve in self.curves.per_class])
        there = np.argsort(-objects, kind='stable')[: np.count_nonzero(objects)]
        names, lines = [], []
        for i in sorted(there[:MOST]):
            color = tuple(level / 255 for level in color_of(i + 1))
            lines.append(self._draw_curve(axes, self.curves.per_class[i], color))
            name = self.class_names[i]
            name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + '...'
            names.append(f'{name}: AP50 {percent(self.precision.class_ap50[i])}')
        lines.append(self._draw_curve(axes, self.curves.together, 'black', linestyle='--'))
        names.append('all together')
        lines += axes.plot([], [], 'o', color='white', markeredgecolor='black')
        names.append(f'at a score of {self.threshold:.3f}')
        heading = f'the {MOST} most frequent classes' if len(there) > MOST else ''
        axes.set(xlabel='recall', ylabel='precision', title=heading)
        axes.title.set_fontsize(9)
        _name(axes, lines, names)

    def _draw_curve(self, axes: 'Axes', curve: Curve, color: Any, **style: Any) -> Any:
        # A curve begins at its first detection; the line from recall 0 shows where.
        precision = np.concatenate([curve.precision[:1], curve.precision])
        recall = np.concatenate([np.zeros(len(curve.recall[:1])), curve.recall])
        [line] = axes.plot(recall, precision, color=color, **style)
        there = curve.at(self.threshold)
        axes.plot(
            [there.recall], [there.precision], 'o', color=color, markeredgecolor='black', zorder=3
        )
        return line

    def _draw_scores(self, axes: 'Axes') -> None:
        curve = self.curves.together
        for name, color in (('precision', '#0072b2'), ('recall', '#d55e00'), ('f1', '#009e73')):
            label = 'F1' if name == 'f1' else name
            axes.plot(curve.scores, getattr(curve, name), color=color, label=label)
        axes.axvline(
            self.threshold, color='black', linestyle=':', label=f'chosen: {self.threshold:.3f}'
        )
        axes.set(xlabel='score from which a detection counts', title='all classes together')
        axes.title.set_fontsize(9)
        axes.legend(fontsize=8, ncols=4, **_BELOW)


def _row(
    name: str, curve: Curve, average: tuple[float | None, float | None], threshold: float
) -> tuple[str, ...]:
    values = (*average, *curve.at(threshold))
    return (name, f'{curve.objects:,}', *map(_shown, values))


def _shown(value: float | None) -> str:
    return '-' if value is None else percent(value)


def _name(axes: 'Axes', lines: Sequence[Any], names: Sequence[str]) -> None:
    """Adds a legend with names in any script."""
    from matplotlib.font_manager import FontProperties

    drawn = [fonts.for_text(name) for name in names]
    legend = axes.legend(lines, [text for text, _ in drawn], ncols=2, **_BELOW)
    for label, (_, font) in zip(legend.get_texts(), drawn, strict=True):
        label.set_fontproperties(FontProperties(fname=font, size=8))
        label.set_parse_math(False)  # a name such as "$5 or $10" is no formula
