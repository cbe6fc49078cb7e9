"""Some records of every split, read and decoded before hours are spent on them."""

import dataclasses
from typing import Any

import numpy as np

from data_sources.arrays import ArraySource
from errors import UserError
from tools.preflight.findings import Finding

RECORDS = 100  # of each split


@dataclasses.dataclass(frozen=True)
class _Read:
    """The sample of one split.

    Attributes:
      count: records that were read.
      bad: (example, why) of those that do not decode.
      sides: (height, width) of the others.
    """

    count: int
    bad: list[tuple[int, Exception]]
    sides: list[tuple[int, int]]


def check(splits: dict[str, Any], skip: bool) -> Finding:
    """Reads records of each split, from its first to its last, equally far apart.

    A set in memory is already read, whole: its labels and shapes were checked, and what is left is
    whether its splits fit together. Of a streamed one each record is read, its label checked, and
    the whole picture decoded.

    Args:
      splits: {name: open split}, 'train' first.
      skip: whether a run leaves out what does not decode (config.data.on_bad_record).

    Raises:
      UserError: a record that the run would stop at, by name; or splits of different shapes.
    """
    if isinstance(splits['train'], ArraySource):
        return _in_memory(splits)
    problems, found = [], {}
    for name, split in splits.items():
        try:
            found[name] = _read(split)
        except UserError as error:
            problems.append(str(error))
            continue
        problems += _problem(split, found[name], skip)
    if problems:
        raise UserError(' '.join(problems))
    return _summary(splits, found)


def _in_memory(splits: dict[str, ArraySource]) -> Finding:
    train = splits['train']
    for name, split in splits.items():
        if split.images.shape[1:] != train.images.shape[1:]:
            raise UserError(
                f'The images of the {name} split are {_sides(split)}, those of the train split '
                f'{_sides(train)}: prepare the data set again, from images of one size.'
            )
    counts = {name: split.size for name, split in splits.items()}
    return Finding(f'all {sum(counts.values()):,} are in memory: labels and shapes fit', counts)


def _sides(split: ArraySource) -> str:
    return 'x'.join(map(str, split.images.shape[1:]))


def _read(split) -> _Read:
    from data_sources import decoding

    chosen = np.unique(np.linspace(0, split.size - 1, RECORDS).round().astype(int))
    read = _Read(len(chosen), [], [])
    for example in chosen:
        [record] = split.read([example])
        try:
            read.sides.append(decoding.decode(record.image).shape[:2])
        except decoding.DecodeError as error:
            read.bad.append((int(example), error))
    return read


def _problem(split, read: _Read, skip: bool) -> list[str]:
    """Why a run would stop at this sample: a sentence, or none."""
    if not read.bad or (skip and read.sides):
        return []
    if skip:
        return [
            f'Not one of {read.count} {split.split} records that were sampled in {split.folder} '
            'decodes: prepare the data set again.'
        ]
    return [
        f'{len(read.bad)} of {read.count} {split.split} records that were sampled do not decode. '
        + split.unusable(*read.bad[0])
    ]


def _summary(splits: dict[str, Any], found: dict[str, _Read]) -> Finding:
    read = ', '.join(f'{found[n].count:,} of {split.size:,} {n}' for n, split in splits.items())
    sides = [side for one in found.values() for both in one.sides for side in both]
    bad = {name: len(one.bad) for name, one in found.items()}
    text = f'{read} read and decoded, {min(sides)} to {max(sides)} pixels a side'
    if sum(bad.values()):
        first = next(name for name, count in bad.items() if count)
        example, reason = found[first].bad[0]
        text += (
            f'; {sum(bad.values())} do not decode and will be skipped, the first {first} record '
            f'{splits[first].place(example)}: {reason}'
        )
    figures = {'sampled': {n: one.count for n, one in found.items()}, 'bad': bad}
    return Finding(text, figures, note=sum(bad.values()) > 0)
