"""Reads pictures in class folders, with or without folders for the splits.

    SOURCE/cat/1.jpg SOURCE/dog/2.png ...                       split here, by a hash of the path
    SOURCE/train/cat/1.jpg SOURCE/val/cat/2.jpg ... [test/]     split as it is

Without a validation folder, validation (and test, unless it has a folder) is taken out of train. A
set with a validation folder but no test folder has no test split.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_sources.picture_files import SUFFIXES
from errors import UserError, did_you_mean
from preparation import folder_listing, splits
from preparation.folder_listing import Found
from preparation.picture_sets import Picture
from preparation.splits import Fractions


class ImageFolder:
    """A `picture_sets.PictureSource` of the pictures in class folders.

    A class folder may contain folders of any depth. Links are followed; a folder that can be
    reached in several ways is read once. A file without a suffix is taken if it is a picture.

    Args:
      folder: the source.
      name: the name of the data set.
      fractions: how much to take out of train for the splits that the source lacks.

    Attributes:
      made: the splits that are taken out of train.
      counts: split -> the number of pictures.
      absent: split -> the classes without pictures in it.
      loose: up to three pictures outside class folders; such pictures are left out.
      left_out: kind -> how many files in class folders are left out.
      misnamed: suffix -> how many of these are pictures by their contents.
      outside: kind -> how many files outside class folders are left out.
      system: kind -> how many files and folders of systems and programs are left out.
      unnamed: how many files without a suffix are pictures, and taken.

    Raises:
      UserError: the folder does not exist or has no class folders; a class has no pictures, or too
        few to split; another split has a class that train lacks; all classes are in the folder of
        a single one.
    """

    version = '1.0.0'
    upright = True
    homepage = ''
    citation = ''

    def __init__(self, folder: Path, name: str, fractions: Fractions | None = None):
        if not folder.is_dir():
            raise UserError(f'{folder} is not a folder: --source must be a folder with pictures.')
        self._folder = folder
        self.name = name
        self.description = f'{name}, prepared from a folder of pictures.'
        self._roots = _find_splits(folder)
        self.made = _splits_to_make(self._roots, fractions)
        fractions = fractions or Fractions()
        self._fractions = {split: getattr(fractions, split) for split in self.made}
        if sum(self._fractions.values()) >= 1:
            raise UserError(
                '--val_fraction and --test_fraction leave no pictures for training: their sum must '
                'be below 1.'
            )
        self.made = tuple(split for split in self.made if self._fractions[split] > 0)
        self.class_names = tuple(folder_listing.folders(self._roots['train']))
        self._check_classes()
        outside = dict.fromkeys([folder, *self._roots.values()])
        found = [entry for root in outside for entry in folder_listing.outside(root)]
        loose = [str(entry.path) for entry in found if not entry.fault][:3]
        self.loose = [folder_listing.printable(path) for path in loose]
        self.outside = Counter(entry.kind for entry in found if not entry.ignored)
        self.system = Counter(entry.kind for entry in found if entry.ignored)
        self.left_out, self.misnamed, self.unnamed = Counter(), Counter(), 0
        self._scan()

    def identity(self) -> dict[str, Any]:
        """Returns what defines the set: paths and sizes of the files, classes, and fractions."""
        return {
            'files': self._identity,
            'classes': list(self.class_names),
            'taken_from_train': {split: self._fractions[split] for split in self.made},
        }

    def stamp(self) -> Any:
        """Returns a hash that changes with the modification time of any file."""
        return self._stamp

    def pictures(self, split: str, cursor: Any) -> Iterator[Picture]:
        """Yields the pictures class by class, sorted by path; a cursor is [class, next file]."""
        first_class, first_file = cursor or (0, 0)
        for label in range(first_class, len(self.class_names)):
            skip = first_file if label == first_class else 0
            files = self._files(split, label)
            files = [found for found in files if not found.path.name.startswith('.')]
            for number, found in enumerate(files):
                if number >= skip:
                    yield self._read(found.path, found.fault, label, [label, number + 1])

    def _read(self, path: Path, fault: str, label: int, cursor: list[int]) -> Picture:
        file = str(path.relative_to(self._folder))
        name = str(path.relative_to(self._root_of(path)))
        if fault:
            return Picture(file, name, label, cursor, 0, None, fault, defective=False)
        data, fault = folder_listing.contents(path)
        return Picture(file, name, label, cursor, len(data or b''), data, fault)

    def _root_of(self, path: Path) -> Path:
        return next(root for root in self._roots.values() if path.is_relative_to(root))

    def _files(self, split: str, label: int) -> list[Found]:
        """Returns the files of one class in one split, sorted."""
        stored = split if split in self._roots else 'train'
        files = folder_listing.files_below(self._roots[stored] / self.class_names[label])
        if stored == 'train' and self.made:
            return self._deal(files, self.class_names[label])[split]
        return files

    def _deal(self, files: list[Found], class_name: str) -> dict[str, list[Found]]:
        """Divides the pictures of a class among the splits by the rank of a hash of their paths.

        The paths are relative, so that a copy of the source gives the same splits. Each split gets
        its fraction, rounded, and at least one picture.
        """
        root = self._roots['train']
        pictures = [found for found in files if not found.fault]
        if len(pictures) <= len(self.made):
            others = folder_listing.counted(Counter(found.kind for found in files if found.fault))
            raise UserError(
                f'Class "{class_name}" in {root} has {len(pictures)} pictures: at least '
                f'{len(self.made) + 1} are needed to give each of train, {", ".join(self.made)} '
                'one. Add pictures, leave the class out, or split the pictures yourself into '
                'folders train and val (and test) that contain the class folders.'
                + f' Its other files are no pictures that are read here: {others}.'
                * bool(others)
            )
        divided = splits.dealt(
            pictures,
            lambda found: os.fsencode(found.path.relative_to(root).as_posix()),
            {split: self._fractions[split] for split in self.made},
        )
        divided['train'] += [found for found in files if found.fault]
        return {split: sorted(entries) for split, entries in divided.items()}

    def about_left_out(self) -> list[str]:
        """Returns sentences that say what was left out and why, with counts by kind."""
        sentences = (
            ('Left out: {}. They are listed in rejected.jsonl.', self.left_out),
            (
                'warning: some of these are pictures, but not named like pictures ({}): give them '
                'a suffix such as .jpg to have them taken.',
                self.misnamed,
            ),
            ('Left out, because they are outside the class folders: {}.', self.outside),
            ('Ignored, because systems and programs have left them: {}.', self.system),
            (
                'Taken by their contents: {}.',
                Counter({f'pictures {folder_listing.NO_SUFFIX}': self.unnamed}),
            ),
        )
        texts = ((sentence, folder_listing.counted(counts)) for sentence, counts in sentences)
        return [sentence.format(counts) for sentence, counts in texts if counts]

    def _count(self, files: list[Found]) -> None:
        """Counts what is left out."""
        for found in files:
            if found.ignored:
                self.system[found.kind] += 1
            elif found.fault:
                self.left_out[found.kind] += 1
                self.misnamed[found.kind] += found.fault == folder_listing.MISNAMED
            else:
                self.unnamed += found.kind not in SUFFIXES

    def _check_classes(self) -> None:
        train = self._roots['train']
        if not self.class_names:
            raise UserError(
                f'{train} has no class folders: put the pictures into folders named after their '
                'class, such as cat/1.jpg.'
            )
        _check_level(self._folder, train, self.class_names)
        for name in self.class_names:
            if name != name.strip() or not name.isprintable():
                raise UserError(
                    f'{train} has a class folder with an unusual name ({name!r}): rename it.'
                )
        for root in self._roots.values():
            for name in folder_listing.folders(root):
                if name not in self.class_names:
                    raise UserError(
                        f'{root} has a class "{name}" that {train} does not have.'
                        + did_you_mean(name, self.class_names)
                    )

    def _scan(self) -> None:
        """Reads the sizes and times of all files once, class by class, and hashes them."""
        identity, stamp = hashlib.sha256(), hashlib.sha256()
        self.splits: Mapping[str, int] = {}
        self.counts: dict[str, int] = {}
        self.absent: dict[str, list[str]] = {}
        for split in (*self._roots, *self.made):
            sizes, absent = [0, 0], []
            for label, name in enumerate(self.class_names):
                files = self._files(split, label)
                pictures = [found.path for found in files if not found.fault]
                self._count(files)
                if not pictures:
                    absent.append(name)
                for path in pictures:
                    size, changed = folder_listing.size_and_time(path)
                    entry = f'{path.relative_to(self._folder)}\0{size}\0'
                    identity.update(os.fsencode(entry))
                    stamp.update(os.fsencode(f'{entry}{changed}\0'))
                    sizes = [sizes[0] + 1, sizes[1] + size]
            self.counts[split], self.splits[split] = sizes
            self.absent[split] = absent
        self._identity, self._stamp = identity.hexdigest(), stamp.hexdigest()
        if self.absent['train']:
            raise UserError(
                f'Class folder {self._roots["train"] / self.absent["train"][0]} has no pictures '
                f'({" ".join(sorted(SUFFIXES))}): add some, or remove it.'
            )
        for split, count in self.counts.items():
            if not count:
                raise UserError(f'{self._roots[split]} has no pictures: add some, or remove it.')


def _check_level(source: Path, folder: Path, class_names: tuple[str, ...]) -> None:
    """Checks that the only class folder is not one that holds the folders of the classes.

    Raises:
      UserError: it has folders, and no pictures beside them.
    """
    deepest, names = folder, list(class_names)
    while len(names) == 1:
        deepest /= names[0]
        if any(not found.fault for found in folder_listing.outside(deepest)):
            return  # there are pictures beside its folders
        names = folder_listing.folders(deepest)
    if deepest != folder and names:
        below = ', '.join(names[:3]) + ', ...' * (len(names) > 3)
        raise UserError(
            f'{folder} has a single class, "{class_names[0]}", because all pictures are below the '
            f'{len(names)} folders of {deepest} ({below}): --source is too high. '
            + (
                f'Give --source={deepest}.'
                if folder == source
                else f'Move the folders of the classes up into {folder}.'
            )
        )


def _find_splits(folder: Path) -> dict[str, Path]:
    """Returns split -> the folder that contains its class folders."""
    found = splits.folders(folder)
    others = [name for name in folder_listing.folders(folder) if name.lower() not in splits.NAMES]
    if len(found) > 1:
        splits.check_train(folder, found)
    # A class may be called "test", or even "train" if it contains pictures and no folders.
    if 'train' not in found or (
        others and len(found) == 1 and not folder_listing.folders(found['train'])
    ):
        return {'train': folder}
    if others:
        raise UserError(
            f'{folder} has folders for the splits ({", ".join(p.name for p in found.values())}) '
            f'and other folders ({", ".join(others[:3])}): move the others elsewhere, or move all '
            'classes into train.'
        )
    return {split: found[split] for split in splits.ALL if split in found}


def _splits_to_make(roots: Mapping[str, Path], fractions: Fractions | None) -> tuple[str, ...]:
    """Returns the splits that are to be taken out of train."""
    if 'validation' in roots and fractions is not None:
        raise UserError(
            f'{roots["validation"]} is the validation split, so nothing is taken out of train: '
            'leave out --val_fraction and --test_fraction.'
        )
    return splits.to_make(roots)
