"""Reads pictures and masks in folders, as `mask_listing` finds them: a `mask_sets.MaskSource`.

They are divided as the folders train, val and test say, or a list (`split_list`), or a hash of the
stems.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_sources.picture_files import SUFFIXES
from errors import UserError
from preparation import folder_listing, mask_files, mask_listing, split_list, splits
from preparation.folder_source import FolderSource
from preparation.mask_files import MaskFaultError
from preparation.mask_listing import Entry
from preparation.mask_sets import Drawn, Pair

OVERLAPPING = 'with overlapping masks'
EMPTY = 'with masks of no object'
_NAMED = 3  # masks that are named in a sentence


class MaskFolder(FolderSource):
    """A `mask_sets.MaskSource` of the pictures and masks in a folder.

    Args:
      folder: the source.
      name: the name of the data set.
      instances: whether masks are of objects; otherwise they are of classes.
      class_names: see MaskSource.
      listed: a file that says which picture is in which split, or None.

    Raises:
      UserError: the folder, or the list of splits, is not of the form that is expected; or there
        are too few pictures to divide.
    """

    _what = 'pictures with masks'

    def __init__(
        self,
        folder: Path,
        name: str,
        instances: bool = False,
        class_names: tuple[str, ...] | None = None,
        listed: Path | None = None,
    ):
        super().__init__(folder, name)
        if instances and class_names:
            raise UserError(
                'An instance map says which object a pixel belongs to, and nothing of classes: '
                'leave out --class_names, or --instances.'
            )
        self.instances = instances
        self.class_names = class_names
        self.description = f'{name}, prepared from a folder of pictures and masks.'
        roots, found = _roots(folder), {}
        for split, root in roots.items():
            found[split], ignored = mask_listing.find(root, instances)
            self.system.update(ignored)
        wanted = None if listed is None else split_list.read(listed)
        self._divide(found, wanted, str(listed), roots['train'] != folder)

    def pairs(self, split: str, cursor: Any) -> Iterator[Pair]:
        """Yields the pairs by stem; a cursor is how many entries of the split were done."""
        entries = self._entries[split]
        for number in range(cursor or 0, len(entries)):
            yield self._pair(entries[number], number + 1)

    def _pair(self, entry: Entry, cursor: int) -> Pair:
        file = self._named(entry.path)
        suffix = entry.path.suffix
        name = entry.stem + suffix * (suffix.lower() in SUFFIXES)
        if entry.fault:
            return Pair(file, name, cursor, 0, fault=entry.fault, defective=entry.defective)
        picture, fault = folder_listing.contents(entry.path)
        size = sum(folder_listing.size_and_time(path)[0] for path in (entry.path, *entry.beside))
        masks = [(path, self._named(path)) for path in entry.beside]
        draw = functools.partial(_objects if entry.objects else _map, masks)
        return Pair(file, name, cursor, size, picture, draw, fault)


def _roots(folder: Path) -> dict[str, Path]:
    """Returns split -> the folder that holds its pictures and masks.

    Raises:
      UserError: there are folders of splits without train, or others beside them.
    """
    names = folder_listing.folders(folder)
    found = splits.folders(folder)
    if not found or any(name.lower() == mask_listing.IMAGES for name in names):
        return {'train': folder}
    splits.check_train(folder, found)
    others = [name for name in names if name.lower() not in splits.NAMES]
    if others:
        raise UserError(
            f'{folder} has folders for the splits ({", ".join(p.name for p in found.values())}) '
            f'and other folders ({", ".join(others[:3])}): move the others elsewhere.'
        )
    return {split: found[split] for split in splits.ALL if split in found}


def _map(masks: list[tuple[Path, str]]) -> Drawn:
    """Returns the mask that a label map or instance map is."""
    [(path, file)] = masks
    return Drawn(mask_files.numbers(_contents(path, file), file), file)


def _contents(path: Path, file: str) -> bytes:
    data, fault = folder_listing.contents(path)
    if data is None:
        raise MaskFaultError(file, fault)
    return data


def _objects(masks: list[tuple[Path, str]]) -> Drawn:
    """Returns the instance map of masks of one object each: the k-th file is object k.

    Where masks overlap, the earlier one keeps the pixels.
    """
    result, overlapping, empty, pixels = None, [], [], 0
    for number, (path, file) in enumerate(masks, 1):
        covered = mask_files.covered(_contents(path, file), file)
        if result is None:
            result = np.zeros(covered.shape, np.int32)
        if covered.shape != result.shape:
            sizes = [f'{shape[1]}x{shape[0]}' for shape in (covered.shape, result.shape)]
            raise MaskFaultError(file, f'has {sizes[0]} pixels, and {masks[0][1]} {sizes[1]}')
        if not covered.any():
            empty.append(path.name)
        shared = int((covered & (result > 0)).sum())
        if shared:
            overlapping.append(path.name)
            pixels += shared
        result[covered & (result == 0)] = number
    notes, kinds = (), ()
    if overlapping:
        notes += (
            f'{pixels} pixels of {_some(overlapping)} belong to earlier masks too, which keep them',
        )
        kinds += (OVERLAPPING,)
    if empty:
        notes += (f'no object is in {_some(empty)}',)
        kinds += (EMPTY,)
    return Drawn(result, notes=notes, kinds=kinds)


def _some(names: list[str]) -> str:
    """Returns the first of some names, and how many more there are."""
    more = f' and {len(names) - _NAMED} more' * (len(names) > _NAMED)
    return f'{", ".join(names[:_NAMED])}{more}'
