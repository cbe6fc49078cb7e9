"""The trained numbers of a network, layer by layer, and what can be said of them without data."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from files import columns
from models.trace import Layer

NEAR_ZERO = (
    0.01  # of the root mean square; 0.8 % of the numbers of a normal distribution are nearer
)
ORDER = ('kernel', 'scale', 'bias', 'mean', 'var')  # of a layer's arrays
HEAD = (
    'array', 'shape', 'mean', 'std', 'min', 'max', 'near zero', 'filters', 'norm: min', 'median',
    'max',
)  # fmt: skip
NOTE = (
    'near zero: smaller than a hundredth of the root mean square; of a normal distribution\n'
    '0.8 % are. norm: the root of the sum of squares of the weights of a filter or unit.'
)


def of_layer(variables: Mapping[str, Any], layer: Layer) -> dict[str, np.ndarray]:
    """Returns the arrays of a layer by name, such as 'kernel', 'bias', 'scale', 'mean' and 'var'.

    Those of the running statistics of a norm layer are among them. Empty for a layer without any.
    """
    found = {}
    for collection in ('params', 'batch_stats'):
        tree = variables.get(collection, {})
        for part in layer.name.split('/'):
            tree = tree.get(part, {})
        for path, array in flatten_dict(tree).items():
            found['/'.join(path)] = np.asarray(array, np.float32)
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: str) -> tuple[int, str]:
    """Returns what arrays are sorted by: those with a name of ORDER as there, then the others."""
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def kernels(
    variables: Mapping[str, Any], layers: Sequence[Layer]
) -> list[tuple[Layer, np.ndarray]]:
    """Returns the layers that have a kernel, each once, with it: [..., in, out]."""
    found = {}
    for layer in layers:
        kernel = of_layer(variables, layer).get('kernel')
        if kernel is not None and kernel.ndim > 1:
            found[layer.name] = layer, kernel
    return [*found.values()]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of one array. Those of the numbers are of the finite ones.

    Attributes:
      name: its path, such as 'conv1/kernel'.
      shape: its shape.
      mean, std, smallest, largest: of its numbers; NaN where none is finite.
      near_zero: the fraction of numbers that are smaller than NEAR_ZERO of the root mean square.
      norms: the norm of each filter, or of the weights of each unit, float64 [filters]; None for an
        array that has one number for each channel.
      not_finite: how many numbers are infinite or NaN.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float
    smallest: float
    largest: float
    near_zero: float
    norms: np.ndarray | None
    not_finite: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape))

    @property
    def zero_filters(self) -> np.ndarray:
        """The numbers of the filters whose weights are all 0."""
        return np.flatnonzero(self.norms == 0) if self.norms is not None else np.zeros(0, int)

    def cells(self) -> tuple[str, ...]:
        """Returns its row of the table."""
        shape = 'x'.join(map(str, self.shape)) or '1'
        figures = (self.mean, self.std, self.smallest, self.largest)
        row = (self.name, shape, *(f'{x:.4f}' for x in figures), f'{100 * self.near_zero:.1f} %')
        if self.norms is None:
            return (*row, '', '', '', '')
        norms = (self.norms.min(), np.median(self.norms), self.norms.max())
        return (*row, str(len(self.norms)), *(f'{x:.4f}' for x in norms))


def statistics(variables: Mapping[str, Any], layers: Sequence[Layer]) -> list[Statistics]:
    """Returns the statistics of all arrays of some layers, in the layers' order."""
    return [
        of_array(name, array)
        for layer_name, arrays in _by_layer(variables, layers)
        for name, array in ((f'{layer_name}/{leaf}', array) for leaf, array in arrays.items())
    ]


def _by_layer(
    variables: Mapping[str, Any], layers: Sequence[Layer]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yields (name, arrays) of each layer once, also where it is called several times."""
    for name, layer in {layer.name: layer for layer in layers}.items():
        yield name, of_layer(variables, layer)


def of_array(name: str, array: np.ndarray) -> Statistics:
    """Returns the statistics of one array; a kernel has its filters along the last axis."""
    numbers = finite(array)
    not_finite = array.size - numbers.size
    if not numbers.size:
        numbers = np.full(1, np.nan, np.float32)
    # In float64 without a copy of the array in it: those of a VGG have a hundred million numbers.
    mean = numbers.mean(dtype=np.float64)
    square = np.einsum('i,i->', numbers, numbers, dtype=np.float64) / numbers.size
    norms = None
    if array.ndim > 1:
        rows = array.reshape(-1, array.shape[-1])
        norms = np.sqrt(np.einsum('if,if->f', rows, rows, dtype=np.float64))
    return Statistics(
        name,
        array.shape,
        mean=float(mean),
        std=float(np.sqrt(np.maximum(square - mean**2, 0))),
        smallest=float(numbers.min()),
        largest=float(numbers.max()),
        near_zero=float((np.abs(numbers) <= NEAR_ZERO * np.sqrt(square)).mean()),
        norms=norms,
        not_finite=not_finite,
    )


def finite(array: np.ndarray) -> np.ndarray:
    """Returns the numbers of an array that are finite, [n]; it is no copy if all are."""
    is_finite = np.isfinite(array)
    return array.reshape(-1) if is_finite.all() else array[is_finite]


def largest(array: np.ndarray) -> float:
    """Returns the largest absolute value that is finite; 1 if there is none but zeros."""
    numbers = finite(array)
    return float(max(numbers.max(initial=0), -numbers.min(initial=0))) or 1.0


def table(rows: Sequence[Statistics]) -> str:
    """Returns the statistics as text, an array in a line."""
    return f'{columns([HEAD, *(row.cells() for row in rows)], 2)}\n\n{NOTE}\n'


def summary(rows: Sequence[Statistics]) -> str:
    """Returns what is worth knowing in a few sentences: sizes, zeros, what is not finite."""
    total = sum(row.size for row in rows)
    near = sum(row.near_zero * row.size for row in rows) / max(total, 1)
    sentences = [f'{total:,} numbers in {len(rows)} arrays, {100 * near:.1f} % of them near zero.']
    zeros = [row for row in rows if row.zero_filters.size]
    count = sum(len(row.norms) for row in rows if row.norms is not None)
    if zeros:
        listed = ', '.join(f'{row.name} {_listed(row.zero_filters)}' for row in zeros)
        sentences.append(f'Filters whose weights are all zero: {listed}.')
    else:
        sentences.append(f'None of the {count:,} filters and units has only zeros as weights.')
    if broken := [row for row in rows if row.not_finite]:
        listed = ', '.join(f'{row.not_finite:,} in {row.name}' for row in broken)
        sentences.append(f'NOT FINITE: {listed}.')
    return ' '.join(sentences)


def _listed(numbers: Sequence[int], most: int = 10) -> str:
    """Returns numbers as text; of many the first ones, and how many there are."""
    if len(numbers) <= most:
        return ', '.join(map(str, numbers))
    return f'{", ".join(map(str, numbers[:most]))}, ... ({len(numbers)} in all)'
