"""An embedding of a split: its examples as points, near each other where the features are alike.

The features of an example are the means of a stage's channels over its places; of the last stage
that is what most networks read their answer from. A principal component analysis (Pearson 1901)
takes the two directions in which they vary most.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

import fonts
from errors import UserError, shortened
from inspection import drawing
from inspection.drawing import Drawn
from inspection.examples import Chunk, Examples
from inspection.sheet import shown_size
from inspection.survey import Glance
from tasks.task import Task

OTHERS, OTHERS_COLOR = 'others', '#b8c0c8'
MOST_COLORS = 10  # classes; of more, the most frequent ones have a color
LARGE = 10**9  # operations, from which on a whole decomposition takes longer than a second
THUMBNAIL, FEW = (36, 60), 60  # pixels of the longer side in the picture; of so many examples
SIDE = 7.5  # inches of a picture


@dataclasses.dataclass(frozen=True)
class Embedding:
    """The examples of a split as points.

    Attributes:
      points: float64 [n, 2], the coordinates along both components, with mean 0.
      explained: float64 [2], the fraction of the features' variance along each.
      components: float64 [2, features], the directions, of length 1. The sign of each is such that
        its entry of largest size is above 0.
    """

    points: np.ndarray
    explained: np.ndarray
    components: np.ndarray


def embed(features: np.ndarray) -> Embedding:
    """Returns the embedding of features, float [n, features].

    Raises:
      UserError: there are fewer than three examples or two features, a feature is no finite number,
        or all examples have the same features.
    """
    from sklearn.decomposition import PCA  # takes a second to import

    count, width = features.shape
    if count < 3 or width < 2:
        raise UserError(
            f'An embedding needs three examples and two features at least; here are {count} '
            f'examples and {width} features.'
        )
    features = features.astype(np.float64)
    if not np.isfinite(features).all():
        raise UserError('Some features are no finite numbers: the network may have diverged.')
    if not np.ptp(features, axis=0).any():
        raise UserError('All examples have the same features: there is nothing to embed.')
    # ARPACK finds the two directions alone, where all of them would take long.
    large = count * width * min(count, width) > LARGE
    solver = 'arpack' if large else 'full'
    analysis = PCA(2, svd_solver=solver, random_state=0).fit(features)
    components = analysis.components_
    largest = np.abs(components).argmax(1)[:, None]
    components = components * np.sign(np.take_along_axis(components, largest, 1))
    points = (features - analysis.mean_) @ components.T
    return Embedding(points, analysis.explained_variance_ratio_, components)


class Features:
    """A collector of a pass (survey.py) that keeps the features of all examples at one stage.

    Args:
      task: of the network, which says what is true of an example.
      class_names: of the data set.
      stage: its name; None for the last one.
    """

    def __init__(self, task: Task, class_names: Sequence[str], stage: str | None = None):
        self._task, self._class_names, self._stage = task, class_names, stage
        self._features: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._labels: list[str] = []

    def add(self, chunk: Chunk, glance: Glance) -> None:
        """Takes the features of some examples."""
        self._stage = self._stage or next(reversed(glance.means))
        self._features.append(glance.means[self._stage])
        self._positions.append(chunk.positions)
        for row in range(len(chunk)):
            first, *_ = self._task.caption(chunk.target(row), self._class_names)
            self._labels.append(first)

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self._stage

    @property
    def features(self) -> np.ndarray:
        """The features, float32 [n, features], in the order of the data set."""
        return np.concatenate(self._features)

    @property
    def positions(self) -> np.ndarray:
        """Each example's number in its split, int32 [n]."""
        return np.concatenate(self._positions)

    def classes(self) -> list[str]:
        """Returns the class of each example, of which the rare ones are OTHERS.

        [] where the task's targets are no classes of the data set.
        """
        if not set(self._labels) <= set(self._class_names):
            return []
        order = Counter(self._labels).most_common(MOST_COLORS)
        common = {name for name, _ in order}
        return [name if name in common else OTHERS for name in self._labels]

    def points(self, embedding: Embedding, title: str) -> Drawn:
        """Returns the examples as dots, in the color of their class if they have one.

        Args:
          embedding: of the features.
          title: the first line.
        """
        classes = self.classes()
        note = f'Each dot is an example; those with similar features at {self.stage} are close.'
        figure = drawing.figure(SIDE, 0.8 * SIDE, title, note)
        axes = figure.subplots()
        colors = self._colors(classes)
        _dots(axes, embedding, [colors[name] for name in classes])
        _label_axes(axes, embedding)
        if colors:
            _legend(figure, colors)
        return Drawn(drawing.png(figure), f'The features at {self.stage} as points.')

    def thumbnails(self, embedding: Embedding, looked: Examples, title: str) -> Drawn:
        """Returns some examples as pictures at their points, so that none hides another.

        Args:
          embedding: of the features.
          looked: the examples of the pass, which still decode.
          title: the first line.
        """
        classes = self.classes()
        figure = drawing.figure(
            SIDE, 0.9 * SIDE, title,
            f'Pictures with similar features at {self.stage} are close. One that would hide '
            'another is a dot.',
        )  # fmt: skip
        axes = figure.subplots()
        low, high = embedding.points.min(0), embedding.points.max(0)
        room = 0.07 * np.maximum(high - low, 1e-12)
        left_below, right_above = low - room, high + room
        axes.set_xlim(left_below[0], right_above[0])
        axes.set_ylim(left_below[1], right_above[1])
        _label_axes(axes, embedding)
        colors = self._colors(classes)
        _dots(axes, embedding, [colors[name] for name in classes])
        if colors:
            _legend(figure, colors)
        figure.draw_without_rendering()  # so that the place of the axes is known
        places = axes.transData.transform(embedding.points)
        side = THUMBNAIL[len(places) <= FEW]
        shown = thinned(places, side + 2)
        images = looked.images(self.positions[shown])
        size = np.array(shown_size(*images.shape[1:3], side)[::-1])
        for row, image in zip(shown.tolist(), images, strict=True):
            corner = np.round(places[row] - size / 2)  # on whole pixels, so that it is not blurred
            (left, bottom), (right, top) = axes.transData.inverted().transform(
                [corner, corner + size]
            )
            rgb = np.broadcast_to(image, (*image.shape[:2], 3))
            axes.imshow(rgb, extent=(left, right, bottom, top), aspect='auto', zorder=2)
            if colors:
                axes.add_patch(_frame(left, bottom, right, top, colors[classes[row]]))
        count = f'{len(shown):,} of {len(self._labels):,} pictures at their points.'
        return Drawn(drawing.png(figure), f'The features at {self.stage}: {count}')

    def _colors(self, classes: Sequence[str]) -> dict[str, str]:
        """Returns the color of each class that occurs, in the order of the data set."""
        import matplotlib

        palette = iter(matplotlib.colormaps['tab10'].colors)
        found = {name: next(palette) for name in self._class_names if name in set(classes)}
        return found | ({OTHERS: OTHERS_COLOR} if OTHERS in classes else {})


def thinned(places: np.ndarray, side: float) -> np.ndarray:
    """Returns which squares can be drawn so that none touches another, int [m], ascending.

    The first ones have precedence.

    Args:
      places: float [n, 2], their centers.
      side: of a square.
    """
    # Of centers in neighboring cells alone one can be nearer than `side`.
    cells: dict[tuple[int, int], list[int]] = {}
    shown = []
    for number, (x, y) in enumerate(places.tolist()):
        column, row = int(x // side), int(y // side)
        near = (
            other
            for i in (column - 1, column, column + 1)
            for j in (row - 1, row, row + 1)
            for other in cells.get((i, j), ())
        )
        if all(np.abs(places[other] - places[number]).max() >= side for other in near):
            cells.setdefault((column, row), []).append(number)
            shown.append(number)
    return np.array(shown, int)


def _dots(axes, embedding: Embedding, colors: Sequence) -> None:
    """Draws a dot for each example, in its color if there are any."""
    # In the order of the data set, so that no class lies above another.
    each = list(colors) or drawing.FILL
    axes.scatter(*embedding.points.T, s=12, c=each, alpha=0.75, linewidths=0, zorder=1)


def _label_axes(axes, embedding: Embedding) -> None:
    """Writes on both axes how much of the variance lies along them."""
    texts = [
        f'{which} principal component ({100 * share:.1f} % of the variance)'
        for which, share in zip(('first', 'second'), embedding.explained, strict=True)
    ]
    drawing.plain(axes, *texts)


def _frame(left: float, bottom: float, right: float, top: float, color: str):
    from matplotlib.patches import Rectangle

    return Rectangle(
        (left, bottom), right - left, top - bottom, fill=False, edgecolor=color, linewidth=1.8,
        zorder=3,
    )  # fmt: skip


def _legend(figure, colors: dict[str, str]) -> None:
    """Writes the classes with their colors beside the axes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D

    texts = [fonts.for_text(shortened(name, 24)) for name in colors]
    dots = [Line2D([], [], marker='o', linestyle='', color=color) for color in colors.values()]
    legend = figure.legend(
        dots, [text for text, _ in texts], loc='outside right center', frameon=False
    )
    for label, (_, font) in zip(legend.get_texts(), texts, strict=True):
        label.set_fontproperties(FontProperties(fname=font, size=9))
        label.set_parse_math(False)
