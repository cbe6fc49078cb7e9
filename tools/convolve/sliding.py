"""A window that slides over numbers: a convolution or a pooling, and each of its windows."""

import dataclasses
from typing import Literal

import numpy as np

from errors import UserError
from models import arithmetic
from tools.convolve.filters import Filter

POOLED = {'max': 'maximum', 'average': 'mean'}


@dataclasses.dataclass(frozen=True)
class Sliding:
    """What a window gives at each of its places; made by `convolution` or `pooling`.

    Attributes:
      kind: what is done with the numbers in a window.
      what: what the window slides over, such as "the textbook's picture".
      padded: float64 [h + 2P, w + 2P], the numbers and the zeros around them.
      side, stride, padding: F, S and P of models/arithmetic.py; the window has F x F numbers.
      result: float64 [h', w'], one number for each place.
      filter: of a convolution.
    """

    kind: Literal['convolution', 'max', 'average']
    what: str
    padded: np.ndarray
    side: int
    stride: int
    padding: int
    result: np.ndarray
    filter: Filter | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the window slides over, without padding."""
        height, width = self.padded.shape
        return height - 2 * self.padding, width - 2 * self.padding

    @property
    def pooled(self) -> str:
        """What pooling takes of each window: 'maximum' or 'mean'; '' for a convolution."""
        return POOLED.get(self.kind, '')

    @property
    def left_over(self) -> tuple[int, int]:
        """The rows at the bottom and the columns on the right that no window reaches."""
        height, width = (n - self.side for n in self.padded.shape)
        return height % self.stride, width % self.stride

    def count_places(self, count: int) -> str:
        """Returns how many places `count` numbers have: '(5 + 2 x 0 - 3) / 1 + 1 = 3'."""
        arguments = self.side, self.stride, self.padding
        places = arithmetic.output_size(count, *arguments, 'floor')
        exact = (count + 2 * self.padding - self.side) / self.stride + 1
        rounded = '' if exact == places else f'{exact:.4g}, rounded down to '
        total = f'({count} + 2 x {self.padding} - {self.side}) / {self.stride} + 1'
        return f'{total} = {rounded}{places}'

    @property
    def is_picture_like(self) -> bool:
        """Whether a convolution keeps some of the brightness, so that its map looks like a picture.

        Filters that find edges do not: their weights add up to 0.
        """
        return self.filter is not None and float(self.filter.numbers.sum()) > 0

    def patch(self, row: int, column: int) -> np.ndarray:
        """Returns the numbers in the window that gives result[row, column]: float64 [F, F]."""
        top, left = row * self.stride, column * self.stride
        return self.padded[top : top + self.side, left : left + self.side]

    def products(self, row: int, column: int) -> np.ndarray:
        """Returns the products of a window with a filter's numbers: float64 [F, F]."""
        return self.patch(row, column) * self.filter.numbers


def strongest(values: np.ndarray) -> tuple[int, int]:
    """Returns (row, column) of the first of the numbers that are farthest from 0."""
    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    return int(row), int(column)


def convolution(
    values: np.ndarray, filter: Filter, stride: int, padding: int, what: str = 'the picture'
) -> Sliding:
    """Slides a filter over numbers. It is not flipped, as in deep learning.

    Args:
      values: float64 [h, w].
      filter: F x F numbers.
      stride, padding: S, and P zeros on each of the four sides.
      what: what the numbers are.

    Raises:
      UserError: the filter does not fit even once, or the padding is as wide as the filter.
    """
    if padding >= filter.side:
        raise UserError(
            f'--padding={padding} is too much for a filter of {filter.side}x{filter.side}: it '
            f'would see nothing but zeros. At most {filter.side - 1} makes sense.'
        )
    values = np.asarray(values, float)
    padded = np.pad(values, padding)
    _check_fits(values.shape, filter.side, stride, padding, f'the filter {filter.name}')
    windows = _windows(padded, filter.side, stride)
    result = np.einsum('yxij,ij->yx', windows, filter.numbers) / filter.divisor
    return Sliding('convolution', what, padded, filter.side, stride, padding, result, filter)


def pooling(
    values: np.ndarray, kind: Literal['max', 'average'], side: int, stride: int, what: str
) -> Sliding:
    """Takes the maximum or the mean of each window of side x side numbers.

    Args:
      values: float64 [h, w].
      kind: 'max' or 'average'.
      side, stride: F and S.
      what: what the numbers are.

    Raises:
      UserError: the window does not fit even once.
    """
    values = np.asarray(values, float)
    _check_fits(values.shape, side, stride, 0, f'{kind} pooling')
    windows = _windows(values, side, stride)
    result = windows.max((2, 3)) if kind == 'max' else windows.mean((2, 3))
    return Sliding(kind, what, values, side, stride, 0, result)


def _check_fits(shape: tuple[int, ...], side: int, stride: int, padding: int, where: str) -> None:
    """Checks that the window fits; a border that the stride does not reach is dropped.

    Raises:
      UserError: the window does not fit even once; shows the arithmetic.
    """
    for size in shape:
        arithmetic.output_size(size, side, stride, padding, 'floor', where)


def _windows(padded: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Returns every window: [h', w', F, F]."""
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side))[::stride, ::stride]
