"""The report of a classifier: its metrics for each class and its errors, by a confusion matrix."""

import dataclasses
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import files
import fonts
from files import columns
from tasks.calibration import Calibration
from tasks.numbers import percent, plain
from tasks.section import Picture, Section, Table

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A matrix of more classes is too wide to read; the most frequent confusions are listed instead.
MOST_CLASSES_IN_MATRIX = 30
CONFUSIONS_LISTED = 20
LONGEST_NAME = 24  # in a picture, in characters
# In percent of a class. One error of a few dozen examples must not look like a failure.
LEAST_DARKEST = 20.0


@dataclasses.dataclass(frozen=True)
class ConfusionReport:
    """The results of one evaluation.

    Attributes:
      confusion: int [classes, classes]; row = true class, column = predicted class.
      class_names: one name per class.
      loss: mean loss per example, or None if it was not measured.
      calibration: whether it is right as often as it is sure, or None if that was not measured.

    Precision, recall and F1 are float [classes]. They are NaN for a class that makes them 0/0: the
    precision of a class that was never predicted, the recall of a class without examples.
    """

    confusion: np.ndarray
    class_names: Sequence[str]
    loss: float | None = None
    calibration: Calibration | None = None

    def __post_init__(self):
        confusion = np.asarray(self.confusion)
        names = tuple(str(name) for name in self.class_names)
        if confusion.shape != (len(names), len(names)):
            raise ValueError(f'{len(names)} classes, but a matrix of shape {confusion.shape}')
        if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
            raise ValueError('a confusion matrix holds counts: integers, none below zero')
        object.__setattr__(self, 'confusion', confusion.astype(np.int64))
        object.__setattr__(self, 'class_names', names)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """Number of examples that were predicted correctly."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """Fraction of examples predicted correctly, in [0, 1]; NaN without examples."""
        return self.correct / self.examples if self.examples else math.nan

    @property
    def readable(self) -> bool:
        """Whether there are few enough classes for a matrix that can be read."""
        return len(self.class_names) <= MOST_CLASSES_IN_MATRIX

    @property
    def support(self) -> np.ndarray:
        """Number of examples of each true class."""
        return self.confusion.sum(axis=1)

    @property
    def recall(self) -> np.ndarray:
        """Fraction of each class's examples that were predicted as that class."""
        return _ratio(np.diag(self.confusion), self.support)

    @property
    def precision(self) -> np.ndarray:
        """Fraction of each class's predictions that were correct."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * np.diag(self.confusion), self.support + self.confusion.sum(axis=0))

    def percentages(self) -> np.ndarray:
        """Returns the matrix in percent of each true class; NaN for a class without examples."""
        support = np.broadcast_to(self.support[:, None], self.confusion.shape)
        return 100 * _ratio(self.confusion, support)

    def confusions(self, at_most: int = CONFUSIONS_LISTED) -> list[tuple[int, int, int]]:
        """Returns (count, true class, predicted class) of the errors, most frequent first."""
        errors = self.confusion - np.diag(np.diag(self.confusion))
        rows, columns = np.nonzero(errors)
        order = np.argsort(-errors[rows, columns], kind='stable')[:at_most]
        return [
            (int(errors[r, c]), int(r), int(c))
            for r, c in zip(rows[order], columns[order], strict=True)
        ]

    def text(self) -> str:
        """Returns the whole report as plain text."""
        head = [('accuracy', f'{percent(self.accuracy)} ({self.correct:,} of {self.examples:,})')]
        if self.loss is not None:
            head.append(('loss', f'{self.loss:.4f}'))
        if self.calibration is not None:
            head.append(('calibration error', self.calibration.text()))
        errors = self.confusion_table() if self.readable else self.confusions_table()
        return '\n\n'.join([columns(head, left_columns=2), self.class_table(), errors])

    def class_table(self) -> str:
        """Returns precision, recall, F1 and support of each class as aligned columns."""
        return columns(self._class_rows())

    def _class_rows(self) -> list[tuple[str, ...]]:
        measured = zip(
            self.class_names, self.precision, self.recall, self.f1, self.support, strict=True
        )
        rows = [('class', 'precision', 'recall', 'F1', 'support')]
        rows += [
            (name, percent(precision), percent(recall), percent(f1), f'{support:,}')
            for name, precision, recall, f1, support in measured
        ]
        return rows

    def confusion_table(self) -> str:
        """Returns the matrix as aligned columns, with '.' for zero, so that errors stand out."""
        names, heads = self._labels()
        rows = [('true \\ predicted', *heads)]
        for name, counts in zip(names, self.confusion, strict=True):
            rows.append((name, *(str(count) if count else '.' for count in counts)))
        width = max(len(cell) for row in rows for cell in row[1:])
        return columns([(row[0], *(cell.rjust(width) for cell in row[1:])) for row in rows])

    def _labels(self) -> tuple[list[str], list[str]]:
        """Returns the names of the matrix's rows and columns.

        Long column heads would make it too wide, so columns have numbers where a name is long.
        """
        names = list(self.class_names)
        if max(map(len, names)) <= 6:
            return names, names
        return [f'{i} {name}' for i, name in enumerate(names)], [str(i) for i in range(len(names))]

    def confusions_table(self) -> str:
        """Returns the most frequent confusions as aligned columns."""
        rows = self._confusion_rows()
        if len(rows) == 1:
            return 'no errors'
        title = f'the {len(rows) - 1} most frequent confusions:'
        return title + '\n' + columns(rows, left_columns=2)

    def _confusion_rows(self) -> list[tuple[str, ...]]:
        support = self.support
        rows = [('true class', 'predicted as', 'times', 'of')]
        rows += [
            (
                self.class_names[true],
                self.class_names[predicted],
                f'{count:,}',
                f'{support[true]:,}',
            )
            for count, true, predicted in self.confusions()
        ]
        return rows

    def sections(self) -> list[Section]:
        """Returns the results by class, the errors, and the calibration."""
        meaning = (
            'Precision is the fraction of the answers with a class that are right, recall the '
            'fraction of the examples of a class that are found, F1 the harmonic mean of both, '
            'and support the number of examples of a class.'
        )
        title = f'The {len(self.class_names):,} classes'
        by_class = Table(title, self._class_rows(), folded=not self.readable)
        sections = [Section('Results by class', [meaning, by_class]), self._errors_section()]
        return sections + ([self.calibration.section()] if self.calibration else [])

    def _errors_section(self) -> Section:
        parts, rows = [], self._confusion_rows()
        if self.readable:
            parts.append(
                Picture(
                    self._drawn(''),
                    f'Confusion matrix of {len(self.class_names)} classes: a row for each true '
                    'class, a column for each predicted one. The next table has the same counts.',
                    ['Rows are true classes, columns predicted ones. Errors are red.'],
                    plot=True,
                )
            )
            names, heads = self._labels()
            counts = [
                (name, *(str(count) for count in row))
                for name, row in zip(names, self.confusion, strict=True)
            ]
            head = ('true \\ predicted', *heads)
            parts.append(Table('The matrix in numbers', [head, *counts], folded=True))
        if len(rows) > 1:
            title = f'The {len(rows) - 1} most frequent confusions'
            parts.append(Table(title, rows, left_columns=2))
        else:
            parts.append('There are no errors.')
        return Section('Confusions', parts)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as values for JSON: null for 0/0, lists for arrays."""
        columns = {
            'precision': self.precision,
            'recall': self.recall,
            'f1': self.f1,
            'support': self.support,
        }
        classes = [
            {'name': name, **{key: plain(values[i]) for key, values in columns.items()}}
            for i, name in enumerate(self.class_names)
        ]
        return {
            'accuracy': plain(self.accuracy),
            'loss': plain(self.loss),
            'examples': self.examples,
            'correct': self.correct,
            'classes': classes,
            'confusion': self.confusion.tolist(),
            **(self.calibration.to_json() if self.calibration else {}),
        }

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws confusion_SPLIT.png and calibration_SPLIT.png; returns their paths."""
        paths = [self.confusion_png(folder / f'confusion_{split}.png', title)]
        if self.calibration:
            paths.append(self.calibration.png(folder / f'calibration_{split}.png', title))
        return paths

    def confusion_png(self, path: str | os.PathLike, title: str = '') -> Path:
        """Draws the matrix as a heat map and returns its path."""
        path = Path(path)
        files.write(path, self._drawn(title))
        return path

    def _drawn(self, title: str) -> bytes:
        """Returns the heat map as a PNG file."""
        # The object interface, because pyplot keeps global state and may need a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        classes = len(self.class_names)
        side = 2.5 + 0.42 * max(classes, 5) if self.readable else 11
        longest = max((len(_shortened(name)) for name in self.class_names), default=0)
        room = 0.09 * longest if self.readable else 0  # inches for the names, beside and below
        figure = Figure(figsize=(side + 1.2 + room, side + room), dpi=130, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        _draw_matrix(figure, axes, self)
        if self.readable:
            _draw_counts(axes, self)
        heading = f'{title}\n' if title else ''
        axes.set_title(
            f'{heading}accuracy {percent(self.accuracy)} ({self.correct:,} of {self.examples:,})'
        )
        axes.set_xlabel('predicted class')
        axes.set_ylabel('true class')
        picture = io.BytesIO()
        figure.savefig(picture, format='png')
        return picture.getvalue()


def _draw_matrix(figure: 'Figure', axes: 'Axes', report: ConfusionReport) -> None:
    """Draws the correct answers in blue and, on a scale of their own, the errors in red.

    On a common scale the few errors of a good classifier would be invisible beside its diagonal.
    The square root, and a palest red that is not white, make single errors visible.
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    percentages = report.percentages()
    correct = np.eye(len(percentages), dtype=bool)
    axes.imshow(np.where(correct, percentages, np.nan), cmap='Blues', vmin=0, vmax=200)
    errors = np.where(correct | (report.confusion == 0), np.nan, percentages)
    norm = PowerNorm(0.5, vmin=0, vmax=_darkest(report))
    shades = matplotlib.colormaps['Reds'](np.linspace(0.15, 1, 256))
    reds = LinearSegmentedColormap.from_list('errors', shades)
    image = axes.imshow(errors, cmap=reds, norm=norm)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label('errors: percentage of the true class')


def _darkest(report: ConfusionReport) -> float:
    """Returns the percentage that is drawn in the darkest red: the largest error's."""
    percentages = np.nan_to_num(report.percentages())
    return max(LEAST_DARKEST, (percentages - np.diag(np.diag(percentages))).max())


def _draw_counts(axes: 'Axes', report: ConfusionReport) -> None:
    """Writes the class names on the axes and the count into each square that is not zero."""
    names = report.class_names
    name_axes(axes, names)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(which='minor', color='#e4e4e4', linewidth=0.6)
    axes.tick_params(which='minor', length=0)
    percentages, darkest = report.percentages(), _darkest(report)
    for row, column in zip(*np.nonzero(report.confusion), strict=True):
        count = report.confusion[row, column]
        dark = row != column and percentages[row, column] > 0.4 * darkest
        axes.text(
            column, row, f'{count}', ha='center', va='center', fontsize=8,
            color='white' if dark else 'black',
        )  # fmt: skip


def name_axes(axes: 'Axes', names: Sequence[str]) -> None:
    """Writes the names of classes, in any script, at 0, 1, ... of both axes."""
    from matplotlib.font_manager import FontProperties

    drawn = [fonts.for_text(_shortened(name)) for name in names]
    upright = max(len(text) for text, _ in drawn) <= 3
    for axis, angle in ((axes.xaxis, 0 if upright else 90), (axes.yaxis, 0)):
        # A name such as "$5 or $10" is no formula.
        axis.set_ticks(
            range(len(drawn)), [text for text, _ in drawn], rotation=angle, parse_math=False
        )
        for label, (_, font) in zip(axis.get_ticklabels(), drawn, strict=True):
            label.set_fontproperties(FontProperties(fname=font, size=label.get_fontsize()))


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + '...'


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator, NaN for 0/0, without a warning."""
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
