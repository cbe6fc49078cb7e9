"""Filters by name, or as rows of numbers on the command line."""

import dataclasses
import re

import numpy as np

from errors import UserError, did_you_mean, shortened
from tools.convolve.limits import MOST_SIDE

LARGEST = 1000  # of a weight: products of larger ones do not fit into a cell
_NUMBER = r'[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)'
_EXAMPLE = '"1,0,1;0,1,0;1,0,1"'


@dataclasses.dataclass(frozen=True)
class Filter:
    """A square filter of one channel.

    Attributes:
      name: what to call it.
      numbers: float64 [F, F], as they are written: weights times the divisor.
      divisor: the sum of the products is divided by it, so that the numbers can be whole.
      named: whether it is one of NAMED.
    """

    name: str
    numbers: np.ndarray
    divisor: int = 1
    named: bool = False

    @property
    def side(self) -> int:
        """F, the number of rows and columns."""
        return len(self.numbers)

    @property
    def weights(self) -> np.ndarray:
        """float64 [F, F], as a layer of a network has them."""
        return self.numbers / self.divisor


# name: rows, divisor, what it does. Sobel and Feldman 1968; the others are usual small masks, see
# Gonzalez and Woods, "Digital image processing", chapter 3.
NAMED = {
    'cross': ('1,0,1;0,1,0;1,0,1', 1, 'counts the ones on a diagonal cross'),
    'sobel': (
        '-1,0,1;-2,0,2;-1,0,1',
        1,
        'vertical edges, positive where it gets brighter to the right',
    ),
    'sobel_y': (
        '-1,-2,-1;0,0,0;1,2,1',
        1,
        'horizontal edges, positive where it gets brighter downwards',
    ),
    'laplacian': (
        '0,1,0;1,-4,1;0,1,0',
        1,
        'what differs from its neighbors: edges of all directions',
    ),
    'blur': ('1,1,1;1,1,1;1,1,1', 9, 'mean of the neighborhood'),
    'gaussian': ('1,2,1;2,4,2;1,2,1', 16, 'weighted mean: a softer blur'),
    'sharpen': ('0,-1,0;-1,5,-1;0,-1,0', 1, 'picture minus laplacian: stronger edges'),
    'emboss': ('-2,-1,0;-1,1,1;0,1,2', 1, 'light from the upper left, as on a relief'),
    'identity': ('0,0,0;0,1,0;0,0,0', 1, 'the picture itself'),
}


def named(name: str) -> Filter:
    """Returns the filter of a name in NAMED."""
    rows, divisor, _ = NAMED[name]
    return Filter(name, _numbers(rows), divisor, named=True)


def parse(texts: list[str]) -> list[Filter]:
    """Returns the filters of --filter=TEXT: each text is a name, or rows of numbers.

    Raises:
      UserError: there is no such name, a number is none or too large, or the rows are no square
        with an odd side.
    """
    own = sum(text not in NAMED for text in texts)
    names = iter([f'own {number}' for number in range(1, own + 1)] if own > 1 else ['own'])
    return [named(text) if text in NAMED else Filter(next(names), _parsed(text)) for text in texts]


def _parsed(text: str) -> np.ndarray:
    """Parses a filter that has no name."""
    if not re.search('[0-9,;]', text):
        hint = did_you_mean(text, NAMED)
        raise UserError(
            f'--filter={shortened(text)}: there is no filter of that name; there are '
            f'{", ".join(NAMED)}, and rows of numbers such as {_EXAMPLE}.{hint}'
        )
    return _numbers(text)


def _numbers(text: str) -> np.ndarray:
    """Parses 'a,b,c;d,e,f;g,h,i' into float64 [3, 3]."""
    shown = f'--filter={shortened(text, 60)}'
    rows = [[cell.strip() for cell in row.split(',')] for row in text.split(';')]
    for cell in (cell for row in rows for cell in row):
        if not re.fullmatch(_NUMBER, cell) or abs(float(cell)) > LARGEST:
            raise UserError(
                f'{shown}: "{shortened(cell, 40)}" is not a number from -{LARGEST} to {LARGEST}; '
                f'write the rows as in {_EXAMPLE}.'
            )
    side = len(rows)
    for number, row in enumerate(rows, start=1):
        if len(row) != side:
            raise UserError(
                f'{shown} is not square: it has {_count(side, "row")}, but row {number} has '
                f'{_count(len(row), "number")}.'
            )
    if side % 2 == 0 or side > MOST_SIDE:
        raise UserError(
            f'{shown} has {side} rows and columns; an odd number up to {MOST_SIDE} is needed, so '
            'that the filter has a center and can be read.'
        )
    return np.array([[float(cell) for cell in row] for row in rows])


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + 's' * (number != 1)
