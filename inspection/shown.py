"""Truth and answer drawn into a picture that is shown smaller or larger than it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from tasks.task import Task


def sized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a picture, uint8 [h, w, 1 or 3], at another size, uint8 [height, width, 3].

    Where it is enlarged by a whole factor, its pixels become squares.
    """
    image = Image.fromarray(np.broadcast_to(picture, (*picture.shape[:2], 3)).copy())
    whole = not width % image.width and not height % image.height
    how = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
    return np.asarray(image.resize((width, height), how))


def drawn(
    task: Task,
    picture: np.ndarray,
    targets: Mapping[str, np.ndarray],
    prediction: Any,
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the picture, with its truth, and with its answer, each uint8 [height, width, 3].

    Boxes are drawn at the size that is shown, so that their lines are neither thick nor lost.

    Args:
      task: whose targets and prediction they are.
      picture: uint8 [h, w, 1 or 3].
      targets, prediction: of the picture, in its pixels if they have places.
      height, width: of the results.
    """
    factors = (height / picture.shape[0], width / picture.shape[1])
    truth, answer = task.scaled(targets, factors), task.scaled(prediction, factors)
    if truth is None or answer is None:
        whole = np.broadcast_to(picture, (*picture.shape[:2], 3)).copy()
        parts = task.drawn(whole, targets), task.drawn_answer(whole, prediction, targets)
        return tuple(sized(part, height, width) for part in (whole, *parts))
    shown = sized(picture, height, width)
    return shown, task.drawn(shown, truth), task.drawn_answer(shown, answer, truth)
