"""What is printed: the numbers, the arithmetic of sizes, windows with their sums, the map."""

from collections.abc import Iterable

import numpy as np

from files import columns
from models import arithmetic
from tools.convolve.filters import NAMED, Filter
from tools.convolve.sliding import Sliding, strongest

MOST_COLUMNS = 16  # of a table of numbers; more are wider than a terminal


def number(value: float) -> str:
    """Returns a number as it is written everywhere: whole, or rounded to about three digits."""
    value = round(float(value), 9) + 0.0  # what is left of decimals that cancel is 0, and so is -0
    if value == round(value):
        return f'{value:.0f}'
    return f'{value:.2f}'.rstrip('0').rstrip('.') if abs(value) >= 1 else f'{value:.3g}'


def table(values: np.ndarray, indent: str = '  ') -> str:
    """Returns numbers [h, w] as aligned columns."""
    rows = [[number(value) for value in row] for row in values]
    return '\n'.join(indent + line for line in columns(rows, 0).splitlines())


def size(shape: Iterable[int]) -> str:
    """Returns a size as '5x5'."""
    return 'x'.join(map(str, shape))


def of_filter(chosen: Filter) -> str:
    """Returns a filter's name, what it does, and its numbers."""
    what = f': {NAMED[chosen.name][2]}' if chosen.named else ''
    divided = f'; the sum is divided by {chosen.divisor}' if chosen.divisor != 1 else ''
    return f'The filter {chosen.name}{what}{divided}\n{table(chosen.numbers)}'


def of_sizes(sliding: Sliding) -> str:
    """Returns the arithmetic of sizes, and what it leaves over."""
    height, width = sliding.size
    counts = {'rows': height, 'columns': width} if height != width else {'rows, columns': height}
    lines = [
        'Size of the result: (N + 2P - F) / S + 1 for N numbers, padding P, window F, stride S'
    ]
    lines += [f'  {name}: {sliding.count_places(count)}' for name, count in counts.items()]
    below, right = sliding.left_over
    if below or right:
        lost = [
            f'{count} {what}{"s" * (count != 1)} {where}'
            for count, what, where in (
                (below, 'row', 'at the bottom'),
                (right, 'column', 'on the right'),
            )
            if count
        ]
        padded = ' of the padded picture' if sliding.padding else ''
        fitting = ' or '.join(map(str, _fitting(sliding)))
        lines.append(
            f'  Left over, as in the networks here: {" and ".join(lost)}{padded}.\n'
            f'  Stride {fitting} leaves nothing over.'
        )
    return '\n'.join(lines)


def _fitting(sliding: Sliding) -> list[int]:
    """Returns the strides, up to four and near the chosen one, that leave nothing over."""
    height, width = sliding.size
    arguments = sliding.side, sliding.padding
    both = set(arithmetic.fitting_strides(height, *arguments))
    # A single place fits with any stride, for which the arithmetic names 1 alone.
    if width + 2 * sliding.padding > sliding.side:
        other = set(arithmetic.fitting_strides(width, *arguments))
        both = both & other if height + 2 * sliding.padding > sliding.side else other
    return sorted(sorted(both, key=lambda stride: abs(stride - sliding.stride))[:4])


def of_window(sliding: Sliding, row: int, column: int) -> str:
    """Returns one window: each product and the sum, or the numbers that are pooled."""
    width = sliding.result.shape[1]
    head = (
        f'Window {row * width + column + 1:,} of {sliding.result.size:,}: row {row + 1}, column '
        f'{column + 1} of the result'
    )
    result = number(sliding.result[row, column])
    if sliding.kind == 'max':
        return f'{head}\n{table(sliding.patch(row, column))}\n  maximum = {result}'
    if sliding.kind == 'average':
        patch = sliding.patch(row, column)
        mean = f'sum {number(patch.sum())} / {patch.size} = {result}'
        return f'{head}\n{table(patch)}\n  {mean}'
    return f'{head}\n{_products(sliding, row, column)}'


def _products(sliding: Sliding, row: int, column: int) -> str:
    patch, products = sliding.patch(row, column), sliding.products(row, column)
    numbers = sliding.filter.numbers
    lines = []
    for values, weights, sums in zip(patch, numbers, products, strict=True):
        terms = [
            f'{number(value)} x {_signed(weight)}'
            for value, weight in zip(values, weights, strict=True)
        ]
        cells = [f'{"+ " * (place > 0)}{term}' for place, term in enumerate(terms)]
        lines.append([*cells, f'= {number(sums.sum())}'])
    rows = [f'  {line}' for line in columns(lines, len(lines[0])).splitlines()]
    total = f'= {number(products.sum())}'
    if sliding.filter.divisor != 1:
        total += f' / {sliding.filter.divisor} = {number(sliding.result[row, column])}'
    start = max(line.rindex('= ') for line in rows)
    return '\n'.join([*rows, f'{"sum ".rjust(start)}{total}'])


def _signed(weight: float) -> str:
    return f'({number(weight)})' if weight < 0 else number(weight)


def of_result(sliding: Sliding, whole: bool) -> str:
    """Returns the result: every number if it is small or `whole`, else its extremes."""
    name = 'The feature map' if sliding.filter else f'{sliding.pooled.capitalize()} of each window'
    name += f', {size(sliding.result.shape)}'
    if whole or max(sliding.result.shape) <= MOST_COLUMNS:
        return f'{name}\n{table(sliding.result)}'
    low, high = number(sliding.result.min()), number(sliding.result.max())
    row, column = strongest(sliding.result)
    return (
        f'{name}: from {low} to {high}, farthest from 0 in row {row + 1}, column '
        f'{column + 1}. --all prints every number.'
    )
