"""Predictions for pictures from files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
from data_sources import images
from errors import UserError
from tasks.task import Description
from training.inputs import normalized
from training.trained import Trained

BATCH = 64


def predict(
    trained: Trained, paths: list[Path], invert: str = 'auto', most: int = 5
) -> Iterator[tuple[Path, Description | UserError]]:
    """Yields (path, what the task predicts for the picture), in the order given.

    A picture that cannot be read gives its UserError in place of the prediction.

    Args:
      trained: the network.
      paths: files that Pillow reads.
      invert: 'auto', 'yes' or 'no'; see data_sources.images.read_image.
      most: how many answers to give for a picture, where there are several.
    """
    shape, read = _reader(trained.experiment, invert)
    names, task = trained.experiment.class_names, trained.spec.task
    model, variables = trained.spec.model, trained.variables

    @jax.jit
    def predictions(pixels):
        inputs = normalized(trained.spec, pixels.astype(jnp.float32) / 255.0)
        return task.predictions(model.apply(variables, inputs, train=False))

    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        pixels = [_read(read, path) for path in part]
        # One shape for every call, so that it is compiled once.
        batch = np.zeros((min(BATCH, len(paths)), *shape), np.uint8)
        for row, image in enumerate(pixels):
            if not isinstance(image, UserError):
                batch[row] = image
        answers = jax.tree.map(np.asarray, predictions(batch))
        for row, (path, image) in enumerate(zip(part, pixels, strict=True)):
            if isinstance(image, UserError):
                yield path, image
            else:
                answer = jax.tree.map(lambda array, row=row: array[row], answers)
                yield path, task.described(answer, names, most)


def _reader(experiment, invert: str) -> tuple[tuple[int, int, int], Callable[[Path], np.ndarray]]:
    """Returns the shape of what the network takes, and what makes it of a picture file.

    As in training: a streamed set's pictures are scaled and cropped, others fitted into the frame.
    """
    if not experiment.config.data.image_size:
        shape = experiment.image_shape
        return shape, lambda path: images.read_image(path, *shape, invert)
    if invert != 'auto':
        raise UserError('--invert is for networks of images in memory; this one takes photographs.')
    transform = input_pipeline.eval_transform(experiment.config)
    return (transform.size, transform.size, 3), lambda path: _crop(transform, path)


def _crop(transform, path: Path) -> np.ndarray:
    from data_sources.decoding import DecodeError

    try:
        return transform(path.read_bytes())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except DecodeError as error:
        raise UserError(f'{path} cannot be read as a picture: {error}.') from error


def _read(read: Callable[[Path], np.ndarray], path: Path) -> np.ndarray | UserError:
    try:
        return read(path)
    except UserError as error:
        return error
