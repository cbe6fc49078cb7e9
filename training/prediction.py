"""Predictions for picture files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import input_pipeline
from data_sources import images, picture_files
from data_sources.picture_files import InMemory
from errors import UserError
from tasks.task import Description
from training.experiment import Experiment
from training.inputs import network_input
from training.trained import Trained

BATCH = 64


def predict(
    trained: Trained,
    paths: list[Path],
    invert: str = 'auto',
    most: int = 5,
    save: Callable[[int, np.ndarray], None] | None = None,
) -> Iterator[tuple[Path, Description | UserError]]:
    """Yields (path, the task's prediction for the picture), in the order given.

    A picture that cannot be read yields its UserError in place of the prediction.

    Args:
      trained: the network.
      paths: files that Pillow reads.
      invert: 'auto', 'yes' or 'no'; see data_sources.images.read_image and, for a network trained
        on handwriting, data_sources.handwriting.normalize.
      most: how many answers to give for a picture at most, if the task has several.
      save: is called with a picture's position in `paths` and uint8 [height, width, channels], the
        picture as the network gets it.
    """
    shape, read = reader(trained.experiment, invert)
    names, task = trained.experiment.class_names, trained.spec.task
    model, variables = trained.spec.model, trained.variables

    @jax.jit
    def predictions(pixels: jax.Array) -> Any:
        inputs = network_input(trained.spec, pixels)
        return task.predictions(model.apply(variables, inputs, train=False))

    for start in range(0, len(paths), BATCH):
        chunk = paths[start : start + BATCH]
        images_or_errors = [_read(read, path) for path in chunk]
        # One shape for every call, so that it is compiled once.
        batch = np.zeros((min(BATCH, len(paths)), *shape), np.uint8)
        for row, image in enumerate(images_or_errors):
            if not isinstance(image, UserError):
                batch[row] = image
                if save:
                    save(start + row, image)
        answers = jax.tree.map(np.asarray, predictions(batch))
        for row, (path, image) in enumerate(zip(chunk, images_or_errors, strict=True)):
            if isinstance(image, UserError):
                yield path, image
            else:
                answer = jax.tree.map(lambda array, row=row: array[row], answers)
                yield path, task.described(answer, names, most)


def reader(
    experiment: Experiment, invert: str = 'auto'
) -> tuple[tuple[int, int, int], Callable[[Path | InMemory], np.ndarray]]:
    """Returns the shape of the network's input, and a function that reads a picture as such.

    As in training, the pictures of a streamed set are scaled and cropped, and those of a set in
    memory are fitted into its frame. In photos of handwriting, ink and paper are told apart first.

    Args:
      experiment: whose network it is.
      invert: 'auto', 'yes' or 'no', as in `predict`.

    Returns:
      ((height, width, channels), a function of a file or a picture in memory that returns uint8
      [height, width, channels] or raises a UserError that names it).

    Raises:
      UserError: `invert` is not 'auto', and the network was trained on streamed pictures.
    """
    data, shape = experiment.config.data, experiment.image_shape
    if experiment.handwriting and shape[-1] == 1:
        from data_sources import handwriting  # whose SciPy takes a while to import

        return shape, lambda path: handwriting.read(path, *shape[:2], invert, data.name)
    if not data.image_size:
        return shape, lambda path: images.read_image(path, *shape, invert)
    if invert != 'auto':
        raise UserError(
            '--invert is only for networks trained on images in memory; this one was trained on '
            'streamed pictures: leave it out.'
        )
    transform = input_pipeline.eval_transform(experiment.config, experiment.upright)
    return (transform.size, transform.size, 3), lambda path: _crop(transform, path)


def _crop(transform: Callable[[bytes], np.ndarray], path: Path | InMemory) -> np.ndarray:
    """Returns the evaluation crop of a picture file.

    Raises:
      UserError: it cannot be read.
    """
    from data_sources.decoding import DecodeError

    encoded = picture_files.read(path)
    try:
        return transform(encoded)
    except DecodeError as error:
        raise UserError(f'{path} cannot be read as a picture: {error}.') from error


def _read(read: Callable[[Path | InMemory], np.ndarray], path: Path) -> np.ndarray | UserError:
    """Returns the picture, or the error of reading it."""
    try:
        return read(path)
    except UserError as error:
        return error
