"""Some records of every split are read and decoded, before hours are spent on them."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from data_sources.arrays import ArraySource
from errors import UserError
from tools.preflight.findings import Finding

if TYPE_CHECKING:  # Grain takes half a second to import
    from data_sources.record_source import RecordSource

RECORDS = 100  # how many of each split are read


@dataclasses.dataclass(frozen=True)
class _Sample:
    """The records read of one split.

    Attributes:
      count: how many records were read.
      bad: (example, reason) of those that do not decode.
      sides: (height, width) of the others.
    """

    count: int
    bad: list[tuple[int, Exception]]
    sides: list[tuple[int, int]]


def check(splits: 'Mapping[str, ArraySource] | Mapping[str, RecordSource]', skip: bool) -> Finding:
    """Reads records of each split, from its first to its last, equally far apart.

    A set in memory has been read whole, and its targets and shapes were checked; what is left is
    whether its splits fit together. From a streamed set each sampled record is read, its targets
    are checked, and the whole picture is decoded.

    Args:
      splits: {name: open split}, 'train' first.
      skip: whether a run leaves out what does not decode (config.data.on_bad_record).

    Raises:
      UserError: the run would stop at a record, which is named; or splits have different shapes.
    """
    if isinstance(splits['train'], ArraySource):
        return _in_memory(splits)
    problems, samples = [], {}
    for name, split in splits.items():
        try:
            samples[name] = _sampled(split)
        except UserError as error:
            problems.append(str(error))
            continue
        problems += _problems(split, samples[name], skip)
    if problems:
        raise UserError(' '.join(problems))
    return _summary(splits, samples)


def _in_memory(splits: Mapping[str, ArraySource]) -> Finding:
    """Checks that the splits of a set in memory have images of one shape."""
    train = splits['train']
    for name, split in splits.items():
        if split.images.shape[1:] != train.images.shape[1:]:
            raise UserError(
                f'The images of the {name} split are {_sides(split)}, those of the train split '
                f'{_sides(train)}: prepare the data set again, from images of one size.'
            )
    counts = {name: split.size for name, split in splits.items()}
    return Finding(f'all {sum(counts.values()):,} are in memory: targets and shapes fit', counts)


def _sides(split: ArraySource) -> str:
    """Returns, for instance, '28x28x1'."""
    return 'x'.join(map(str, split.images.shape[1:]))


def _sampled(split: 'RecordSource') -> _Sample:
    """Reads and decodes some records of a split."""
    from data_sources import decoding

    examples = np.unique(np.linspace(0, split.size - 1, RECORDS).round().astype(int))
    sample = _Sample(len(examples), [], [])
    for example in examples:
        [record] = split.read([example])
        try:
            sample.sides.append(decoding.decode(record.image, split.upright).shape[:2])
        except decoding.DecodeError as error:
            sample.bad.append((int(example), error))
    return sample


def _problems(split: 'RecordSource', sample: _Sample, skip: bool) -> list[str]:
    """Returns why a run would stop at this sample: a sentence, or none."""
    if not sample.bad or (skip and sample.sides):
        return []
    if skip:
        return [
            f'Not one of {sample.count} {split.split} records that were sampled in {split.folder} '
            'decodes: prepare the data set again.'
        ]
    return [
        f'{len(sample.bad)} of {sample.count} {split.split} records that were sampled do not '
        f'decode. {split.unusable(*sample.bad[0])}'
    ]


def _summary(splits: 'Mapping[str, RecordSource]', samples: Mapping[str, _Sample]) -> Finding:
    """Returns what was read of all splits, and what a run will leave out."""
    counts = ', '.join(f'{samples[n].count:,} of {split.size:,} {n}' for n, split in splits.items())
    sides = [side for sample in samples.values() for both in sample.sides for side in both]
    bad = {name: len(sample.bad) for name, sample in samples.items()}
    text = f'{counts} read and decoded, {min(sides)} to {max(sides)} pixels a side'
    if sum(bad.values()):
        first = next(name for name, count in bad.items() if count)
        example, reason = samples[first].bad[0]
        text += (
            f'; {sum(bad.values())} do not decode and will be skipped, the first {first} record '
            f'{splits[first].stored_index(example)}: {reason}'
        )
    figures = {'sampled': {name: sample.count for name, sample in samples.items()}, 'bad': bad}
    return Finding(text, figures, note=sum(bad.values()) > 0)
