"""Kinds of target: what an example holds beside its image, and how it follows the pixels."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from data_sources import geometry


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of target. A task names its targets and their kinds; nothing else knows them.

    Class attributes:
      moves: whether it follows the pixels of its image; then it has its own `_moved`.
      mixes: whether two examples' values may stand side by side where their images are mixed
        (training/mixing.py).
    """

    moves: ClassVar[bool] = False
    mixes: ClassVar[bool] = False

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, as an array of this kind looks in the step."""
        raise NotImplementedError

    def moved(self, values: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Returns one example's values after a geometric change; on the host.

        Args:
          values: NumPy's, without the axis of examples.
          matrix: [2, 3], from places in the result to those before; see data_sources/geometry.py.
          shape: (height, width) of the result.
        """
        return self._moved(values, matrix, shape, np) if self.moves else values

    def moved_batch(self, values: Any, matrices: Any, shape: tuple[int, int]) -> Any:
        """Returns a batch's values after geometric changes; in the compiled step.

        Args:
          values: JAX's, [batch, ...].
          matrices: [batch, 2, 3], as in `moved`.
          shape: (height, width) of the results.
        """
        if not self.moves:
            return values
        import jax  # processes that decode pictures do without it

        return jax.vmap(lambda value, matrix: self._moved(value, matrix, shape, jax.numpy))(
            values, matrices
        )

    def _moved(self, values: Any, matrix: Any, shape: tuple[int, int], xp: Any) -> Any:
        """One example's values after a change, by NumPy or JAX."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Label(Kind):
    """The number of a class, int32 [n]. It is the same wherever the pixels go."""

    mixes = True

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, int32 [examples]."""
        del image_shape
        return np.zeros(examples, np.int32)


@dataclasses.dataclass(frozen=True)
class LabelMap(Kind):
    """The number of a class for each pixel, [n, height, width].

    Attributes:
      fill: the number of pixels that come from outside the image.
    """

    fill: int = 255

    moves = True

    def _moved(self, values: Any, matrix: Any, shape: tuple[int, int], xp: Any) -> Any:
        return geometry.moved_map(values, matrix, shape, self.fill, xp)


@dataclasses.dataclass(frozen=True)
class Points(Kind):
    """Places (y, x) in the image, float32 [n, ..., 2]; (0, 0) is the centre of the first pixel."""

    moves = True

    def _moved(self, values: Any, matrix: Any, shape: tuple[int, int], xp: Any) -> Any:
        del shape
        return geometry.moved_points(values, matrix, xp)


@dataclasses.dataclass(frozen=True)
class Boxes(Kind):
    """Boxes (y0, x0, y1, x1), float32 [n, ..., 4], in edges of pixels.

    The whole image is (0, 0, height, width). What comes to lie outside is cut off; a box that has
    left the image has no area.
    """

    moves = True

    def _moved(self, values: Any, matrix: Any, shape: tuple[int, int], xp: Any) -> Any:
        return geometry.moved_boxes(values, matrix, shape, xp)
