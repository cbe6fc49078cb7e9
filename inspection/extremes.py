"""The best, median and worst answers of a split, each picture beside its truth and its answer.

For tasks whose answers have places in the picture, and that say how good each is (Task.quality).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_sources.arrays import ArraySource
from inspection.drawing import INK, QUIET
from inspection.sheet import GAP, LINE, MARGIN, TEXT, Sheet, shown_size, text_width
from training.evaluation import Evaluation
from training.experiment import Split
from training.prediction.whole import WholePictures
from training.trained import Trained

EACH = 3  # pictures of each kind
SIDE = 200  # pixels of the longer side of a picture, about
MOST = 20  # classes in the legend
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
    predictions = WholePictures(trained) if task.dense else None
    places = {int(example): row for row, example in enumerate(evaluation.rows['example'])}
    metric = task.judged or task.metric()
    cell = SIDE + GAP
    across, down = len(PARTS) * cell + 2 * GAP, SIDE + 2 * LINE
    first = MARGIN + 2 * LINE
    most = max(len(row.examples) for row in rows)
    legend = task.legend(split.class_names)[:MOST]
    below = first + len(rows) * (down + LINE)
    drawn = Sheet(2 * MARGIN + most * across, below + MARGIN + LINE * bool(legend))
    drawn.text(title, MARGIN, MARGIN, most * across)
    place = MARGIN
    for name, color in legend:
        square = np.full((TEXT, TEXT, 3), color, np.uint8)
        drawn.picture(square, place, below, TEXT, TEXT)
        drawn.text(name, place + TEXT + 4, below - 2, 2 * SIDE)
        place += TEXT + 4 + text_width(name) + 2 * GAP
    for number, row in enumerate(rows):
        top = first + number * (down + LINE)
        drawn.text(f'The {row.title}: {", ".join(PARTS)}', MARGIN, top, most * across, INK)
        for place, (example, value) in enumerate(row.examples):
            left = MARGIN + place * across
            image, targets = whole(split, example)
            colored = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
            if predictions:
                prediction = predictions(image)
            else:
                prediction = task.recalled(evaluation.rows, places[example])
            shown = (
                colored,
                task.drawn(colored, targets),
                task.drawn_answer(colored, prediction, targets),
            )
            height, width = shown_size(*image.shape[:2], SIDE)
            for part, pixels in enumerate(shown):
                drawn.picture(pixels, left + part * cell, top + LINE, width, height)
            name = metric.name.replace('_', ' ')
            text = f'example {example:,}: {name} {metric.shown(value)}'
            drawn.text(text, left, top + LINE + height + 2, across - GAP, QUIET)
    return drawn.png()


def whole(split: Split, example: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Returns one example's picture at its own size, uint8 [h, w, c], and its targets."""
    if isinstance(split, ArraySource):
        targets = {name: values[example] for name, values in split.targets.items()}
        return split.images[example], targets
    from data_sources import decoding

    [record] = split.read([example])
    return decoding.decode(record.image, split.upright), record.targets
