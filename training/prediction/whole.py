"""Predictions of a dense task (tasks/dense.py) for whole pictures of any size, in tiles."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
from data_sources.tiles import Merger, TilePlan, window
from training.inputs import network_input
from training.trained import Trained

BATCH = 8  # tiles at once, if a picture has several
# The axes of images [b, h, w, c] that are flipped, for each of the answers that are averaged.
FLIPS = ((), (1,), (2,), (1, 2))


class WholePictures:
    """Predicts for pictures at their own scale; a call takes uint8 [h, w, c].

    Args:
      trained: the network of a dense task.
      flips: whether the predictions for the picture and its three mirror images are averaged.
    """

    def __init__(self, trained: Trained, flips: bool = False):
        exp = trained.experiment
        self._tile = input_pipeline.tile_side(exp.config)
        # Pictures of a set in memory are evaluated whole, and so are others of their size.
        self._one_size = None if exp.config.data.image_size else exp.image_shape[:2]
        self._variables = jax.device_put(trained.variables)
        self._predictions = jax.jit(_averaged(trained, FLIPS if flips else FLIPS[:1]))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Returns the predictions for the picture, float32 [h, w, ...]."""
        if picture.shape[:2] == self._one_size:
            return np.asarray(self._predictions(self._variables, picture[None]))[0]
        plan = TilePlan([picture.shape[:2]], self._tile, BATCH, devices=1)
        merger = Merger(plan)
        for batch in plan:
            tiles = [plan.tiles[index] for index in batch['index']]
            # One tile or BATCH: every other number would be another program.
            rows = 1 if len(plan.tiles) == 1 else BATCH
            pixels = np.stack([window(picture, tile) for tile in tiles])
            pixels = np.pad(pixels, ((0, rows - len(pixels)), *[(0, 0)] * 3))
            values = np.asarray(self._predictions(self._variables, pixels))
            for row in np.flatnonzero(batch['mask'] > 0):
                for _, whole in merger.add(int(batch['index'][row]), values[row]):
                    return whole
        raise AssertionError('the plan of a picture has all of its tiles')


def _averaged(
    trained: Trained, flips: tuple[tuple[int, ...], ...]
) -> Callable[[dict, jax.Array], jax.Array]:
    """Returns the function of (variables, uint8 [b, h, w, c]) that averages over flips."""
    task, model = trained.spec.task, trained.spec.model

    def predictions(variables: dict, pixels: jax.Array) -> jax.Array:
        total = 0.0
        for axes in flips:
            inputs = network_input(trained.spec, jnp.flip(pixels, axes))
            answer = task.predictions(model.apply(variables, inputs, train=False))
            total += jnp.flip(answer, axes)
        return total / len(flips)

    return predictions
