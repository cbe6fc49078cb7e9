"""Parts of a split: a sample of it, or a few examples of each class."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from data_sources import draws
from data_sources.arrays import ArraySource
from data_sources.targets import Label
from errors import UserError

if TYPE_CHECKING:  # Grain takes half a second to import
    from data_sources.record_source import RecordSource


def sample(source: 'ArraySource | RecordSource', count: int) -> 'ArraySource | RecordSource':
    """Returns `count` examples of a split, spread over its classes; all if there are no more.

    A smoke run is evaluated on them: the pictures of ImageNet's validation split alone would take a
    small machine an hour.
    """
    if source.size <= count:
        return source
    if isinstance(source, ArraySource):
        return source.take(np.sort(draws.permutation(source.size, 0, 'sample')[:count]))
    # A part of a stored split is a part of a permutation of it.
    return dataclasses.replace(source, size=count)


def few_per_class(source: ArraySource, count: int, seed: int) -> ArraySource:
    """Returns `count` examples of each class, drawn by the seed, in the order of the data set.

    They are drawn by the seed, so that a mean over seeds is one over choices of examples as well.
    For the same seed a smaller choice is part of a larger one.

    Raises:
      UserError: a class has fewer, or the examples have no classes.
    """
    classes = [name for name, kind in source.kinds.items() if isinstance(kind, Label)]
    if not classes:
        raise UserError(
            'config.data.train_per_class counts examples by their class, and the targets of '
            f'config.task ({", ".join(source.kinds)}) are no classes: leave '
            'config.data.train_per_class out.'
        )
    labels = source.targets[classes[0]]
    sizes = np.bincount(labels, minlength=len(source.class_names))
    if sizes.min() < count:
        raise UserError(
            f'config.data.train_per_class={count}, but {source.name} has only {sizes.min()} '
            f'training examples of class {source.class_names[sizes.argmin()]}.'
        )
    order = draws.permutation(source.size, seed, 'few_per_class')
    parts = [order[labels[order] == label][:count] for label in range(len(sizes))]
    return source.take(np.sort(np.concatenate(parts)))
