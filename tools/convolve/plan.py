"""Which windows an animation shows, and for how long; which of them are shown one by one."""

import dataclasses

import numpy as np

from tools.convolve.sliding import strongest

MOST_SINGLE = 49  # windows that get a frame each; of more, whole rows appear at once
CLOSELY = 8  # of those, how many windows are shown one by one: the ones around the strongest
MOST_BLOCKS = 40  # frames of whole rows
SLOW, STEADY, FAST, LAST = 1200, 700, 180, 3000  # milliseconds


@dataclasses.dataclass(frozen=True)
class Step:
    """One frame.

    Attributes:
      row, column: of the result, whose window is shown.
      done: how many numbers of the result are there, in the order of reading.
      milliseconds: how long the frame is seen.
    """

    row: int
    column: int
    done: int
    milliseconds: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The frames of an animation.

    Attributes:
      steps: the frames.
      closely: (row, column) of the windows that are shown one by one.
      rows: how many rows appear in each of the other frames; 0 if there are no others.
    """

    steps: tuple[Step, ...]
    closely: tuple[tuple[int, int], ...]
    rows: int = 0


def around_strongest(result: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Returns (row, column) of up to CLOSELY places in a row: the strongest and those around it."""
    row, column = strongest(result)
    width = result.shape[1]
    start = min(max(0, column - CLOSELY // 2), max(0, width - CLOSELY))
    return tuple((row, c) for c in range(start, min(start + CLOSELY, width)))


def plan(result: np.ndarray) -> Plan:
    """Returns the frames for a result [h', w']: each window, or rows at once if there are many."""
    height, width = result.shape
    if result.size <= MOST_SINGLE:
        closely = tuple(np.ndindex(height, width))
        time = SLOW if result.size <= 16 else STEADY
        steps = [Step(r, c, r * width + c + 1, time) for r, c in closely]
        steps[-1] = dataclasses.replace(steps[-1], milliseconds=LAST)
        return Plan(tuple(steps), closely)
    closely = around_strongest(result)
    best = closely[0][0]
    rows = -(-height // MOST_BLOCKS)
    steps = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        if top <= best < bottom:
            steps += [Step(r, c, r * width + c + 1, STEADY) for r, c in closely]
        row, column = strongest(result[top:bottom])
        steps.append(Step(top + row, column, bottom * width, FAST))
    steps.append(Step(*strongest(result), result.size, LAST))
    return Plan(tuple(steps), closely, rows)
