"""The contract of a task: its loss, its targets, its metrics and its reports.

Training, evaluation, prediction and sweeps all ask the task named by `config.task`; no other code
depends on what is learned. A task is one file: a subclass of `Task`, and a line in
tasks/registry.py.

A task computes sums, never means: sums add up over devices, micro-batches and evaluation batches,
and an example whose mask is 0 adds nothing. Results that do not add up (the boxes of a detector,
whose precision is computed over the whole split) leave the device as `rows`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from data_sources.targets import Kind
from field import Field
from models.network import Model, Network
from tasks.answer import Boxes, Choice, Description, Metric, Report, Sample
from tasks.products import Products

# Named arrays with one row for each example; 'mask' float32 [b] is 0 if the example is padding.
Batch = Mapping[str, jax.Array]
# The scalars that enter the compiled step as arguments, by the last part of their fields' names.
Hyper = Mapping[str, jax.Array]
# Named sums over examples.
Sums = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task. A subclass has to be frozen as well, because it is compiled into the step.

    Class attributes:
      name: the name of the task in `config.task`.
      metrics: the first one decides the best checkpoint and a sweep's objective. One is named
        'loss'; training stops if it is not finite.
      targets: {name: kind} of the arrays in a batch besides 'image'.
      fields: the fields of the configuration that belong to this task and its head. With a task
        that does not have them, they have to keep their defaults.
      terms: names of the terms of the loss, in the order in which they are added.
      fewest_classes: a data set with fewer leaves nothing to learn.
      dense: whether the outputs are maps of the images' own size. Evaluation and prediction then
        work on whole pictures; see tasks/dense.py.
      draws: whether an answer has places in the picture, which `answer`, `drawn` and `products`
        show.
      chooses: names of values that `summarize` gives of a split beside the metrics, such as a
        threshold. Those of the validation split are recorded, and answers are given with them.
      judged: what `quality` gives, if that is not the first metric.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    targets: ClassVar[Mapping[str, Kind]]
    fields: ClassVar[tuple[Field, ...]] = ()
    terms: ClassVar[tuple[str, ...]] = ('loss',)
    fewest_classes: ClassVar[int] = 0
    dense: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    chooses: ClassVar[tuple[str, ...]] = ()
    judged: ClassVar[Metric | None] = None

    @classmethod
    def create(cls, config: Any, class_names: Sequence[str]) -> 'Task':
        """Returns the task of a checked configuration and a data set's classes."""
        raise NotImplementedError

    @classmethod
    def kinds(cls, config: Any) -> Mapping[str, Kind]:
        """Returns `targets` with the sizes that a configuration gives them."""
        del config
        return cls.targets

    @classmethod
    def check(cls, config: Any) -> None:
        """Checks the task's fields against each other and the rest of the configuration.

        Raises:
          UserError: fields contradict each other or do not fit this task.
        """

    @classmethod
    def metric(cls, name: str | None = None) -> Metric:
        """Returns the metric of a name; without a name the first one, which decides choices.

        Raises:
          KeyError: the task has no such metric.
        """
        if name is None:
            return cls.metrics[0]
        return {metric.name: metric for metric in cls.metrics}[name]

    def on(self, backbone: Network) -> 'Task':
        """Returns the task with what it has to know of the backbone: here nothing.

        Args:
          backbone: as for `network`.
        """
        del backbone
        return self

    # --- in the compiled step -------------------------------------------------------------------

    def network(self, backbone: Network) -> Model:
        """Returns the network that is trained: the backbone with the task's head.

        Args:
          backbone: a model of the registry with `num_classes=0`.
        """
        raise NotImplementedError

    def loss(self, outputs: Any, batch: Batch, hyper: Hyper) -> dict[str, jax.Array]:
        """Returns {term: its sum over the real examples}, for the terms in `terms`.

        The sum over the terms of sum / weight is minimized, each over the whole batch.

        Args:
          outputs: the network's outputs in training.
          batch: targets and 'mask'.
          hyper: values of traced fields.
        """
        raise NotImplementedError

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns {term: its weight, by which its sum is divided}: the number of real examples.

        A weight may depend on the targets only, so that weights can be summed over devices and
        micro-batches before the gradient is taken.
        """
        return {term: batch['mask'].sum() for term in self.terms}

    def sums(self, outputs: Any, batch: Batch, detailed: bool = False) -> Sums:
        """Returns the sums over the real examples from which the metrics are computed.

        'count' int32 is the number of real examples.

        Args:
          outputs: the network's outputs.
          batch: targets and 'mask'.
          detailed: adds the sums that only a report needs.
        """
        raise NotImplementedError

    def rows(self, outputs: Any, batch: Batch) -> dict[str, jax.Array] | None:
        """Returns results that do not add up, [b, ...] for each example; None if there are none.

        At the end of a split the rows of all devices and processes are collected, without those of
        masked examples and in the order of the data set.
        """
        del outputs, batch
        return None

    def evaluated(
        self, outputs: Any, batch: Batch, detailed: bool = False
    ) -> tuple[Sums, dict[str, jax.Array] | None]:
        """Returns (sums, rows) of an evaluation batch; arguments as for `sums`."""
        return self.sums(outputs, batch, detailed), self.rows(outputs, batch)

    # --- on the host ----------------------------------------------------------------------------

    def collected(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns what is kept of the rows of an evaluation batch until the end of the split.

        Args:
          rows: as from `rows`, with 'index' and 'mask', which the result has as well.
        """
        return rows

    def totals(self, sums: Sums, rows: Mapping[str, np.ndarray] | None) -> Sums:
        """Returns the sums over a split: those of its batches, and what its rows add up to.

        Args:
          sums: the sums of the batches.
          rows: all rows of the split, in the order of the data set.
        """
        del rows
        return sums

    def summarize(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns {metric: value} of sums, in the order in which records show them.

        Args:
          sums: over a split, or a few steps of training.
          rows: rows of the split; None in training, where metrics that need them are left out.
        """
        raise NotImplementedError

    def result(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns the values for result.json; each is stored there as 'test_' and its name."""
        return self.summarize(sums, rows)

    def headline(self, result: Mapping[str, Any]) -> str:
        """Returns the result of a run in a few words.

        Args:
          result: the values of `result`, with 'examples' and 'bad_records'.
        """
        return self.metric().shown(result[self.metric().name])

    def quality(self, rows: Mapping[str, np.ndarray] | None) -> np.ndarray | None:
        """Returns how good the answer for each example is, float64 [n]; None if nothing says so.

        Args:
          rows: of a split.

        Returns:
          values of the metric `judged`.
        """
        del rows
        return None

    def with_choices(self, values: Mapping[str, float]) -> 'Task':
        """Returns the task with the values of `chooses` by name."""
        del values
        return self

    def recalled(self, rows: Mapping[str, np.ndarray], row: int) -> Any:
        """Returns the prediction that rows of a split hold for an example; None if they do not."""
        del rows, row
        return None

    def placed(self, prediction: Any, matrix: np.ndarray, size: tuple[int, int]) -> Any:
        """Returns one example's prediction with its places in the picture, not in the image.

        Args:
          prediction: one example's row of `predictions`, as NumPy arrays.
          matrix: [2, 3], by which the image was taken from the picture (data_sources/geometry.py).
          size: (height, width) of the picture.
        """
        del matrix, size
        return prediction

    def report(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, class_names: Sequence[str]
    ) -> Report:
        """Returns the report of a split, from detailed sums and rows."""
        raise NotImplementedError

    def constant_value(self, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns the first metric's value for the best answer that ignores the images.

        tools.preflight compares it with the value of the trained network. If it is None, preflight
        looks only at the loss.
        """
        del targets
        return None

    def predictions(self, outputs: Any) -> Any:
        """Returns the predictions as arrays [b, ...]; called inside jit."""
        raise NotImplementedError

    def answer(self, prediction: Any) -> dict[str, np.ndarray]:
        """Returns one example's prediction as targets, which `drawn` draws into the picture.

        Args:
          prediction: one example's row of `predictions`, as NumPy arrays.
        """
        del prediction
        return {}

    def products(self, image: np.ndarray, prediction: Any, class_names: Sequence[str]) -> Products:
        """Returns what predict.py writes of one picture's answer.

        Args:
          image: the picture, uint8 [h, w, 1 or 3].
          prediction: its row of `predictions`, as NumPy arrays.
          class_names: names of the data set's classes.
        """
        raise NotImplementedError

    def described(self, prediction: Any, class_names: Sequence[str], most: int) -> Description:
        """Returns a description of one example's prediction.

        Args:
          prediction: one example's row of `predictions`, as NumPy arrays.
          class_names: names of the data set's classes.
          most: maximum number of answers, if there are several.
        """
        raise NotImplementedError

    def caption(
        self, targets: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Returns the lines that a contact sheet shows under a picture.

        Args:
          targets: one example's targets, as the step gets them; mixing adds its own.
          class_names: names of the data set's classes.
        """
        raise NotImplementedError

    def drawn(self, image: np.ndarray, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns a picture, uint8 [h, w, 3], with the targets or a prediction drawn into it."""
        del targets
        return image

    def drawn_answer(
        self, image: np.ndarray, prediction: Any, targets: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Returns a picture with a prediction drawn into it, where it is wrong perhaps marked.

        Args:
          image: uint8 [h, w, 3].
          prediction: one example's, as for `answer`.
          targets: the example's.
        """
        del targets
        return self.drawn(image, self.answer(prediction))

    def boxes(self, prediction: Any, class_names: Sequence[str]) -> Boxes | None:
        """Returns the boxes of one example's prediction; None for a task that finds none."""
        del prediction, class_names
        return None

    def scaled(self, values: Any, factors: tuple[float, float]) -> Any:
        """Returns targets or a prediction for the picture at another size.

        None where they have a value for each pixel, or no places.

        Args:
          values: one example's targets or prediction.
          factors: of the height and the width.
        """
        del values, factors

    def legend(self, class_names: Sequence[str]) -> tuple[tuple[str, Sample], ...]:
        """Returns (name, color or line) of what `drawn` draws, where that has a meaning."""
        del class_names
        return ()

    # --- looked into (inspection/) --------------------------------------------------------------

    def choices(
        self, prediction: Any, class_names: Sequence[str], most: int | None = None
    ) -> tuple[Choice, ...]:
        """Returns what can be explained of one example's answer, the surest first.

        Args:
          prediction: one example's row of `predictions`, as NumPy arrays.
          class_names: names of the data set's classes.
          most: maximum number of choices; None for all.
        """
        raise NotImplementedError

    def marked(self, image: np.ndarray, choice: Choice, factor: float = 1) -> np.ndarray:
        """Returns a picture, uint8 [h, w, 1 or 3], with the place of a choice marked if it has one.

        Args:
          image: as the network gets it, or larger.
          choice: of the answer for it.
          factor: how many times larger.
        """
        del choice, factor
        return image

    def score(self, outputs: Any, values: Mapping[str, jax.Array]) -> jax.Array:
        """Returns the number [b] whose growth makes a choice more likely; called inside jit.

        Its gradient explains the choice. For a class it is the logit, and no probability, which
        grows as well where the other classes are refuted (Selvaraju et al. 2017, section 3).

        Args:
          outputs: the network's outputs.
          values: of a `Choice`; the same for all examples.
        """
        raise NotImplementedError

    def pictures(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the pictures, uint8 [h, w, c], of one example's image; for a clip its frames.

        A stage has as many maps for each example, one after the other. Values that belong to the
        image's pixels (attributions, float, with as many channels or one) are taken apart in the
        same way.
        """
        return (image,)

    def mistake(self, prediction: Any, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns how bad a wrong answer is: how sure the network was of it, or how far off it is.

        None if the answer is right.

        Args:
          prediction: one example's row of `predictions`, as NumPy arrays.
          targets: its targets.
        """
        raise NotImplementedError
