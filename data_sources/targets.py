"""Kinds of target: what an example holds beside its image, and how it follows the pixels.

A kind says how a target looks in a batch, which values it may have, and how it is read from a
record of a tfds data set. Worker processes import this module, so it does not import JAX or tfds.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from errors import UserError


class TargetError(UserError):
    """A data set lacks a target that is asked of it, or has it as something else."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of target. A task names its targets and their kinds; nothing else knows them.

    A new kind defines `empty`. The other methods have defaults that suit a kind of any finite
    numbers that is found in sets in memory alone.

    Attributes:
      moves: whether the target has to move with the pixels where an image is moved.
    """

    moves: ClassVar[bool] = False

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, as an array of this kind looks in the step."""
        raise NotImplementedError

    def valid(self, values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Returns which of the values [n, ...] may be: bool [n]. Here: those that are finite."""
        del class_names
        return np.isfinite(values.reshape(len(values), -1)).all(axis=1)

    def fault(self, value: np.ndarray, class_names: Sequence[str]) -> str:
        """Returns the end of 'has <name> ...' for a value that is not valid."""
        del value, class_names
        return 'with a number that is not finite'

    def check(
        self,
        name: str,
        values: np.ndarray,
        class_names: Sequence[str],
        example: Callable[[int], str],
    ) -> None:
        """Checks the values of a target.

        Args:
          name: of the target.
          values: [n, ...], one for each example.
          class_names: of the data set.
          example: names the example of a row.

        Raises:
          UserError: some values are not valid; the first of them is named.
        """
        invalid = np.flatnonzero(~self.valid(values, class_names))
        if not len(invalid):
            return
        fault = self.fault(values[invalid[0]], class_names)
        if len(values) > 1:
            fault += f' ({len(invalid)} of {len(values):,} examples have such a value)'
        raise UserError(
            f'{example(int(invalid[0]))} has {name} {fault}: prepare the data set again from sound '
            'files.'
        )

    # --- in a record of a tfds data set ---------------------------------------------------------

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature holds targets of this kind."""
        del feature
        return False

    def class_names(self, feature: Any) -> tuple[str, ...]:
        """Returns the names of the classes that an accepted tfds feature lists, if it does."""
        del feature
        return ()

    def decoded(self, feature: Any) -> Any:
        """Returns one example's value.

        Args:
          feature: a tf_feature_pb2.Feature.

        Raises:
          ValueError: it does not hold what the data set's description says.
        """
        raise NotImplementedError

    def is_withheld(self, value: Any) -> bool:
        """Returns whether a decoded value says that the true one is kept secret."""
        del value
        return False


@dataclasses.dataclass(frozen=True)
class Label(Kind):
    """The number of a class, int32 [n], in 0 .. classes - 1."""

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, int32 [examples]."""
        del image_shape
        return np.zeros(examples, np.int32)

    def valid(self, values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Returns which labels have a class: bool [n]."""
        return (values >= 0) & (values < len(class_names))

    def fault(self, value: np.ndarray, class_names: Sequence[str]) -> str:
        """Returns the label and how many classes there are."""
        return f'{value}, out of range for {len(class_names)} classes'

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature is a class of which it knows how many there are."""
        import tensorflow_datasets as tfds

        return isinstance(feature, tfds.features.ClassLabel) and bool(feature.num_classes)

    def class_names(self, feature: Any) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of their labels."""
        return tuple(feature.names)

    def decoded(self, feature: Any) -> int:
        """Returns the label."""
        return feature.int64_list.value[0]

    def is_withheld(self, value: int) -> bool:
        """Returns whether a label is -1: what tfds gives a test split whose labels are secret."""
        return value == -1


@dataclasses.dataclass(frozen=True)
class Vector(Kind):
    """A few numbers, such as an angle: float32 [n, size], all of them finite.

    Attributes:
      size: how many numbers an example has.
    """

    size: int

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, float32 [examples, size]."""
        del image_shape
        return np.zeros((examples, self.size), np.float32)

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature is float32 [size]; a single number may be float32 []."""
        import tensorflow_datasets as tfds

        shapes = ((self.size,), ()) if self.size == 1 else ((self.size,),)
        return (
            isinstance(feature, tfds.features.Tensor)
            and feature.np_dtype == np.float32
            and tuple(feature.shape) in shapes
        )

    def decoded(self, feature: Any) -> np.ndarray:
        """Returns float32 [size].

        Raises:
          ValueError: there are more or fewer numbers.
        """
        value = np.array(feature.float_list.value, np.float32)
        if value.shape != (self.size,):
            raise ValueError(f'{value.size} numbers in place of {self.size}')
        return value


# What a data set has unless it says otherwise.
LABELS: Mapping[str, Kind] = {'label': Label()}


def check_present(holder: str, available: Collection[str], wanted: Collection[str]) -> None:
    """Checks that a data set has what is asked of it.

    Args:
      holder: names the data set, at the beginning of a sentence.
      available: names of its targets, or of all that an example holds.
      wanted: names of targets.

    Raises:
      TargetError: it has not.
    """
    missing = [name for name in wanted if name not in available]
    if missing:
        quoted = ' and no '.join(f'"{name}"' for name in missing)
        listed = ', '.join(available) or 'none'
        raise TargetError(f'{holder} has no {quoted}; it has {listed}.')
