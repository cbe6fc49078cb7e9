"""The contract of a task: what is learned, from which targets, and how good it is.

Whatever trains, evaluates, predicts or searches asks the task named by `config.task`; nothing else
knows what is learned. A task is one file: a subclass of `Task`, and a line in tasks/registry.py.

A task gives sums, never means: sums add up over devices, micro-batches and evaluation batches, and
an example whose mask is 0 adds nothing. What does not add up (the boxes of a detector, of which a
precision is computed over the whole split) leaves the device as `rows`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import numpy as np

from data_sources.targets import Kind
from field import Field

# Named arrays with one entry for each example; 'mask' float32 [b] is 0 where an example is padding.
Batch = Mapping[str, jax.Array]
# The scalars that enter the compiled step as arguments, by the last part of their fields' names.
Hyper = Mapping[str, jax.Array]
# Named sums over examples; all of them add up.
Sums = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One figure that says how good a network is.

    Attributes:
      name: such as 'accuracy'; records call it 'validation/accuracy', result.json 'test_accuracy'.
      higher_is_better: decides the best checkpoint and the direction of a sweep.
      percent: whether it is a fraction in [0, 1] that people read in percent.
      unit: what it is counted in, for the axis of a plot.
    """

    name: str
    higher_is_better: bool
    percent: bool = False
    unit: str = ''

    @property
    def direction(self) -> str:
        """The direction of a search, as Optuna names it."""
        return 'maximize' if self.higher_is_better else 'minimize'

    def best(self, values: Sequence[Any]) -> Any:
        """Returns the best of some values, or of tuples that begin with one."""
        return max(values) if self.higher_is_better else min(values)

    def shown(self, value: float, digits: int | None = None) -> str:
        """Returns a value as people read it: '98.61 %', or '0.0432'."""
        if self.percent:
            return f'{100 * value:.{2 if digits is None else digits}f} %'
        return f'{value:.{4 if digits is None else digits}f}'


class Report(Protocol):
    """How good a network is on a split, in detail."""

    def text(self) -> str:
        """Returns tables for a terminal."""

    def to_json(self) -> dict[str, Any]:
        """Returns all figures, as JSON can say them."""

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        """Draws the pictures, whose names hold the split's, into a folder; returns their paths."""


@dataclasses.dataclass(frozen=True)
class Description:
    """A prediction in words.

    Attributes:
      text: a line.
      values: {name: value} for JSON.
    """

    text: str
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned. A subclass is frozen, too: it is compiled into the step.

    Class attributes:
      name: what `config.task` says.
      metrics: the first one is what choices are made by: the best checkpoint, a sweep. One is
        named 'loss'; training stops where it is not finite.
      targets: {name: kind} of what a batch holds beside 'image'.
      fields: of the configuration, that this task and its head bring. Under a task without them
        they have to stay at their defaults.
      terms: names of the terms of the loss, in the order in which they are added.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    targets: ClassVar[Mapping[str, Kind]]
    fields: ClassVar[tuple[Field, ...]] = ()
    terms: ClassVar[tuple[str, ...]] = ('loss',)

    @classmethod
    def create(cls, config: Any, class_names: Sequence[str]) -> 'Task':
        """Returns the task of a checked configuration and a data set's classes."""
        raise NotImplementedError

    @classmethod
    def check(cls, config: Any) -> None:
        """Checks the task's fields against each other and the rest of the configuration.

        Raises:
          UserError: something makes no sense for this task.
        """

    @classmethod
    def metric(cls, name: str | None = None) -> Metric:
        """Returns the metric of a name, or the one that choices are made by.

        Raises:
          KeyError: the task has no such metric.
        """
        if name is None:
            return cls.metrics[0]
        return {metric.name: metric for metric in cls.metrics}[name]

    # --- in the compiled step -------------------------------------------------------------------

    def network(self, backbone: nn.Module) -> nn.Module:
        """Returns what is trained: the backbone with the task's head.

        Args:
          backbone: a model of the registry with `num_classes=0`.
        """
        raise NotImplementedError

    def loss(self, outputs: Any, batch: Batch, hyper: Hyper) -> dict[str, jax.Array]:
        """Returns {term: its sum over the real examples}, for the terms in `terms`.

        What is minimized is the sum over the terms of sum / weight, each over the whole batch.

        Args:
          outputs: of the network in training.
          batch: targets and 'mask'.
          hyper: values of traced fields.
        """
        raise NotImplementedError

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns {term: what its sum is divided by}; the number of real examples.

        It sees the targets alone, so that weights can be summed over devices and micro-batches
        before the gradient is taken.
        """
        return {term: batch['mask'].sum() for term in self.terms}

    def sums(self, outputs: Any, batch: Batch, detailed: bool = False) -> Sums:
        """Returns what the metrics are made of, summed over the real examples.

        'count' int32 is how many those are.

        Args:
          outputs: of the network.
          batch: targets and 'mask'.
          detailed: adds what only a report needs.
        """
        raise NotImplementedError

    def rows(self, outputs: Any, batch: Batch) -> dict[str, jax.Array] | None:
        """Returns what does not add up, [b, ...] for each example; None where all of it does.

        At the end of a split the rows of all devices and processes are brought together, without
        those of masked examples and in the order of the data set.
        """
        del outputs, batch
        return None

    # --- on the host ----------------------------------------------------------------------------

    def summarize(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns {metric: value} of summed sums, in the order in which records show them.

        Args:
          sums: over a split, or a few steps of training.
          rows: of the split; None in training, where metrics that need them are left out.
        """
        raise NotImplementedError

    def result(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns what result.json keeps of the test split, each under 'test_' and its name."""
        return self.summarize(sums, rows)

    def headline(self, result: Mapping[str, Any]) -> str:
        """Returns the end of a run in a few words, from what `result` returned."""
        return self.metric().shown(result[self.metric().name])

    def report(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, class_names: Sequence[str]
    ) -> Report:
        """Returns the report of a split, from detailed sums and rows."""
        raise NotImplementedError

    def constant_value(self, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns the first metric's value for the best answer that looks at no image.

        tools.preflight compares with it what the network has learned. None: it looks at the loss
        alone.
        """
        del targets
        return None

    def predictions(self, outputs: Any) -> Any:
        """Returns what is predicted, as arrays [b, ...]; called inside jit."""
        raise NotImplementedError

    def described(self, prediction: Any, class_names: Sequence[str], most: int) -> Description:
        """Returns one example's prediction for people and for programs.

        Args:
          prediction: of `predictions`, one example's, as NumPy arrays.
          class_names: of the data set.
          most: how many answers to give at most, where there are several.
        """
        raise NotImplementedError

    def caption(
        self, targets: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Returns the lines that a contact sheet writes under a picture.

        Args:
          targets: one example's, as the step gets them; mixing adds its own.
          class_names: of the data set.
        """
        raise NotImplementedError

    def drawn(self, image: np.ndarray, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns a picture, uint8 [h, w, 3], with targets or a prediction drawn into it."""
        del targets
        return image
