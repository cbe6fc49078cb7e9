"""The best, median and worst answers of a split, each picture beside its truth and its answer.

For tasks whose answers have places in the picture, and that say how good each is (Task.quality).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_sources.arrays import ArraySource
from inspection import shown
from inspection.drawing import INK, QUIET
from inspection.legend import Legend
from inspection.sheet import GAP, LINE, MARGIN, Sheet, shown_size
from tasks.answer import Sample
from tasks.task import Task
from training.evaluation import Evaluation
from training.experiment import Split
from training.prediction.whole import WholePictures
from training.trained import Trained

EACH = 3  # pictures of each kind
SIDE = 200  # pixels of the longer side of a picture, about
PARTS = ('picture', 'truth', 'answer')


@dataclasses.dataclass(frozen=True)
class Row:
    """Pictures of a kind.

    Attributes:
      title: 'best', 'median' or 'worst'.
      examples: (number in the split, quality) of each.
    """

    title: str
    examples: Sequence[tuple[int, float]]


def chosen(quality: np.ndarray, examples: np.ndarray) -> list[Row]:
    """Returns which examples are shown: of few, each once.

    Args:
      quality: float [n], the higher the better.
      examples: int [n], their numbers in the split.
    """
    order = np.argsort(-quality, kind='stable')
    middle = max(0, (len(order) - EACH) // 2)
    parts = {'best': order[:EACH], 'median': order[middle : middle + EACH], 'worst': order[-EACH:]}
    taken, rows = set(), []
    for title, part in parts.items():
        new = [i for i in part if i not in taken]
        taken.update(new)
        rows.append(Row(title, [(int(examples[i]), float(quality[i])) for i in new]))
    return [row for row in rows if row.examples]


def sheet(trained: Trained, split: Split, evaluation: Evaluation, title: str) -> bytes | None:
    """Returns the sheet as a PNG file; None for a task whose answers have no places.

    Args:
      trained: the network.
      split: the split, open.
      evaluation: of the network on it.
      title: the first line.
    """
    task = trained.spec.task
    quality = task.quality(evaluation.rows) if task.draws else None
    if quality is None:
        return None
    rows = chosen(quality, evaluation.rows['example'])
    places = {int(example): row for row, example in enumerate(evaluation.rows['example'])}
    predictions = WholePictures(trained) if task.dense else None

    def shown_of(example: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, targets = whole(split, example)
        if predictions:
            prediction = predictions(image)
        else:
            prediction = task.recalled(evaluation.rows, places[example])
        size = shown_size(*image.shape[:2], SIDE)
        return shown.drawn(task, image, targets, prediction, *size)

    drawn = [Drawn(row, [shown_of(example) for example, _ in row.examples]) for row in rows]
    return joined(drawn, task, task.legend(split.class_names), title)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A row of the sheet, with the parts of each example: uint8 [height, width, 3]."""

    row: Row
    cells: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]

    @property
    def height(self) -> int:
        """Of its tallest picture."""
        return max(parts[0].shape[0] for parts in self.cells)


def joined(
    rows: Sequence[Drawn], task: Task, entries: Sequence[tuple[str, Sample]], title: str
) -> bytes:
    """Returns the rows below a title, and a legend, as a PNG file."""
    metric = task.judged or task.metric()
    cell = SIDE + GAP
    across = len(PARTS) * cell + 2 * GAP
    width = max(len(row.cells) for row in rows) * across
    legend = Legend(entries, width)
    heights = [row.height + 3 * LINE for row in rows]
    under = MARGIN + LINE
    top = under + legend.height + LINE
    sheet = Sheet(2 * MARGIN + width, top + sum(heights) + MARGIN)
    sheet.text(title, MARGIN, MARGIN, width)
    legend.draw(sheet, MARGIN, under)
    for row, tall in zip(rows, heights, strict=True):
        sheet.text(f'The {row.row.title}: {", ".join(PARTS)}', MARGIN, top, width, INK)
        for place, (parts, (example, value)) in enumerate(
            zip(row.cells, row.row.examples, strict=True)
        ):
            left = MARGIN + place * across
            height, wide = parts[0].shape[:2]
            for part, pixels in enumerate(parts):
                sheet.picture(pixels, left + part * cell, top + LINE, wide, height)
            name = metric.name.replace('_', ' ')
            text = f'example {example:,}: {name} {metric.shown(value)}'
            sheet.text(text, left, top + LINE + height + 2, across - GAP, QUIET)
        top += tall
    return sheet.png()


def whole(split: Split, example: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Returns one example's picture at its own size, uint8 [h, w, c], and its targets."""
    if isinstance(split, ArraySource):
        targets = {name: values[example] for name, values in split.targets.items()}
        return split.images[example], targets
    from data_sources import decoding

    [record] = split.read([example])
    return decoding.decode(record.image, split.upright), record.targets
