"""Reads pictures and masks in folders, as `mask_listing` finds them: a `mask_sets.MaskSource`.

They are divided as the folders train, val and test say, or a list (`split_list`), or a hash of the
stems.
"""

import collections
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_sources.picture_files import SUFFIXES
from errors import UserError
from preparation import folder_listing, mask_files, mask_listing, split_list, splits
from preparation.mask_files import MaskFaultError
from preparation.mask_listing import Entry
from preparation.mask_sets import Drawn, Pair

OVERLAPPING = 'with overlapping masks'
EMPTY = 'with masks of no object'
_NAMED = 3  # masks that are named in a sentence


class MaskFolder:
    """A `mask_sets.MaskSource` of the pictures and masks in a folder.

    Args:
      folder: the source.
      name: the name of the data set.
      instances: whether masks are of objects; otherwise they are of classes.
      class_names: see MaskSource.
      listed: a file that says which picture is in which split, or None.

    Attributes:
      made: the splits that are taken out of train.
      left_out: kind -> how many files are no pictures, and left out.
      system: kind -> how many files of systems and programs are ignored.
      unlisted: how many pictures the file of splits leaves out.

    Raises:
      UserError: the folder, or the list of splits, is not of the form that is expected; or there
        are too few pictures to divide.
    """

    version = '1.0.0'
    homepage = ''
    citation = ''

    def __init__(
        self,
        folder: Path,
        name: str,
        instances: bool = False,
        class_names: tuple[str, ...] | None = None,
        listed: Path | None = None,
    ):
        if not folder.is_dir():
            raise UserError(f'{folder} is not a folder: --source must be one, with pictures.')
        if instances and class_names:
            raise UserError(
                'An instance map says which object a pixel belongs to, and nothing of classes: '
                'leave out --class_names, or --instances.'
            )
        self._folder = folder
        self.name = name
        self.instances = instances
        self.class_names = class_names
        self.description = f'{name}, prepared from a folder of pictures and masks.'
        self.made: tuple[str, ...] = ()
        self.unlisted = 0
        self.left_out, self.system = collections.Counter(), collections.Counter()
        self._entries = self._divided(_roots(folder), listed)
        self._scan()

    def identity(self) -> dict[str, Any]:
        """Returns what defines the set: paths and sizes of the files of each split."""
        return {'files': self._identity}

    def stamp(self) -> Any:
        """Returns a hash that changes with the modification time of any file."""
        return self._stamp

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
        size = sum(folder_listing.size_and_time(path)[0] for path in (entry.path, *entry.masks))
        masks = [(path, self._named(path)) for path in entry.masks]
        draw = functools.partial(_objects if entry.objects else _map, masks)
        return Pair(file, name, cursor, size, picture, draw, fault)

    def _named(self, path: Path) -> str:
        return folder_listing.printable(str(path.relative_to(self._folder)))

    def _divided(self, roots: dict[str, Path], listed: Path | None) -> dict[str, list[Entry]]:
        """Returns {split: entries}, in the order in which they are written."""
        found = {}
        for split, root in roots.items():
            found[split], ignored = mask_listing.find(root, self.instances)
            self.system.update(ignored)
        for entry in (entry for entries in found.values() for entry in entries):
            if not entry.defective:
                self.left_out[folder_listing.kind_of(entry.path.name)] += 1
        if listed is None:
            self.made = splits.to_make(roots)
            return self._dealt(found)
        if len(roots) > 1 or roots['train'] != self._folder:
            raise UserError(
                f'{self._folder} has folders for the splits, so that --splits has nothing to say: '
                'leave it out, or give a --source whose pictures are in one folder.'
            )
        return self._as_listed(found['train'], listed)

    def _dealt(self, found: dict[str, list[Entry]]) -> dict[str, list[Entry]]:
        """Takes the splits that are to be made out of train, by a hash of the stems."""
        if not self.made:
            return found
        sound = [entry for entry in found['train'] if not entry.fault]
        if len(sound) <= len(self.made):
            defects = [entry for entry in found['train'] if entry.fault and entry.defective]
            first = [f' {self._named(entry.path)} {entry.fault}.' for entry in defects[:1]]
            raise UserError(
                f'{self._folder} has {len(sound)} pictures with masks for train: at least '
                f'{len(self.made) + 1} are needed to give each of train, {", ".join(self.made)} '
                f'one.{"".join(first)}'
            )
        fractions = {split: getattr(splits.Fractions(), split) for split in self.made}
        divided = splits.dealt(sound, lambda entry: os.fsencode(entry.stem), fractions)
        divided['train'] += [entry for entry in found['train'] if entry.fault]
        divided = {**found, **divided}
        return {
            split: sorted(divided[split], key=lambda entry: (entry.stem, entry.path))
            for split in splits.ALL
            if split in divided
        }

    def _as_listed(self, entries: list[Entry], path: Path) -> dict[str, list[Entry]]:
        """Divides the entries as a file says."""
        wanted = split_list.read(path)
        stems = [entry.stem for entry in entries if not entry.fault]
        if wanted.keys().isdisjoint(stems):
            first = f', such as {stems[0]}' if stems else ''
            raise UserError(
                f'{path} lists none of the {len(stems):,} pictures with masks in '
                f'{self._folder}{first}; it lists {next(iter(wanted))}.'
            )
        divided = {split: [] for split in splits.ALL if split in wanted.values()}
        missing = wanted.keys() - {entry.stem for entry in entries}
        for stem in sorted(missing):
            fault = f'is in {path.name}, but there is no such picture'
            divided[wanted[stem]].append(Entry(stem, self._folder / stem, fault=fault))
        for entry in entries:
            split = wanted.get(entry.stem, 'train')
            if entry.stem not in wanted and entry.defective:
                self.unlisted += not entry.fault
                fault = f'is not in {path.name}'
                entry = Entry(entry.stem, entry.path, fault=fault, defective=False)
            divided[split].append(entry)
        return divided

    def _scan(self) -> None:
        """Reads the sizes and times of all files once, and hashes them."""
        identity, stamp = hashlib.sha256(), hashlib.sha256()
        self.splits: dict[str, int] = {}
        for split, entries in self._entries.items():
            total = 0
            for entry in entries:
                for path in (entry.path, *entry.masks):
                    size, changed = folder_listing.size_and_time(path)
                    text = f'{split}\0{path.relative_to(self._folder)}\0{size}\0{entry.fault}\0'
                    identity.update(os.fsencode(text))
                    stamp.update(os.fsencode(f'{text}{changed}\0'))
                    total += size
            self.splits[split] = total
        self._identity, self._stamp = identity.hexdigest(), stamp.hexdigest()

    def about_left_out(self) -> list[str]:
        """Returns sentences that say what was left out and why, with counts by kind."""
        sentences = []
        if self.unlisted:
            sentences.append(
                f'Left out: {self.unlisted:,} pictures that the list of splits does not have. They '
                'are listed in rejected.jsonl.'
            )
        if left_out := folder_listing.counted(self.left_out):
            sentences.append(f'Left out: {left_out}. They are listed in rejected.jsonl.')
        if system := folder_listing.counted(self.system):
            sentences.append(f'Ignored, because systems and programs have left them: {system}.')
        return sentences


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
