"""Which examples of a source are for training, for validation and for test."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from errors import UserError
from preparation import folder_listing

ALL = ('train', 'validation', 'test')
NAMES = {
    'train': 'train',
    'training': 'train',
    'val': 'validation',
    'valid': 'validation',
    'validation': 'validation',
    'test': 'test',
    'testing': 'test',
}

Example = TypeVar('Example')


@dataclasses.dataclass(frozen=True)
class Fractions:
    """The fractions of the examples (of each class, if there are classes) taken out of train."""

    validation: float = 0.1
    test: float = 0.1


def folders(folder: Path) -> dict[str, Path]:
    """Returns split -> the folder in `folder` that is named after it.

    Raises:
      UserError: there are two for one split.
    """
    found = {}
    for name in folder_listing.folders(folder):
        if split := NAMES.get(name.lower()):
            if split in found:
                raise UserError(
                    f'{folder} has two folders for {split} ({found[split].name}, {name}): keep '
                    'only one.'
                )
            found[split] = folder / name
    return found


def check_train(folder: Path, found: Mapping[str, Path]) -> None:
    """Checks that folders of splits have one for train among them.

    Raises:
      UserError: they have not.
    """
    if 'train' not in found:
        raise UserError(
            f'{folder} has the folders {", ".join(path.name for path in found.values())} but no '
            'train: add a folder train with the training pictures.'
        )


def to_make(found: Mapping[str, Path]) -> tuple[str, ...]:
    """Returns the splits that are to be taken out of train: all but those with folders.

    None is where there is a validation folder: such a set without a test folder has no test split.
    """
    if 'validation' in found:
        return ()
    return tuple(split for split in ('validation', 'test') if split not in found)


def dealt(
    examples: Sequence[Example], key: Callable[[Example], bytes], fractions: Mapping[str, float]
) -> dict[str, list[Example]]:
    """Divides examples among the splits by the rank of a hash of their keys.

    Args:
      examples: more than there are splits in `fractions`, of distinct keys.
      key: gives what is hashed, such as a path within the source, so that a copy of the source
        gives the same splits.
      fractions: {split: fraction of the examples}. Each split gets its fraction, rounded, and at
        least one.

    Returns:
      {split: examples} for these splits and train, each in the order of the hashes.
    """
    left = sorted(examples, key=lambda example: hashlib.sha256(key(example)).digest())
    divided = {}
    for number, (split, fraction) in enumerate(fractions.items()):
        reserved = len(fractions) - number  # one for each later split and one for train
        count = min(max(1, round(len(examples) * fraction)), len(left) - reserved)
        divided[split], left = left[:count], left[count:]
    return {**divided, 'train': left}
