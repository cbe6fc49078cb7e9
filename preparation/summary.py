"""What a prepared set of pictures holds: the figures, and the sentences that say them.

The figures are read from the set once it is complete, so that they are the same however often its
preparation was interrupted. `FILE` keeps them beside the set.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

import files
from data_sources import decoding, orientation, picture_files
from preparation import box_summary, mask_summary, picture_check

FILE = 'summary.json'
_SAMPLE = 1000  # pictures of train from which mean and std are computed
_ENOUGH = 256  # pixels at the shorter side for them
_BLOCK = 1 << 20  # pixels
_GROUPS = 1000  # groups of copies that are listed
_ROWS = 20  # classes in a table
_THREADS = min(os.cpu_count() or 1, 16)
_TABLE = [('digest', 'u8'), ('label', 'i4'), ('width', 'i4'), ('height', 'i4')]


class _Look(NamedTuple):
    """What is seen of a stored picture without decoding it."""

    digest: int
    label: int
    width: int
    height: int
    form: str
    mode: str
    turned: bool


def of(folder: Path, advance: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
    """Returns the figures of the finished set in `folder`; reads all of it the first time.

    Args:
      folder: <data_dir>/<name>/<version> of a set with 'image', 'file_name', and 'label', masks or
        boxes.
      advance: called with (pictures, bytes) while it is read.

    Returns:
      what summary.json holds: 'splits' {split: pictures}, 'classes' {class: its pictures in each
      split} ({} without labels), 'masks' and 'boxes' (see mask_summary and box_summary; {} without
      them), 'formats' and 'modes' {name: pictures}, 'turned' (how many carry an EXIF rotation, or
      did before they were scaled),
      'sizes' [smallest, median, largest] by area, each [width, height]; 'copies', see `_copies`;
      'mean' and 'std' of pixels in [0, 1] by channel, of 'sampled' pictures of train.
    """
    stored = files.usable_json(folder / FILE, {'splits': dict, 'classes': dict, 'copies': dict})
    if stored is None:
        stored = _figures(folder, advance)
        # A set that cannot be written to any more is summarized anew each time.
        with contextlib.suppress(OSError):
            files.replace(folder / FILE, json.dumps(stored, indent=1).encode())
    return stored


def _figures(folder: Path, advance: Callable[[int, int], None]) -> dict[str, Any]:
    builder = tfds.builder_from_directory(folder)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    splits = {s: builder.as_data_source(s, deserialize_method=raw) for s in builder.info.splits}
    formats, modes, tables = Counter(), Counter(), {}
    kinds = (builder.info.metadata or {}).get('kinds', {}).values()
    turned = sum(of_split.get(picture_check.TURNED, 0) for of_split in kinds)
    masks = mask_summary.of_features(builder.info.features)
    boxes = box_summary.of_features(builder.info.features)
    targets = masks or boxes
    for split, records in splits.items():
        table = tables[split] = np.empty(len(records), _TABLE)
        numbers = range(len(records))
        looks = picture_check.in_order(lambda n, r=records: _look(r[n], targets), numbers, _THREADS)
        for row, (look, target, size) in enumerate(looks):
            table[row] = look[:4]
            if targets:
                targets.add(split, target)
            formats[look.form] += 1
            modes[look.mode] += 1
            turned += look.turned
            advance(1, size)
    features = builder.info.features
    names = features['label'].names if 'label' in features else ()
    counts = [np.bincount(table['label'], minlength=len(names)) for table in tables.values()]
    return {
        'splits': {split: len(records) for split, records in splits.items()},
        'classes': {n: [int(of[label]) for of in counts] for label, n in enumerate(names)},
        'masks': masks.figures() if masks else {},
        'boxes': boxes.figures() if boxes else {},
        'formats': dict(formats.most_common()),
        'modes': dict(modes.most_common()),
        'turned': turned,
        'sizes': _sizes(np.concatenate(list(tables.values()))),
        'copies': _copies(splits, tables, names),
        **_mean_and_std(splits.get('train', ())),
    }


def _features(serialized: bytes) -> Mapping[str, Any]:
    return tf_example_pb2.Example.FromString(serialized).features.feature


def _look(serialized: bytes, targets: Any) -> tuple[_Look, Any, int]:
    """Returns what is seen of a record's picture, of its mask or boxes, and its size."""
    features = _features(serialized)
    image, label = features['image'].bytes_list.value[0], _label(features)
    digest = int.from_bytes(hashlib.sha256(image).digest()[:8])
    with picture_files.opened(image) as picture:
        turned = orientation.may_be_turned(image, 0) and orientation.of(picture) != 1
        look = _Look(digest, label, *picture.size, picture.format, picture.mode, turned)
    return look, targets.look(features) if targets else None, len(serialized)


def _label(features: Mapping[str, Any]) -> int:
    """Returns the label of an example; 0 without one."""
    return features['label'].int64_list.value[0] if 'label' in features else 0


def _sizes(table: np.ndarray) -> list[list[int]]:
    """Returns [width, height] of the smallest, the median and the largest picture, by area."""
    order = np.lexsort((table['width'], table['width'].astype(np.int64) * table['height']))
    chosen = table[order[[0, len(order) // 2, -1]]]
    return [[int(row['width']), int(row['height'])] for row in chosen]


def _copies(
    splits: Mapping[str, Sequence[bytes]], tables: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """Finds pictures that are stored more than once, byte for byte.

    Returns:
      'pictures': how many there are, not counting how often; 'across_splits' and 'across_classes':
      how many of them are in several; 'groups': the first of them, each a list of [split, class,
      file]; those across splits come first, then those across classes.
    """
    digests = np.concatenate([table['digest'] for table in tables.values()])
    _, picture, times = np.unique(digests, return_inverse=True, return_counts=True)
    where = np.concatenate([np.arange(len(table)) for table in tables.values()])
    split = np.repeat(list(tables), [len(table) for table in tables.values()])
    groups = defaultdict(list)
    for number in np.flatnonzero(times[picture] > 1):
        features = _features(splits[split[number]][where[number]])
        file = features['file_name'].bytes_list.value[0].decode('utf-8', 'replace')
        name = names[_label(features)] if names else ''
        groups[picture[number]].append([str(split[number]), name, file])
    found = [
        (
            len({member[0] for member in group}) == 1,
            len({member[1] for member in group}) == 1,
            group,
        )
        for group in groups.values()
    ]
    return {
        'pictures': len(found),
        'across_splits': sum(not one_split for one_split, _, _ in found),
        'across_classes': sum(not one_class for _, one_class, _ in found),
        'groups': [group for _, _, group in sorted(found)[:_GROUPS]],
    }


def _mean_and_std(records: Sequence[bytes]) -> dict[str, Any]:
    """Returns mean and std of a sample of the records, in which every picture counts the same."""
    count = min(len(records), _SAMPLE)
    sample = (number * len(records) // count for number in range(count))
    found = picture_check.in_order(lambda n: shares(_pixels(records[n])), sample, _THREADS)
    mean, std = mean_and_std(sum(found, np.zeros((3, 256))) / max(count, 1))
    return {'mean': mean, 'std': std, 'sampled': count}


def _pixels(serialized: bytes) -> np.ndarray:
    """Returns a picture of a record, uint8 [height, width, 3], at a size like that of training."""
    encoded = _features(serialized)['image'].bytes_list.value[0]
    frame = decoding.read_frame(encoded)
    side = min(frame.height, frame.width)
    shrink = next(n for n in (8, 4, 2, 1) if side >= n * _ENOUGH or n == 1)
    size = (frame.height // shrink * shrink, frame.width // shrink * shrink)
    return decoding.decode_box(encoded, frame, decoding.Box(0, 0, *size), shrink)


def shares(pixels: np.ndarray) -> np.ndarray:
    """Returns how often each value occurs in uint8 [..., channels]: float64 [channels, 256]."""
    channels = np.moveaxis(pixels, -1, 0).reshape(pixels.shape[-1], -1)
    counts = np.zeros((len(channels), 256))
    for channel, values in zip(counts, channels, strict=True):
        for start in range(0, len(values), _BLOCK):  # it makes 8 bytes of each value
            channel += np.bincount(values[start : start + _BLOCK], minlength=256)
    return counts / channels.shape[1]


def mean_and_std(found: np.ndarray) -> tuple[list[float], list[float]]:
    """Returns mean and std by channel of pixels in [0, 1] from the `shares` of their values."""
    values = np.arange(256) / 255
    mean = found @ values
    std = np.sqrt(np.maximum(found @ values**2 - mean**2, 0))
    return mean.round(4).tolist(), std.round(4).tolist()


def text(figures: Mapping[str, Any], folder: Path) -> str:
    """Returns the figures of `of` as lines for a terminal; the folder is named in them."""
    small, median, large = ('x'.join(map(str, size)) for size in figures['sizes'])
    splits = tuple(figures['splits'])
    lines = [
        classes(figures['classes'], splits) if figures['classes'] else '',
        mask_summary.text(figures['masks'], splits) if figures.get('masks') else '',
        box_summary.text(figures['boxes'], splits) if figures.get('boxes') else '',
        f'Formats: {_listed(figures["formats"])}. Modes: {_listed(figures["modes"])}.',
        f'Sizes, width x height: {small} to {large}, the median is {median}.',
        f'Pictures with a rotation or mirroring in their EXIF data: {figures["turned"]:,}.',
        *_about_copies(figures['copies'], folder),
        normalization(figures['mean'], figures['std'], figures['sampled']),
    ]
    return '\n'.join(filter(None, lines))


def classes(counts: Mapping[str, Sequence[int]], splits: Sequence[str]) -> str:
    """Returns the counts {class: its examples in each split} as a table, or in short if many."""
    if len(counts) == 1:
        return (
            f'warning: there is a single class, "{next(iter(counts))}": a classifier has nothing '
            'to tell apart. Is --source the folder that holds the class folders?'
        )
    if len(counts) <= _ROWS:
        rows = [('class', *splits), *((n, *(f'{c:,}' for c in of)) for n, of in counts.items())]
        table = files.columns(rows)
    else:
        lines = [f'{len(counts):,} classes. Examples of a class:']
        for column, split in enumerate(splits):
            ranked = sorted((of[column], name) for name, of in counts.items())
            (low, least), (high, most) = ranked[0], ranked[-1]
            median = ranked[len(ranked) // 2][0]
            lines.append(f'{split}: {low:,} ({least}) to {high:,} ({most}), median {median:,}')
        table = '\n  '.join(lines)
    empty = [name for name, of in counts.items() if not sum(of)]
    if empty:
        more = ', ...' * (len(empty) > 3)
        number = f'{len(empty):,} of {len(counts):,} classes'
        table += f'\nwarning: no examples of {number}: {", ".join(empty[:3])}{more}.'
    return table


def _listed(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count:,} {name}' for name, count in counts.items())


def _about_copies(copies: Mapping[str, Any], folder: Path) -> list[str]:
    lines = [f'Pictures that are there more than once, byte for byte: {copies["pictures"]:,}.']
    if copies['across_splits']:
        lines.append(
            f'warning: {copies["across_splits"]:,} of these in more than one split: evaluation '
            'sees what was trained on. Keep one copy of each.'
        )
    if copies['across_classes']:
        lines.append(
            f'warning: {copies["across_classes"]:,} of these in more than one class: keep the copy '
            'in the right one.'
        )
    if copies['pictures']:
        first = ' = '.join(f'{split}: {file}' for split, _, file in copies['groups'][0][:3])
        lines.append(f'  For example {first}. The list is in {folder / FILE}.')
    return lines


def normalization(mean: Sequence[float], std: Sequence[float], sampled: int) -> str:
    """Returns the options that normalize with a mean and a std of `sampled` training pictures."""
    if not sampled:
        return ''
    if not min(std):
        return 'warning: all training pictures have one and the same color.'
    values = ' '.join(
        f"--config.data.{name}='({', '.join(f'{v:.4f}' for v in value)}{',' * (len(value) == 1)})'"
        for name, value in (('mean', mean), ('std', std))
    )
    return (
        f'Mean and std of {sampled:,} training pictures, for training from new weights (converted '
        f'weights have their own):\n  {values}'
    )
