"""Reports of segmentation: tables by class and by picture, and pictures of them."""

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import files
from tasks import objects, overlap
from tasks.confusion import name_axes
from tasks.section import Picture, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 20  # classes whose confusions are written as numbers
_MATRIX = 'Confusion matrix of pixels: the share of the pixels of each true class, in percent.'


@dataclasses.dataclass(frozen=True)
class SegmentationReport:
    """The results of a split.

    Attributes:
      metrics: {name: value}.
      sums: of the split; 'confusion' int64 [classes, classes], rows true and columns predicted.
      rows: of its pictures, [n, ...].
      class_names: of the pixels.
      quality: of each picture, float64 [n].
    """

    metrics: Mapping[str, float]
    sums: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]
    class_names: Sequence[str]
    quality: np.ndarray

    def text(self) -> str:
        """Returns the metrics, and a table by class."""
        named = [(name.replace('_', ' '), _shown(name, v)) for name, v in self.metrics.items()]
        parts = [[('metric', 'value'), *named], self._class_rows(), *self._more().values()]
        return '\n\n'.join(files.columns(rows, 1) for rows in parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics, and the results of each class and picture."""
        matrix = self.sums['confusion']
        values = zip(self.class_names, overlap.iou(matrix), overlap.class_dice(matrix), strict=True)
        classes = {name: {'iou': _number(i), 'dice': _number(d)} for name, i, d in values}
        return {
            **self.metrics,
            'examples': int(self.sums['count']),
            'classes': classes,
            'confusion': matrix.tolist(),
            'pictures': [
                {'example': int(example), 'quality': float(value)}
                for example, value in zip(self.rows['example'], self.quality, strict=True)
            ],
        }

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws confusion_SPLIT.png; returns its path."""
        path = folder / f'confusion_{split}.png'
        files.write(path, self._confusion(title))
        return [path]

    def sections(self) -> list[Section]:
        """Returns the tables, and the confusion matrix."""
        tables = [Table('Results by class', self._class_rows())]
        tables += [Table(title, rows) for title, rows in self._more().items()]
        return [Section('Results', [*tables, Picture(self._confusion(''), _MATRIX, plot=True)])]

    def _class_rows(self) -> list[tuple[str, ...]]:
        matrix = self.sums['confusion']
        both, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        columns = (overlap.iou(matrix), overlap.class_dice(matrix),
                   _ratio(both, predicted), _ratio(both, true))  # fmt: skip
        rows = [('class', 'pixels', 'IoU', 'Dice', 'precision', 'recall')]
        for i, name in enumerate(self.class_names):
            shown = ('-' if math.isnan(c[i]) else f'{100 * c[i]:.2f} %' for c in columns)
            rows.append((name, f'{int(true[i]):,}', *shown))
        return rows

    def _more(self) -> dict[str, list[tuple[str, ...]]]:
        """Returns {title: rows} of further tables."""
        return {}

    def _confusion(self, title: str) -> bytes:
        """Returns the confusion matrix as a PNG file."""
        matrix, names = self.sums['confusion'], self.class_names
        shares = np.nan_to_num(_ratio(matrix, matrix.sum(1, keepdims=True))) * 100
        side = 2.5 + 0.45 * min(max(len(names), 4), 40)
        figure = _figure(side + 1.2, side)
        axes = figure.subplots()
        shown = axes.imshow(shares, cmap='Blues', vmin=0, vmax=100)
        figure.colorbar(shown, ax=axes, label='% of the pixels of the true class', shrink=0.8)
        axes.set(xlabel='predicted', ylabel='true', title=title)
        axes.title.set_fontsize(9)
        if len(names) <= MOST:
            name_axes(axes, names)
            for (row, column), share in np.ndenumerate(shares):
                color = 'white' if share > 60 else 'black'
                text = f'{share:.1f}' if share >= 0.05 else ''
                axes.text(column, row, text, ha='center', va='center', color=color, fontsize=7)
        return _png(figure)


class InstancesReport(SegmentationReport):
    """The results of a split with objects."""

    def to_json(self) -> dict[str, Any]:
        """Returns those of SegmentationReport, and of the objects."""
        found = super().to_json()
        true, answered = self._counts()
        for picture, *counts in zip(found['pictures'], true, answered, strict=True):
            picture['objects'], picture['found'] = map(int, counts)
        return {
            **found,
            'precision': {f'{t:.2f}': p for t, p in self._precision()},
            'count_error': float(np.abs(true - answered).mean()),
        }

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws confusion_SPLIT.png and precision_SPLIT.png; returns their paths."""
        path = folder / f'precision_{split}.png'
        files.write(path, self._precisions(title))
        return [*super().pictures(folder, split, title), path]

    def sections(self) -> list[Section]:
        """Returns those of SegmentationReport, with the precision at each threshold."""
        [section] = super().sections()
        picture = Picture(self._precisions(''), 'Precision against the IoU threshold.', plot=True)
        return [dataclasses.replace(section, parts=[*section.parts, picture])]

    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns how many objects each picture has, and how many were found, int64 [n] each."""
        right, wrong, missed = np.moveaxis(self.rows['matched'][:, 0], -1, 0)
        return right + missed, right + wrong

    def _precision(self) -> list[tuple[float, float]]:
        means = objects.precision(self.rows['matched']).mean(axis=0)
        return [(float(t), float(p)) for t, p in zip(objects.THRESHOLDS, means, strict=True)]

    def _more(self) -> dict[str, list[tuple[str, ...]]]:
        true, answered = self._counts()
        rows = [('IoU above', 'TP / (TP + FP + FN)')]
        rows += [(f'{t:.2f}', f'{100 * p:.2f} %') for t, p in self._precision()]
        error = np.abs(true - answered).mean()
        counts = [
            ('objects', 'number'),
            ('in the masks', f'{true.sum():,}'),
            ('found', f'{answered.sum():,}'),
            ('mean error of the count of a picture', f'{error:.2f}'),
        ]
        return {'Objects found, mean over pictures': rows, 'Number of objects': counts}

    def _precisions(self, title: str) -> bytes:
        figure = _figure(5, 3.6)
        axes = figure.subplots()
        axes.plot(*zip(*self._precision(), strict=True), marker='o')
        axes.set(xlabel='IoU above', ylabel='TP / (TP + FP + FN)', ylim=(0, 1), title=title)
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
        return _png(figure)


def _figure(width: float, height: float) -> 'Figure':
    # The object interface, because pyplot keeps global state and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _png(figure: 'Figure') -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format='png', metadata={'Software': None})
    return file.getvalue()


def _shown(name: str, value: float) -> str:
    return f'{value:.4f}' if name == 'loss' else f'{100 * value:.2f} %'


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, float64; NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(part.astype(np.float64), whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
