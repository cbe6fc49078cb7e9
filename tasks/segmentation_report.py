"""Reports of segmentation: tables by class and by picture."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import files
from tasks import objects, overlap
from tasks.section import Section, Table


@dataclasses.dataclass(frozen=True)
class SegmentationReport:
    """The results of a split.

    Attributes:
      metrics: {name: value}.
      sums: of the split; 'confusion' int64 [classes, classes].
      rows: of its pictures.
      class_names: of the pixels.
    """

    metrics: Mapping[str, float]
    sums: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]
    class_names: Sequence[str]

    def text(self) -> str:
        """Returns the metrics, and a table by class."""
        lines = [f'{name:15} {value:.4f}' for name, value in self.metrics.items()]
        return '\n'.join([*lines, '', files.columns(self._table(), 1)])

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics, and the results of each class."""
        matrix = self.sums['confusion']
        values = zip(self.class_names, overlap.iou(matrix), overlap.class_dice(matrix), strict=True)
        classes = {name: {'iou': _number(i), 'dice': _number(d)} for name, i, d in values}
        return {
            **self.metrics,
            'examples': int(self.sums['count']),
            'classes': classes,
            'confusion': matrix.tolist(),
        }

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Returns no pictures yet."""
        del folder, split, title
        return []

    def sections(self) -> list[Section]:
        """Returns the table by class."""
        return [Section('Classes', [Table('Results by class', self._table())])]

    def _table(self) -> list[tuple[str, ...]]:
        matrix = self.sums['confusion']
        rows = [('class', 'pixels', 'IoU', 'Dice')]
        for i, name in enumerate(self.class_names):
            values = overlap.iou(matrix)[i], overlap.class_dice(matrix)[i]
            shown = ('-' if math.isnan(v) else f'{100 * v:.2f} %' for v in values)
            rows.append((name, f'{int(matrix[i].sum()):,}', *shown))
        return rows


class InstancesReport(SegmentationReport):
    """The results of a split with objects."""

    def to_json(self) -> dict[str, Any]:
        """Returns those of SegmentationReport, and the precision at each threshold."""
        precision = objects.precision(self.rows['matched']).mean(axis=0)
        return {**super().to_json(), 'precision': precision.tolist()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
