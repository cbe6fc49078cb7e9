"""What the masks of a prepared set hold: pixels of each class, or objects of each picture."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import files
from data_sources.label_maps import InstanceMap, LabelMap

_ROWS = 20  # classes in a table


class Classes:
    """Counts the pixels of each class, split by split.

    Args:
      feature: the tfds feature of the label maps.
    """

    def __init__(self, feature: Any):
        self._names = feature.names
        self._pixels = collections.defaultdict(lambda: np.zeros(256, np.int64))
        self._pictures = collections.defaultdict(lambda: np.zeros(256, np.int64))

    def look(self, features: Mapping[str, Any]) -> np.ndarray:
        """Returns the pixels of each number in one example, int64 [256]; called in threads."""
        values = LabelMap().read('segmentation_mask', features)
        return np.bincount(values.ravel(), minlength=256)

    def add(self, split: str, pixels: np.ndarray) -> None:
        """Counts one example."""
        self._pixels[split] += pixels
        self._pictures[split] += pixels > 0

    def figures(self) -> dict[str, Any]:
        """Returns 'pixels' and 'pictures', {class: its number in each split}, and 'void'.

        'void' has the pixels of 255 in each split.
        """
        return {
            'pixels': _by_class(self._names, self._pixels.values()),
            'pictures': _by_class(self._names, self._pictures.values()),
            'void': [int(of[LabelMap().fill]) for of in self._pixels.values()],
        }


class Objects:
    """Counts the objects of each picture, and their pixels."""

    def __init__(self):
        self._objects = collections.defaultdict(list)
        self._areas: list[np.ndarray] = []
        self._pixels = 0

    def look(self, features: Mapping[str, Any]) -> np.ndarray:
        """Returns the pixels of background and of each object of one example, int64."""
        values = InstanceMap().read('instance_map', features)
        areas = np.bincount(values.ravel())
        return np.concatenate([areas[:1], areas[1:][areas[1:] > 0]])

    def add(self, split: str, areas: np.ndarray) -> None:
        """Counts one example."""
        self._objects[split].append(len(areas) - 1)
        self._areas.append(areas[1:].astype(np.int32))
        self._pixels += int(areas.sum())

    def figures(self) -> dict[str, Any]:
        """Returns 'objects', and what they cover.

        'objects' {split: how many}; 'in_a_picture' and 'areas' [smallest, median, largest], of the
        objects of a picture and the pixels of an object; 'without' pictures without objects;
        'covered', the fraction of the pixels that is in objects.
        """
        counts = np.sort(np.concatenate([[], *self._objects.values()])).astype(np.int64)
        areas = np.sort(np.concatenate([np.zeros(0, np.int32), *self._areas]))
        return {
            'objects': {split: sum(of) for split, of in self._objects.items()},
            'in_a_picture': _range(counts),
            'without': int((counts == 0).sum()),
            'areas': _range(areas),
            'covered': round(float(areas.sum(dtype=np.int64) / max(self._pixels, 1)), 4),
        }


def of_features(features: Mapping[str, Any]) -> Classes | Objects | None:
    """Returns what counts the masks of a set with these tfds features; None if it has none."""
    if 'segmentation_mask' in features:
        return Classes(features['segmentation_mask'])
    return Objects() if 'instance_map' in features else None


def text(masks: Mapping[str, Any], splits: Sequence[str]) -> str:
    """Returns the figures of `Classes` or `Objects` as lines for a terminal."""
    return _about_classes(masks, splits) if 'pixels' in masks else _about_objects(masks)


def _by_class(names: Sequence[str], counts: Any) -> dict[str, list[int]]:
    return {name: [int(of[number]) for of in counts] for number, name in enumerate(names)}


def _range(ordered: np.ndarray) -> list[int]:
    """Returns the smallest, the median and the largest of sorted numbers; [] of none."""
    return [int(ordered[n]) for n in (0, len(ordered) // 2, -1)] if len(ordered) else []


def _about_classes(masks: Mapping[str, Any], splits: Sequence[str]) -> str:
    totals = np.sum(list(masks['pixels'].values()), axis=0)
    shares = {name: np.divide(of, np.maximum(totals, 1)) for name, of in masks['pixels'].items()}
    if len(shares) <= _ROWS:
        rows = [('class', *splits)]
        for name, of in shares.items():
            cells = zip(of, masks['pictures'][name], strict=True)
            rows.append((name, *(f'{share:.2%} ({pictures:,})' for share, pictures in cells)))
        lines = [
            "A class's share of the pixels, and the pictures that have it:",
            files.columns(rows),
        ]
    else:
        lines = [f'{len(shares):,} classes. Shares of the pixels:']
        for column, split in enumerate(splits):
            ranked = sorted((of[column], name) for name, of in shares.items())
            (low, least), (high, most) = ranked[0], ranked[-1]
            lines.append(f'  {split}: {low:.3%} ({least}) to {high:.1%} ({most})')
    void = sum(masks['void'])
    if void:
        lines.append(f'Pixels whose class is not known (255): {void / (void + totals.sum()):.2%}.')
    empty = [name for name, of in masks['pixels'].items() if not sum(of)]
    if empty:
        more = ', ...' * (len(empty) > 3)
        number = f'{len(empty):,} of {len(shares):,} classes'
        lines.append(f'warning: no pixels of {number}: {", ".join(empty[:3])}{more}.')
    return '\n'.join(lines)


def _about_objects(masks: Mapping[str, Any]) -> str:
    counted = ', '.join(f'{count:,} {split}' for split, count in masks['objects'].items())
    if not masks['areas']:
        return f'Objects: {counted}.\nwarning: no mask has an object.'
    least, median, most = (f'{count:,}' for count in masks['in_a_picture'])
    small, middle, large = (f'{area:,}' for area in masks['areas'])
    lines = [
        f'Objects: {counted}. In a picture: {least} to {most}, the median is {median}.',
        f'Pixels of an object: {small} to {large}, the median is {middle}. Objects cover '
        f'{masks["covered"]:.1%} of the pixels.',
    ]
    if masks['without']:
        lines.append(f'Pictures without objects: {masks["without"]:,}.')
    if masks['in_a_picture'][-1] == 1:
        lines.append(
            'warning: no picture has more than one object. An instance map has a number of its own '
            'for each object, so that neighbours can be told apart.'
        )
    return '\n'.join(lines)
