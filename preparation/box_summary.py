"""What the boxes of a prepared set hold: those of each class and picture, and their sizes."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import files
from data_sources import picture_files

SMALL, LARGE = 32, 96  # pixels of a side: between them COCO calls an object of medium size
_ROWS = 20  # classes in a table


class _Seen(NamedTuple):
    """The boxes of a picture: their classes, areas in pixels, and how many are special."""

    labels: np.ndarray
    areas: np.ndarray
    crowds: int
    difficult: int


class Boxes:
    """Counts the boxes of each class and picture, split by split.

    Args:
      names: of the classes.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._boxes = collections.defaultdict(lambda: np.zeros(len(names), np.int64))
        self._pictures = collections.defaultdict(lambda: np.zeros(len(names), np.int64))
        self._counts: list[int] = []
        self._areas: list[np.ndarray] = []
        self._crowds = self._difficult = 0

    def look(self, features: Mapping[str, Any]) -> _Seen:
        """Returns what is seen of one example; called in threads."""
        fractions = np.array(features['objects/bbox'].float_list.value, np.float64).reshape(-1, 4)
        with picture_files.opened(features['image'].bytes_list.value[0]) as picture:
            pixels = picture.width * picture.height  # the same when it is turned upright
        areas = (fractions[:, 2:] - fractions[:, :2]).prod(axis=1) * pixels
        flags = (sum(features[f'objects/{f}'].int64_list.value) for f in ('is_crowd', 'difficult'))
        labels = np.array(features['objects/label'].int64_list.value, np.int64)
        return _Seen(labels, areas, *flags)

    def add(self, split: str, seen: _Seen) -> None:
        """Counts one example."""
        counts = np.bincount(seen.labels, minlength=len(self._names))
        self._boxes[split] += counts
        self._pictures[split] += counts > 0
        self._counts.append(len(seen.labels))
        self._areas.append(seen.areas)
        self._crowds += seen.crowds
        self._difficult += seen.difficult

    def figures(self) -> dict[str, Any]:
        """Returns what the boxes are.

        'boxes' and 'pictures' {class: its number in each split}; 'in_a_picture' [fewest, median,
        most]; 'without' pictures without boxes; 'sides' [smallest, median, largest], the square
        roots of areas in pixels; 'small', 'medium' and 'large', as COCO tells them apart;
        'crowds' and 'difficult'.
        """
        counts, areas = np.sort(self._counts), np.sort(np.concatenate(self._areas or [[]]))
        small, large = (int(np.searchsorted(areas, side**2)) for side in (SMALL, LARGE))
        return {
            'boxes': _by_class(self._names, self._boxes.values()),
            'pictures': _by_class(self._names, self._pictures.values()),
            'in_a_picture': [int(n) for n in _range(counts)],
            'without': int((counts == 0).sum()),
            'sides': [round(float(n) ** 0.5, 1) for n in _range(areas)],
            'small': small,
            'medium': large - small,
            'large': len(areas) - large,
            'crowds': self._crowds,
            'difficult': self._difficult,
        }


def of_features(features: Mapping[str, Any]) -> Boxes | None:
    """Returns what counts the boxes of a set with these tfds features; None if it has none."""
    if 'objects' not in features:
        return None
    return Boxes(features['objects'].feature['label'].names)


def text(boxes: Mapping[str, Any], splits: Sequence[str]) -> str:
    """Returns the figures of `Boxes` as lines for a terminal."""
    if not boxes['sides']:
        return 'warning: no picture has a box.'
    fewest, median, most = (f'{count:,}' for count in boxes['in_a_picture'])
    smallest, middle, largest = (f'{side:,}' for side in boxes['sides'])
    special = [(boxes['crowds'], 'around several objects'), (boxes['difficult'], 'difficult')]
    lines = [
        _table(boxes, splits),
        f'Boxes in a picture: {fewest} to {most}, the median is {median}. Pictures without boxes: '
        f'{boxes["without"]:,}.',
        f'Square root of the area of a box, in pixels: {smallest} to {largest}, the median is '
        f'{middle}. Below {SMALL}: {boxes["small"]:,}, to {LARGE}: {boxes["medium"]:,}, from there '
        f'on: {boxes["large"]:,}.',
        *(f'Boxes {what}: {count:,}.' for count, what in special if count),
    ]
    return '\n'.join(lines)


def _table(boxes: Mapping[str, Any], splits: Sequence[str]) -> str:
    """Returns how many boxes each class has, and how many pictures have them."""
    classes = boxes['boxes']
    if len(classes) <= _ROWS:
        rows = [('class', *splits)]
        for name, of in classes.items():
            cells = zip(of, boxes['pictures'][name], strict=True)
            rows.append((name, *(f'{count:,} ({pictures:,})' for count, pictures in cells)))
        lines = ['Boxes of a class, and the pictures that have it:', files.columns(rows)]
    else:
        lines = [f'{len(classes):,} classes. Boxes of a class:']
        for column, split in enumerate(splits):
            ranked = sorted((of[column], name) for name, of in classes.items())
            (low, least), (high, most) = ranked[0], ranked[-1]
            lines.append(f'  {split}: {low:,} ({least}) to {high:,} ({most})')
    empty = [name for name, of in classes.items() if not sum(of)]
    if empty:
        more = ', ...' * (len(empty) > 3)
        number = f'{len(empty):,} of {len(classes):,} classes'
        lines.append(f'warning: no boxes of {number}: {", ".join(empty[:3])}{more}.')
    return '\n'.join(lines)


def _by_class(names: Sequence[str], counts: Any) -> dict[str, list[int]]:
    return {name: [int(of[number]) for of in counts] for number, name in enumerate(names)}


def _range(ordered: np.ndarray) -> np.ndarray:
    """Returns the smallest, the median and the largest of sorted numbers; none of none."""
    return ordered[[0, len(ordered) // 2, -1]] if len(ordered) else ordered
