"""One pass of a network over a split, for all that is asked about many examples.

    mistakes, likes = Mistakes(opened.task, opened.class_names), Likes()
    run(opened, examples.of(opened.experiment, 'validation'), [mistakes, likes])

A collector keeps numbers and positions, no pictures: `Examples.images` reads those that are shown.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from inspection.examples import BATCH, Chunk, Examples, Given
from inspection.opened import Opened, filled


@dataclasses.dataclass(frozen=True)
class Glance:
    """What is kept of a network's stages and answers for some examples. NumPy arrays.

    The places of an example are those of all its pictures, one after the other (`Task.pictures`); a
    stage of units has one place.

    Attributes:
      predictions: the task's, [b, ...].
      strongest: {stage: the largest value of each channel over the places, float32 [b, channels]}.
      places: {stage: the place where it is, int32 [b, channels]}; the first one, if there are more.
      means: {stage: the mean of each channel over the places, float32 [b, channels]}.
      weakest: {stage: the smallest value of each channel over the places, float32 [b, channels]}.
      active: {stage: the fraction of places where each channel is not 0, float32 [b, channels]}.
    """

    predictions: Any
    strongest: OrderedDict[str, np.ndarray]
    places: OrderedDict[str, np.ndarray]
    means: OrderedDict[str, np.ndarray]
    weakest: OrderedDict[str, np.ndarray]
    active: OrderedDict[str, np.ndarray]

    def prediction(self, row: int) -> Any:
        """Returns the prediction for one example."""
        return jax.tree.map(lambda array: array[row], self.predictions)


class Collector(Protocol):
    """What looks at each chunk of a pass."""

    def add(self, chunk: Chunk, glance: Glance) -> None:
        """Takes what it wants of some examples."""


def run(opened: Opened, looked: Examples | Given, collectors: Sequence[Collector]) -> None:
    """Shows all examples to the network, and what it makes of them to the collectors.

    Raises:
      UserError: as for `Examples`.
    """
    glance = jax.jit(_glance(opened))
    rows = min(BATCH, looked.count)
    for chunk in looked:
        result = glance(opened.variables, filled(chunk.images, rows))
        real = slice(len(chunk))
        found = jax.tree.map(lambda array, real=real: np.asarray(array)[real], result)
        for collector in collectors:
            collector.add(chunk, Glance(*found))


def _glance(opened: Opened) -> Callable[..., tuple[Any, ...]]:
    """Returns a function of variables and pixels that gives the values of a `Glance`."""

    def glance(variables: Any, pixels: jax.Array) -> tuple[Any, ...]:
        stages, outputs = opened.applied(variables, pixels)
        flat = OrderedDict(
            (name, stage.astype(jnp.float32).reshape(len(pixels), -1, stage.shape[-1]))
            for name, stage in stages.items()
        )
        reductions = (
            lambda x: x.max(1),
            lambda x: x.argmax(1),
            lambda x: x.mean(1),
            lambda x: x.min(1),
            lambda x: (x != 0).mean(1),
        )
        by_kind = [OrderedDict((n, f(x)) for n, x in flat.items()) for f in reductions]
        return opened.task.predictions(outputs), *by_kind

    return glance
