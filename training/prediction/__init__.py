"""Predictions for picture files."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from errors import UserError
from training.inputs import network_input
from training.prediction.reading import Located, located_reader, reader, whole_reader
from training.trained import Trained

__all__ = ['Answer', 'Located', 'located_reader', 'predict', 'reader', 'whole_reader']

BATCH = 64
WHOLE = 8  # pictures that are held at their own size
TTA = ('none', 'flips')


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a network makes of a picture.

    Attributes:
      image: the picture as the network gets it, uint8 [h, w, c]; whole where the answer has places.
      prediction: the task's, as NumPy arrays.
      text: a line that describes it.
      values: {name: value} of it for JSON.
    """

    image: np.ndarray
    prediction: Any
    text: str
    values: dict[str, Any]


def predict(
    trained: Trained,
    paths: list[Path],
    invert: str = 'auto',
    most: int = 5,
    tta: str = 'none',
) -> Iterator[tuple[Path, Answer | UserError]]:
    """Yields (path, the network's answer for the picture), in the order given.

    A picture that cannot be read yields its UserError in place of the answer.

    Args:
      trained: the network.
      paths: files that Pillow reads.
      invert: 'auto', 'yes' or 'no'; see data_sources.images.read_image and, for a network trained
        on handwriting, data_sources.handwriting.normalize.
      most: how many answers to give for a picture at most, if the task has several.
      tta: 'none', or 'flips' to average the answers of a dense task over the picture and its mirror
        images.

    Raises:
      UserError: `tta` is given for another task.
    """
    names, task = trained.experiment.class_names, trained.spec.task
    if tta != 'none' and not task.dense:
        raise UserError(
            f'--tta={tta} averages the answers for each pixel, and task={task.name} has one answer '
            'for a picture: leave it out.'
        )
    predicted = _dense(trained, paths, invert, tta) if task.dense else _each(trained, paths, invert)
    for path, image, prediction in predicted:
        if isinstance(image, UserError):
            yield path, image
        else:
            described = task.described(prediction, names, most)
            yield path, Answer(image, prediction, described.text, described.values)


def _each(
    trained: Trained, paths: list[Path], invert: str
) -> Iterator[tuple[Path, np.ndarray | UserError, Any]]:
    """Yields (path, picture, prediction): the network's images, or pictures with places in them."""
    located = trained.spec.task.draws
    shape, read = (located_reader if located else reader)(trained.experiment, invert)
    task, model, variables = trained.spec.task, trained.spec.model, trained.variables

    @jax.jit
    def predictions(pixels: jax.Array) -> Any:
        inputs = network_input(trained.spec, pixels)
        return task.predictions(model.apply(variables, inputs, train=False))

    size = min(WHOLE if located else BATCH, max(1, len(paths)))
    for start in range(0, len(paths), size):
        chunk = paths[start : start + size]
        images_or_errors = [_read(read, path) for path in chunk]
        # One shape for every call, so that it is compiled once.
        batch = np.zeros((size, *shape), np.uint8)
        for row, image in enumerate(images_or_errors):
            if not isinstance(image, UserError):
                batch[row] = image.image if located else image
        answers = jax.tree.map(np.asarray, predictions(batch))
        for row, (path, image) in enumerate(zip(chunk, images_or_errors, strict=True)):
            answer = jax.tree.map(lambda array, row=row: array[row], answers)
            if isinstance(image, Located):
                sides = image.picture.shape[:2]
                yield path, image.picture, task.placed(answer, image.matrix, sides)
            else:
                yield path, image, answer


def _dense(
    trained: Trained, paths: list[Path], invert: str, tta: str
) -> Iterator[tuple[Path, np.ndarray | UserError, Any]]:
    """Yields (path, picture, prediction), each picture whole and of its own size."""
    from training.prediction.whole import WholePictures

    read = whole_reader(trained.experiment, invert)
    predictions: Callable[[np.ndarray], np.ndarray] = WholePictures(trained, tta == 'flips')
    for path in paths:
        image = _read(read, path)
        yield path, image, None if isinstance(image, UserError) else predictions(image)


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    """Returns what is read of the picture, or the error of reading it."""
    try:
        return read(path)
    except UserError as error:
        return error
