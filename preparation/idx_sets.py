"""What idx files do not say of themselves: where labels start, and how EMNIST stores pictures.

G. Cohen, S. Afshar, J. Tapson, A. van Schaik, "EMNIST: an extension of MNIST to handwritten
letters", 2017. Its pictures have rows and columns exchanged, and the labels of its letters are 1
(a) to 26 (z).
"""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from errors import UserError

Examples = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> (images, labels), as idx reads them

_BALANCED = string.digits + string.ascii_uppercase + 'abdefghnqrt'
_EMNIST = {  # the word in the names of the files -> the names of the classes
    'letters': string.ascii_lowercase,
    'digits': string.digits,
    'mnist': string.digits,
    'balanced': _BALANCED,
    'bymerge': _BALANCED,
    'byclass': string.digits + string.ascii_uppercase + string.ascii_lowercase,
}


def is_emnist(files: Mapping[str, tuple[Path, Path]]) -> bool:
    """Whether the files are called as EMNIST's are, whose pictures are stored transposed."""
    return all(images.name.lower().startswith('emnist') for images, _ in files.values())


def upright(examples: Examples) -> Examples:
    """Returns the examples with rows and columns of every picture exchanged."""
    return {
        split: (np.ascontiguousarray(images.transpose(0, 2, 1, 3)), labels)
        for split, (images, labels) in examples.items()
    }


def first_label(examples: Examples, names: Sequence[str] | None) -> int:
    """Returns 1 if the labels start at 1 and there is no name for a label 0; otherwise 0."""
    lowest = min(labels.min() for _, labels in examples.values())
    highest = max(labels.max() for _, labels in examples.values())
    return int(lowest == 1 and (names is None or len(names) == highest))


def class_names(
    examples: Examples, first: int, files: Mapping[str, tuple[Path, Path]]
) -> tuple[str, ...]:
    """Returns the names of EMNIST's classes, or the labels of train as text.

    Args:
      examples: as read; labels start at `first`.
      first: 0 or 1.
      files: split -> (images file, labels file).
    """
    highest = int(examples['train'][1].max())
    word = files['train'][0].name.lower().split('-')[1:2]
    known = _EMNIST.get(word[0], '') if is_emnist(files) and word else ''
    if len(known) == highest + 1 - first:
        return tuple(known)
    return tuple(str(label) for label in range(first, highest + 1))


def from_zero(
    examples: Examples,
    first: int,
    count: int,
    files: Mapping[str, tuple[Path, Path]],
    given: bool,
) -> Examples:
    """Returns the examples with labels from 0 to count - 1.

    Args:
      examples: as read; labels start at `first`.
      first: 0 or 1.
      count: the number of classes.
      files: split -> (images file, labels file), for the message.
      given: whether the classes are those of --class_names, for the message.

    Raises:
      UserError: a label has no class.
    """
    for split, (_, labels) in examples.items():
        if labels.max() - first >= count:
            raise UserError(
                f'{files[split][1]} has label {labels.max()} at position {labels.argmax()}, which '
                f'is out of range for the {count} classes of '
                + ('--class_names.' if given else 'the train labels.')
            )
    return {split: (images, labels - first) for split, (images, labels) in examples.items()}
