"""A trained network with its inside open: stages, predictions, and gradients with respect to both.

    opened = of(trained.load('runs/digits_lenet'))
    look = opened.look(pixels)
    choice = opened.choice(look.prediction(0))
    slopes = opened.gradients(pixels, choice)

Everything that shows the inside of a network is made of this. What is specific to a task is asked
of the task (tasks/task.py, "looked into").
"""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError, did_you_mean, shortened
from inspection import nudging
from models.trace import Trace, trace
from tasks.answer import Choice
from training.experiment import Experiment
from training.inputs import network_input
from training.spec import StepSpec
from training.trained import Trained

BATCH = 64  # examples at once at most


@dataclasses.dataclass(frozen=True)
class Look:
    """What a network makes of some examples.

    Attributes:
      stages: {name: [b, h, w, c] or [b, units]}, in order, NumPy arrays.
      predictions: the task's, NumPy arrays [b, ...].
    """

    stages: OrderedDict[str, np.ndarray]
    predictions: Any

    def prediction(self, row: int) -> Any:
        """Returns the prediction for one example."""
        return jax.tree.map(lambda array: array[row], self.predictions)


@dataclasses.dataclass(frozen=True)
class Gradients:
    """The score of a choice for some examples, and what it depends on.

    Attributes:
      scores: [b].
      stages: {name: [b, h, w, c] or [b, units]}, in order.
      slopes: {name: the gradient of each example's score with respect to its stage}.
    """

    scores: np.ndarray
    stages: OrderedDict[str, np.ndarray]
    slopes: OrderedDict[str, np.ndarray]


class Opened:
    """A network that can be looked into.

    It is applied in its plainest form (`nudging.plain`), whose results differ from those of
    predict.py in rounding alone.

    Args:
      experiment: the configuration and the facts about its data set.
      spec: the static part of the step, with network and task.
      variables: of the network, for evaluation.
      step: number of updates done.
    """

    def __init__(
        self, experiment: Experiment, spec: StepSpec, variables: Mapping[str, Any], step: int
    ):
        self.experiment, self.spec, self.step = experiment, spec, step
        self.task, self.model = spec.task, nudging.plain(spec.model)
        self.variables = jax.device_put(variables)

    @functools.cached_property
    def trace(self) -> Trace:
        """Its layers and stages, with their shapes and receptive fields."""
        return trace(self.model, self.experiment.image_shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the data set's classes."""
        return self.experiment.class_names

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what the network gets of pixels uint8 [b, h, w, c]: normalized, float32."""
        return np.asarray(self._inputs(pixels))

    def look(self, pixels: np.ndarray) -> Look:
        """Returns the stages of images, uint8 [b, h, w, c], and the predictions for them."""
        return Look(*self._batched(self._look, pixels))

    def score(self, inputs: np.ndarray, choice: Choice) -> np.ndarray:
        """Returns the score [b] of a choice for inputs, float [b, h, w, c], as of `inputs`."""
        return self._batched(self._score, inputs, choice.values)

    def input_gradient(self, inputs: np.ndarray, choice: Choice) -> np.ndarray:
        """Returns the gradient of each score with respect to its input, float [b, h, w, c]."""
        return self._batched(self._input_gradient, inputs, choice.values)

    def gradients(self, pixels: np.ndarray, choice: Choice) -> Gradients:
        """Returns the scores of a choice for images, uint8 [b, h, w, c], and their gradients."""
        return Gradients(*self._batched(self._gradients, pixels, choice.values))

    def choice(self, prediction: Any, wanted: str | None = None) -> Choice:
        """Returns the part of an answer that is to be explained.

        Args:
          prediction: for one example.
          wanted: the name of a choice; None for the surest.

        Raises:
          UserError: there is no such choice.
        """
        choices = self.task.choices(prediction, self.class_names, 1 if wanted is None else None)
        if wanted is None and choices:
            return choices[0]
        names = [choice.name for choice in choices]
        if not names:
            raise UserError('The answer of the network is empty: there is nothing to explain.')
        if wanted not in names:
            listed = ', '.join(names[:10]) + (', ...' if len(names) > 10 else '')
            raise UserError(
                f'"{shortened(wanted)}" is no part of the answer that can be explained; there are '
                f'{listed}.{did_you_mean(wanted, names)}'
            )
        return choices[names.index(wanted)]

    def stage(self, name: str | None = None, choice: Choice | None = None) -> str:
        """Returns the name of a stage that is a map.

        Args:
          name: of the stage; None for the one on which the choice is found, or the last one.
          choice: what is to be explained by it.

        Raises:
          UserError: there is no such stage, or it has no places, only units.
        """
        maps = [n for n, stage in self.trace.stages.items() if len(stage.shape) == 3]
        if not maps:
            raise UserError(
                f'config.model.name={self.experiment.config.model.name} has no feature maps: all '
                'its layers are fully connected, so that nothing in it belongs to a place.'
            )
        if name is None:
            return (choice.stage if choice else None) or maps[-1]
        if name not in maps:
            raise UserError(
                f'"{shortened(name)}" is no stage with feature maps; there are {", ".join(maps)}.'
                + did_you_mean(name, maps)
            )
        return name

    def _batched(self, function: Callable[..., Any], array: np.ndarray, *more: Any) -> Any:
        """Returns function(array, *more) as NumPy arrays, computed for a bounded number of rows.

        The last rows are filled up, so that a function is compiled once for a given number.
        """
        rows = min(BATCH, len(array))
        results = []
        for start in range(0, len(array), rows):
            part = array[start : start + rows]
            result = function(self.variables, filled(part, rows), *more)
            results.append(jax.tree.map(functools.partial(_first, len(part), rows), result))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *results)

    def applied(self, variables: Any, pixels: jax.Array) -> tuple[OrderedDict[str, jax.Array], Any]:
        """Returns the stages and outputs for images, uint8 [b, h, w, c]; called inside jit.

        The variables are an argument, so that they are no constants of the compiled program.
        """
        return nudging.nudged(self.model, variables, network_input(self.spec, pixels), {})

    # Each is compiled once.

    @functools.cached_property
    def _inputs(self) -> Callable[[np.ndarray], jax.Array]:
        return jax.jit(functools.partial(network_input, self.spec))

    @functools.cached_property
    def _look(self) -> Callable[..., Any]:
        def look(variables, pixels):
            stages, outputs = self.applied(variables, pixels)
            return stages, self.task.predictions(outputs)

        return jax.jit(look)

    @functools.cached_property
    def _score(self) -> Callable[..., jax.Array]:
        return jax.jit(self._scored)

    @functools.cached_property
    def _input_gradient(self) -> Callable[..., jax.Array]:
        def total(inputs, variables, values):
            return self._scored(variables, inputs, values).sum()

        # No score depends on another example, so the gradient of the sum has that of each.
        gradient = jax.grad(total)
        return jax.jit(lambda variables, inputs, values: gradient(inputs, variables, values))

    @functools.cached_property
    def _gradients(self) -> Callable[..., Any]:
        def total(nudges, variables, inputs, values):
            stages, outputs = nudging.nudged(self.model, variables, inputs, nudges)
            scores = self.task.score(outputs, values)
            return scores.sum(), (scores, stages)

        def gradients(variables, pixels, values):
            inputs = self._inputs(pixels)
            shapes, _ = jax.eval_shape(self.applied, variables, pixels)
            nudges = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            slopes, (scores, stages) = jax.grad(total, has_aux=True)(
                nudges, variables, inputs, values
            )
            return scores, stages, slopes

        return jax.jit(gradients)

    def _scored(self, variables: Any, inputs: jax.Array, values: Any) -> jax.Array:
        return self.task.score(self.model.apply(variables, inputs, train=False), values)


def filled(array: np.ndarray, rows: int) -> np.ndarray:
    """Returns an array with the last of its rows repeated up to so many.

    What is compiled for a number of rows then serves for fewer.
    """
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), 0)])


def _first(real: int, rows: int, array: jax.Array) -> np.ndarray:
    """Returns what belongs to the first `real` of `rows` examples; each may have several maps."""
    return np.asarray(array)[: real * (len(array) // rows)]


def of(trained: Trained) -> Opened:
    """Returns the network of a checkpoint, opened."""
    return Opened(trained.experiment, trained.spec, trained.variables, trained.step)
