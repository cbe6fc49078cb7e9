"""Calibration of a classifier: whether it is right as often as it says that it is sure.

Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", section 2. The
confidence of an answer is the probability of its class. Answers are put into bins of equal width by
their confidence, and in each the share of right answers is compared with the mean confidence.
"""

import dataclasses
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import files
from tasks.numbers import percent, plain
from tasks.section import Picture, Section, Table

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.axes import Axes

BINS = 15
_BAR, _PALE, _GAP, _QUIET = '#1f5f8b', '#cfe0ec', '#d1495b', '#55616e'
_Z = 1.96  # of a normal distribution, 95 % lies within as many standard deviations


def sums(confidence: jax.Array, correct: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Returns the sums of each bin over the real examples, which add up; called inside jit.

    Args:
      confidence: float [batch], in [0, 1]; one on the edge of two bins belongs to the lower.
      correct: bool [batch], whether the answer is right.
      mask: float32 [batch], 0 for padding.

    Returns:
      'bin_count' and 'bin_correct', int32 [BINS], and 'bin_confidence', float32 [BINS].
    """
    real = mask > 0
    chosen = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    empty = jnp.zeros(BINS, jnp.int32)
    return {
        'bin_count': empty.at[chosen].add(real.astype(jnp.int32)),
        'bin_correct': empty.at[chosen].add((real & correct).astype(jnp.int32)),
        'bin_confidence': jnp.zeros(BINS, jnp.float32).at[chosen].add(
            jnp.where(real, confidence, 0).astype(jnp.float32)
        ),
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The calibration of a network on a split.

    Attributes:
      count: int [bins], how many answers have a confidence in each bin of equal width.
      correct: int [bins], how many of them are right.
      confidence: float [bins], the sum of their confidences.
    """

    count: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    @classmethod
    def of(cls, total: Mapping[str, np.ndarray]) -> 'Calibration':
        """Returns the calibration of what `sums` gave, added up."""
        return cls(*(np.asarray(total[f'bin_{field.name}']) for field in dataclasses.fields(cls)))

    @property
    def examples(self) -> int:
        """Number of examples."""
        return int(self.count.sum())

    @property
    def accuracies(self) -> np.ndarray:
        """Share of right answers in each bin, float [bins]; NaN for an empty one."""
        return self._mean(self.correct)

    @property
    def confidences(self) -> np.ndarray:
        """Mean confidence in each bin, float [bins]; NaN for an empty one."""
        return self._mean(self.confidence)

    @property
    def error(self) -> float:
        """The expected calibration error, in [0, 1] (the paper's equation 3); NaN without examples.

        It is the mean over the examples of the gap between accuracy and confidence in their bins.
        """
        gaps = np.abs(self.correct - self.confidence).sum()
        return float(gaps / self.examples) if self.examples else math.nan

    def text(self) -> str:
        """Returns the error in percent, and on which side the network errs."""
        if not math.isfinite(self.error):
            return percent(self.error)
        sure = self.confidence.sum() / self.examples
        right = self.correct.sum() / self.examples
        means = f'on average {percent(sure)} sure, {percent(right)} right'
        return f'{percent(self.error)} ({means})'

    def rows(self) -> list[tuple[str, ...]]:
        """Returns a table: column heads, then a row for each bin that has examples."""
        rows = [('confidence', 'examples', 'mean confidence', 'right')]
        for number in np.flatnonzero(self.count):
            low, high = (100 * edge / len(self.count) for edge in (number, number + 1))
            rows.append(
                (
                    f'{low:.1f} to {high:.1f} %',
                    f'{self.count[number]:,}',
                    percent(self.confidences[number]),
                    percent(self.accuracies[number]),
                )
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Returns {'calibration_error', 'calibration_bins'}; null for what is not known."""
        pairs = zip(self.count, self.accuracies, self.confidences, strict=True)
        bins = [
            {'count': int(n), 'accuracy': plain(right), 'confidence': plain(sure)}
            for n, right, sure in pairs
        ]
        return {'calibration_error': plain(self.error), 'calibration_bins': bins}

    def section(self) -> Section:
        """Returns the diagram, what it means and the bins in numbers."""
        meaning = (
            'A network is calibrated if, of the answers of which it is 80 % sure, 80 % are right. '
            'The expected calibration error is the mean difference between both (Guo et al. 2017): '
            f'{self.text()}.'
        )
        picture = Picture(
            self.drawn(),
            'Reliability diagram: the share of right answers against the confidence, in bins. The '
            'table has the same numbers.',
            ['Red shows by how much accuracy and confidence differ.'],
            plot=True,
        )
        table = Table('The bins in numbers', self.rows(), folded=True)
        return Section('Calibration', [meaning, picture, table])

    def png(self, path: Path, title: str) -> Path:
        """Draws the diagram into a file; returns its path.

        Raises:
          UserError: the file cannot be written.
        """
        files.write(path, self.drawn(title))
        return path

    def drawn(self, title: str = '') -> bytes:
        """Returns the reliability diagram, above how many answers each bin has, as a PNG file."""
        # The object interface, because pyplot keeps global state and may need a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.6, 6.4), dpi=130, layout='constrained')
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, height_ratios=(3, 1), sharex=True)
        heading = f'{title}\n' if title else ''
        upper.set_title(f'{heading}calibration error {percent(self.error)}', fontsize=10)
        self._draw_reliability(upper)
        figure.legend(loc='outside lower center', ncols=2, fontsize=8, frameon=False)
        self._draw_counts(lower)
        picture = io.BytesIO()
        figure.savefig(picture, format='png')
        return picture.getvalue()

    def _draw_reliability(self, axes: 'Axes') -> None:
        """Draws the accuracy of each bin, and how far it is from the confidence."""
        filled = np.flatnonzero(self.count)
        width = 100 / len(self.count)
        centers = (filled + 0.5) * width
        right, sure = 100 * self.accuracies[filled], 100 * self.confidences[filled]
        low, high = _interval(self.correct[filled], self.count[filled])
        axes.bar(centers, np.minimum(right, sure), 0.92 * width, color=_PALE)
        axes.bar(
            centers, sure - right, 0.92 * width, bottom=right, color='white', edgecolor=_GAP,
            hatch='////', linewidth=0, label='difference to their mean confidence',
        )  # fmt: skip
        axes.hlines(
            right, centers - 0.46 * width, centers + 0.46 * width, color=_BAR, linewidth=3,
            label='right answers',
        )  # fmt: skip
        axes.vlines(
            centers, 100 * low, 100 * high, color='black', linewidth=1.2,
            label='their 95 % interval (Wilson)',
        )  # fmt: skip
        axes.plot((0, 100), (0, 100), '--', color=_QUIET, linewidth=1, label='calibrated')
        axes.set(xlim=(0, 100), ylim=(-1.5, 101.5), ylabel='right answers (%)')
        axes.grid(axis='y', color='#e4e4e4', linewidth=0.6)
        axes.set_axisbelow(True)

    def _draw_counts(self, axes: 'Axes') -> None:
        """Draws how many answers each bin has."""
        width = 100 / len(self.count)
        centers = (np.arange(len(self.count)) + 0.5) * width
        bars = axes.bar(centers, self.count, 0.92 * width, color=_QUIET)
        texts = [f'{count:,}' if count else '' for count in self.count]
        axes.bar_label(bars, texts, fontsize=6.5, padding=1)
        axes.margins(y=0.18)
        axes.yaxis.set_major_formatter('{x:,.0f}')
        axes.set(xlabel='confidence: probability of the answer (%)', ylabel='answers')

    def _mean(self, values: np.ndarray) -> np.ndarray:
        result = np.full(len(self.count), np.nan)
        return np.divide(values, self.count, out=result, where=self.count > 0)


def _interval(correct: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of Wilson's 95 % interval (1927) of shares; every count is above 0."""
    share, spread = correct / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / 4 / count)
    return middle - half, middle + half
