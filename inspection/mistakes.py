"""The wrong answers of which a network was surest.

They say what it has not learned, and often that a picture has the wrong label.
"""

import dataclasses
import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import files
from errors import UserError
from inspection import shown
from inspection.drawing import FRAME, INK, QUIET
from inspection.examples import Chunk, Examples
from inspection.legend import Legend
from inspection.sheet import (
    GAP,
    LARGE,
    LINE,
    MARGIN,
    WIDTH,
    Sheet,
    shown_size,
    text_width,
    wrapped,
)  # fmt: skip
from inspection.survey import Glance
from tasks.task import Task

MOST = 24  # are kept
ANSWERS = 3  # of each are listed
LONGEST = 300  # pixels of a line below a picture
BETWEEN = 4  # pixels from the truth to the answer
DRAWN = 224  # pixels of the longer side of a picture with places drawn into it, about


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
      position: the example's number in its split.
      badness: how sure the network was of it, or how far off it is; of `Task.mistake`.
      truth: the targets as text.
      answer: the answer as text, as predict.py gives it.
      described: the first answers, as values for JSON.
      prediction: the task's, for this example.
      targets: of this example.
    """

    position: int
    badness: float
    truth: str
    answer: str
    described: dict[str, Any]
    prediction: Any
    targets: dict[str, np.ndarray]

    @property
    def lines(self) -> tuple[str, str, str]:
        """What is written below its picture."""
        return f'true: {self.truth}', f'answer: {self.answer}', f'example {self.position:,}'


class Mistakes:
    """A collector of a pass (survey.py) that keeps the worst mistakes, however many there are.

    Args:
      task: of the network.
      class_names: of the data set.
      most: how many to keep.

    Attributes:
      examples: how many were looked at.
      count: how many answers were wrong.
    """

    def __init__(self, task: Task, class_names: Sequence[str], most: int = MOST):
        self._task, self._class_names, self._most = task, class_names, most
        self._heap: list[tuple[float, int, Any, dict[str, np.ndarray]]] = []
        self.examples = self.count = 0

    def add(self, chunk: Chunk, glance: Glance) -> None:
        """Takes the mistakes of some examples."""
        self.examples += len(chunk)
        for row, position in enumerate(chunk.positions.tolist()):
            prediction, targets = glance.prediction(row), chunk.target(row)
            badness = self._task.mistake(prediction, targets)
            if badness is None:
                continue
            self.count += 1
            badness = math.inf if math.isnan(badness) else badness  # of a network that diverged
            # Of equally bad ones the first of the split are kept.
            heapq.heappush(self._heap, (badness, -position, prediction, targets))
            if len(self._heap) > self._most:
                heapq.heappop(self._heap)

    def worst(self) -> list[Mistake]:
        """Returns the mistakes, the worst first."""
        found = []
        for badness, position, prediction, targets in sorted(
            self._heap, key=lambda entry: entry[:2], reverse=True
        ):
            described = self._task.described(prediction, self._class_names, ANSWERS)
            short = self._task.described(prediction, self._class_names, 1)
            truth = ', '.join(self._task.caption(targets, self._class_names))
            found.append(
                Mistake(
                    -position, badness, truth, short.text, described.values, prediction, targets
                )
            )
        return found

    def text(self) -> str:
        """Returns how many there are, in a sentence."""
        if not self.count:
            return f'No answer was wrong: all {self.examples:,} examples are right.'
        were = 'was' if self.count == 1 else 'were'
        percent = 100 * self.count / self.examples
        return f'{self.count:,} of {self.examples:,} answers {were} wrong ({percent:.2f} %).'

    def listed(self) -> str:
        """Returns `text`, and which of them the lists and pictures show."""
        kept = len(self._heap)
        if kept < self.count:
            return f'{self.text()} The {kept:,} worst are shown, the worst first.'
        return self.text() + ' The worst come first.' * (kept > 1)

    def rows(self) -> list[tuple[str, ...]]:
        """Returns a table: column heads, then a row for each mistake, the worst first."""
        rows = [('example', 'truth', 'answer')]
        return rows + [(f'{m.position:,}', m.truth, m.answer) for m in self.worst()]

    def table(self) -> str:
        """Returns the mistakes in columns of text, below how many there are."""
        if not self.count:
            return self.text() + '\n'
        return f'{self.listed()}\n\n{files.columns(self.rows(), 3)}\n'

    def to_json(self) -> dict[str, Any]:
        """Returns all that is known of them as values for JSON, null for what is not finite."""
        mistakes = [
            {'position': m.position, 'badness': m.badness, 'truth': m.truth, **m.described}
            for m in self.worst()
        ]
        return files.nan_to_null(
            {'examples': self.examples, 'mistakes': self.count, 'worst': mistakes}
        )

    def _drawn(self, picture: np.ndarray, mistake: Mistake, height: int, width: int) -> np.ndarray:
        """Returns the picture with the truth, and beside it, if it has places, with the answer."""
        about = (mistake.targets, mistake.prediction, height, width)
        _, truth, answer = shown.drawn(self._task, picture, *about)
        between = np.full((height, BETWEEN, 3), 255, np.uint8)
        return np.concatenate([truth, between, answer] if self._task.draws else [truth], axis=1)

    def sheet(self, looked: Examples, title: str) -> bytes:
        """Returns the mistakes as pictures with truth and answer below them: a PNG file.

        Args:
          looked: the examples of the pass, which still decode.
          title: the first line.

        Raises:
          UserError: there are no mistakes.
        """
        worst = self.worst()
        if not worst:
            raise UserError(self.text())
        images = looked.images([m.position for m in worst])
        draws = self._task.draws
        height, width = shown_size(*images.shape[1:3], DRAWN if draws else LARGE)
        beside = 2 * width + BETWEEN if draws else width  # the truth, and beside it the answer
        widest = max(text_width(line) for mistake in worst for line in mistake.lines)
        across = max(beside, min(widest, LONGEST)) + 2 * GAP
        down = height + 3 * LINE + GAP
        columns = max(1, WIDTH // across)
        total = max(WIDTH, across)
        rows = -(-len(worst) // columns)
        note = f'{self.listed()} {looked.note()}'
        heading = [title, *wrapped(note, total)]
        legend = Legend(self._task.legend(self._class_names) if draws else (), total)
        under = MARGIN + len(heading) * LINE
        first = under + legend.height + LINE
        sheet = Sheet(2 * MARGIN + total, MARGIN + first + rows * down)
        for number, line in enumerate(heading):
            sheet.text(line, MARGIN, MARGIN + number * LINE, total, QUIET if number else INK)
        legend.draw(sheet, MARGIN, under)
        for number, (mistake, image) in enumerate(zip(worst, images, strict=True)):
            left = MARGIN + number % columns * across
            top = first + number // columns * down
            sheet.picture(self._drawn(image, mistake, height, width), left, top, beside, height)
            colors = (INK, FRAME, QUIET)
            for line, (text, color) in enumerate(zip(mistake.lines, colors, strict=True)):
                below = top + height + 2 + line * LINE
                sheet.text(text, left, below, across - GAP, color)
        return sheet.png()
