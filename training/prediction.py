"""Class probabilities of pictures from files."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data_sources import images
from errors import UserError
from training.step import standardised
from training.trained import Trained

BATCH = 64


def predict(
    trained: Trained, paths: list[Path], invert: str = 'auto'
) -> Iterator[tuple[Path, list[tuple[str, float]] | UserError]]:
    """Yields (path, [(class name, probability), ...] most probable first), in the order given.

    A picture that cannot be read gives its UserError in place of the list.

    Args:
      trained: the network.
      paths: files that Pillow reads.
      invert: 'auto', 'yes' or 'no'; see data_sources.images.read_image.
    """
    height, width, channels = trained.experiment.image_shape
    names = trained.experiment.class_names
    model, variables = trained.spec.model, trained.variables

    @jax.jit
    def probabilities(pixels):
        inputs = standardised(trained.spec, pixels.astype(jnp.float32) / 255.0)
        return jax.nn.softmax(model.apply(variables, inputs, train=False))

    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        pixels = [_read(path, height, width, channels, invert) for path in part]
        # One shape for every call, so that it is compiled once.
        batch = np.zeros((min(BATCH, len(paths)), height, width, channels), np.uint8)
        for row, image in enumerate(pixels):
            if not isinstance(image, UserError):
                batch[row] = image
        for path, image, p in zip(part, pixels, np.asarray(probabilities(batch)), strict=False):
            if isinstance(image, UserError):
                yield path, image
            else:
                yield path, [(names[i], float(p[i])) for i in np.argsort(-p, kind='stable')]


def _read(path: Path, height: int, width: int, channels: int, invert: str):
    try:
        return images.read_image(path, height, width, channels, invert)
    except UserError as error:
        return error
