"""Picture files as the input of a trained network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import input_pipeline
from data_sources import images, picture_files
from data_sources.picture_files import InMemory
from errors import UserError
from training.experiment import Experiment

Reader = Callable[[Path | InMemory], np.ndarray]


def reader(experiment: Experiment, invert: str = 'auto') -> tuple[tuple[int, int, int], Reader]:
    """Returns the shape of the network's input, and a function that reads a picture as such.

    As in training, the pictures of a streamed set are stretched if the set's were, scaled and
    cropped, and those of a set in memory are fitted into its frame. In photos of handwriting, ink
    and paper are told apart first.

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
    _check_invert(invert)
    transform = input_pipeline.eval_transform(experiment.config, experiment.upright)
    return (
        (transform.size, transform.size, 3),
        lambda path: _crop(transform, _stretched(path, experiment)),
    )


def whole_reader(experiment: Experiment, invert: str = 'auto') -> Reader:
    """Returns a function that reads a picture at its own size, uint8 [height, width, channels].

    It is stretched if the pictures of the network's set were.

    Arguments and errors as for `reader`.
    """
    if experiment.config.data.image_size:
        _check_invert(invert)
    mode = 'L' if experiment.image_shape[-1] == 1 else 'RGB'

    def read(path: Path | InMemory) -> np.ndarray:
        picture = images.open_picture(_stretched(path, experiment), mode)
        return images.fitted(picture, picture.height, picture.width, invert)

    return read


def _stretched(path: Path | InMemory, experiment: Experiment) -> Path | InMemory:
    """Returns a picture with its contrast stretched, under its name, or itself.

    Raises:
      UserError: it cannot be read.
    """
    if experiment.stretch is None:
        return path
    from data_sources import stretching
    from data_sources.decoding import DecodeError

    encoded = picture_files.read(path)
    try:
        stretched = stretching.encoded(encoded, experiment.stretch, experiment.upright)
    except DecodeError as error:
        raise UserError(f'{path} cannot be read as a picture: {error}.') from error
    return InMemory(stretched, str(path))


def _check_invert(invert: str) -> None:
    if invert != 'auto':
        raise UserError(
            '--invert is only for networks trained on images in memory; this one was trained on '
            'streamed pictures: leave it out.'
        )


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
