"""Picture files as the input of a trained network."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import input_pipeline
from data_sources import geometry, images, picture_files
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
        transform.shape,
        lambda path: _decoded(transform, _stretched(path, experiment)),
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


@dataclasses.dataclass(frozen=True)
class Located:
    """A picture, and the image that the network gets of it.

    Attributes:
      picture: at its own size, uint8 [h, w, c].
      image: uint8, of the network's shape.
      matrix: [2, 3], by which the image was taken from the picture.
    """

    picture: np.ndarray
    image: np.ndarray
    matrix: np.ndarray


def located_reader(
    experiment: Experiment, invert: str = 'auto'
) -> tuple[tuple[int, int, int], Callable[[Path | InMemory], Located]]:
    """Returns what `reader` does, with a function that also says where the image was taken from.

    Arguments and errors as for `reader`.
    """
    shape, data = experiment.image_shape, experiment.config.data
    whole = whole_reader(experiment, invert)
    if not data.image_size:

        def fit(path: Path | InMemory) -> Located:
            picture = whole(path)
            mode = picture if shape[-1] == 3 else picture[..., 0]
            image = images.fitted(Image.fromarray(mode), *shape[:2], 'no')
            return Located(picture, image, images.fit_matrix(picture.shape[:2], *shape[:2]))

        return shape, fit
    # Boxes are in the upright picture, whatever became of the set's own pictures.
    transform = input_pipeline.eval_transform(experiment.config, upright=True)

    def transformed(path: Path | InMemory) -> Located:
        stretched = _stretched(path, experiment)
        image, matrices = _decoded(transform.with_matrices, stretched)
        matrix = functools.reduce(geometry.joined, matrices)
        return Located(whole(path), image, matrix)

    return transform.shape, transformed


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


def _decoded(transform: Callable[[bytes], Any], path: Path | InMemory) -> Any:
    """Returns what a function makes of the bytes of a picture file.

    Raises:
      UserError: it cannot be read.
    """
    from data_sources.decoding import DecodeError

    encoded = picture_files.read(path)
    try:
        return transform(encoded)
    except DecodeError as error:
        raise UserError(f'{path} cannot be read as a picture: {error}.') from error
