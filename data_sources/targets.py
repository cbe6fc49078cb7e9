"""Kinds of target: what an example holds beside its image, and how it follows the pixels.

A kind says how a target looks in a batch, which values it may have, and how it is read from a
record of a tfds data set. Worker processes import this module, so it does not import JAX or tfds.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from data_sources import geometry
from errors import UserError


class TargetError(UserError):
    """A data set lacks a target that is asked of it, or has it as something else."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of target. A task names its targets and their kinds; nothing else knows them.

    A new kind defines `empty`. The other methods have defaults that suit a kind of any finite
    numbers, in data sets that are held in memory.

    Attributes:
      moves: whether the target has to move with the pixels where an image is moved; then `_moved`
        says how.
      bends: whether it can follow a change that is no matrix; then `_bent` says how.
      mixes: whether two examples' targets may stand side by side where their images are mixed
        (augmentation/mixing.py).
      stored: whether data sets have such targets; one that they do not has the same value for
        every picture, `default`, until the pixels are moved.
      fractions: whether a stored value is in fractions of the picture's sides, and has to be laid
        out in its pixels by `in_pixels`.
      prepared_by: the subcommand of tools.prepare_data that makes a set with such targets of the
        user's own pictures, with its options but for the name; '' if none does.
    """

    moves: ClassVar[bool] = False
    bends: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    stored: ClassVar[bool] = True
    fractions: ClassVar[bool] = False
    prepared_by: ClassVar[str] = ''

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

    def remedy(self, value: np.ndarray) -> str:
        """Returns what to do about a value that is not valid."""
        del value
        return 'prepare the data set again from sound files'

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
            f'{example(int(invalid[0]))} has {name} {fault}: {self.remedy(values[invalid[0]])}.'
        )

    def default(self, size: tuple[int, int]) -> np.ndarray:
        """Returns the value of a whole picture of (height, width); of a kind that is not stored."""
        raise NotImplementedError

    def taken(self, values: np.ndarray, kind: 'Kind') -> np.ndarray | None:
        """Returns values of another kind as of this one, [n, ...]; None if they cannot be."""
        return values if kind == self else None

    # --- where the pixels move ------------------------------------------------------------------

    def moved(self, value: Any, matrix: np.ndarray, shape: tuple[int, int]) -> Any:
        """Returns one example's value after a geometric change; on the host.

        Args:
          value: a number or NumPy's array, without the axis of examples.
          matrix: [2, 3], from places in the result to those before; see data_sources/geometry.py.
          shape: (height, width) of the result.
        """
        return self._moved(value, matrix, shape, np) if self.moves else value

    def moved_batch(self, values: Any, changes: Any, shape: tuple[int, int]) -> Any:
        """Returns a batch's values after geometric changes; in the compiled step.

        Args:
          values: JAX's, [batch, ...].
          changes: matrices [batch, 2, 3], as in `moved`; or places [batch, height, width, 2], the
            (y, x) in the image of each pixel of the result.
          shape: (height, width) of the results.
        """
        if not self.moves:
            return values
        import jax

        if changes.ndim == 4:
            return jax.vmap(lambda value, places: self._bent(value, places, jax.numpy))(
                values, changes
            )
        return jax.vmap(lambda value, matrix: self._moved(value, matrix, shape, jax.numpy))(
            values, changes
        )

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        """Returns one example's value after a change, by NumPy or JAX."""
        raise NotImplementedError

    def _bent(self, value: Any, places: Any, xp: ModuleType) -> Any:
        """Returns one example's value whose pixels were taken from places [height, width, 2]."""
        raise NotImplementedError

    # --- in a record of a tfds data set ---------------------------------------------------------

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature holds targets of this kind."""
        del feature
        return False

    def class_names(self, feature: Any) -> tuple[str, ...]:
        """Returns the names of the classes that an accepted tfds feature lists, if it does."""
        del feature
        return ()

    def read(self, name: str, features: Mapping[str, Any]) -> Any:
        """Returns one example's value.

        Args:
          name: of the target.
          features: {key: tf_feature_pb2.Feature} of a record. The target's key is its name, unless
            tfds stores such a feature in several.

        Raises:
          ValueError: they do not hold what the data set's description says.
        """
        return self.decoded(features[name])

    def decoded(self, feature: Any) -> Any:
        """Returns one example's value, of a kind that is stored in one feature.

        Args:
          feature: a tf_feature_pb2.Feature.

        Raises:
          ValueError: it does not hold what the data set's description says.
        """
        raise NotImplementedError

    def in_pixels(self, value: Any, size: tuple[int, int]) -> Any:
        """Returns a stored and checked value as it is in a picture of (height, width).

        Only of a kind whose stored values are fractions.
        """
        raise NotImplementedError

    def is_withheld(self, value: Any) -> bool:
        """Returns whether a decoded value says that the true one is kept secret."""
        del value
        return False


@dataclasses.dataclass(frozen=True)
class Label(Kind):
    """The number of a class, int32 [n], in 0 .. classes - 1."""

    mixes = True

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


class Numbers(Kind):
    """Finite numbers in a fixed shape: float32 [n, ...]."""

    def _shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's numbers."""
        raise NotImplementedError

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, float32 [examples, ...]."""
        del image_shape
        return np.zeros((examples, *self._shape()), np.float32)

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature is float32 of this shape; a single number may be []."""
        import tensorflow_datasets as tfds

        shapes = (self._shape(), ()) if self._shape() == (1,) else (self._shape(),)
        return (
            isinstance(feature, tfds.features.Tensor)
            and feature.np_dtype == np.float32
            and tuple(feature.shape) in shapes
        )

    def decoded(self, feature: Any) -> np.ndarray:
        """Returns one example's numbers, float32.

        Raises:
          ValueError: there are more or fewer.
        """
        return np.array(feature.float_list.value, np.float32).reshape(self._shape())


@dataclasses.dataclass(frozen=True)
class Vector(Numbers):
    """A few numbers that have no place in the image, such as an angle: float32 [n, size].

    Attributes:
      size: how many numbers an example has.
    """

    size: int

    def _shape(self) -> tuple[int, ...]:
        return (self.size,)


@dataclasses.dataclass(frozen=True)
class Points(Numbers):
    """Places (y, x) in the image: float32 [n, *count, 2]; (0, 0) is the centre of the first pixel.

    Attributes:
      count: how many there are in an image, by axes; () for one.
    """

    count: tuple[int, ...] = ()

    moves = True

    def _shape(self) -> tuple[int, ...]:
        return (*self.count, 2)

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        """They may come to lie outside the image."""
        del shape
        return geometry.moved_points(value, matrix, xp)


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
