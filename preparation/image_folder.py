"""Anyone's own pictures: a folder of class folders, with or without folders for the splits.

    SOURCE/cat/1.jpg SOURCE/dog/2.png ...                       split here, by a hash of the path
    SOURCE/train/cat/1.jpg SOURCE/val/cat/2.jpg ... [test/]     taken as it is

What is missing of validation and test is taken out of train; a set with validation but no test
stays without one.
"""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_sources.images import SUFFIXES
from errors import UserError, did_you_mean
from preparation.picture_check import MAX_BYTES
from preparation.picture_sets import Picture

_SPLITS = {
    'train': 'train',
    'training': 'train',
    'val': 'validation',
    'valid': 'validation',
    'validation': 'validation',
    'test': 'test',
    'testing': 'test',
}


@dataclasses.dataclass(frozen=True)
class Fractions:
    """Shares of each class's pictures that are taken out of train."""

    validation: float = 0.1
    test: float = 0.1


class ImageFolder:
    """A `picture_sets.PictureSource`: pictures in class folders.

    Within a class folder pictures may lie in folders of any depth. Links are followed; a folder
    that can be reached in several ways is read once. Hidden files and folders are passed over.

    Args:
      folder: the source.
      name: of the data set.
      fractions: how much to take out of train for the splits that the source lacks.

    Attributes:
      made: the splits that were taken out of train.
      counts: split -> number of pictures.
      absent: split -> classes that have no pictures in it.
      loose: a few pictures that lie outside class folders and are left out.

    Raises:
      UserError: no such folder; no class folders; a class without pictures, or with too few to
        split; a class that train does not have.
    """

    version = '1.0.0'
    homepage = ''
    citation = ''

    def __init__(self, folder: Path, name: str, fractions: Fractions | None = None):
        if not folder.is_dir():
            raise UserError(f'{folder} is not a folder: --source must name one with pictures.')
        self._folder = folder
        self.name = name
        self.description = f'{name}, prepared from a folder of pictures.'
        self._roots = _find_splits(folder)
        self.made = _splits_to_make(self._roots, fractions)
        fractions = fractions or Fractions()
        self._fractions = {split: getattr(fractions, split) for split in self.made}
        if sum(self._fractions.values()) >= 1:
            raise UserError('--val_fraction and --test_fraction leave nothing to train on.')
        self.made = tuple(split for split in self.made if self._fractions[split] > 0)
        self.class_names = tuple(_folders(self._roots['train']))
        self._check_classes()
        outside = dict.fromkeys([folder, *self._roots.values()])
        self.loose = [path for root in outside for path in _loose_pictures(root)][:3]
        self._scan()

    def identity(self) -> dict[str, Any]:
        """What makes the set: paths and sizes of the files, classes, shares of the splits."""
        return {
            'files': self._identity,
            'classes': list(self.class_names),
            'taken_from_train': {split: self._fractions[split] for split in self.made},
        }

    def stamp(self) -> Any:
        """Changes with the time of any file."""
        return self._stamp

    def pictures(self, split: str, cursor: Any) -> Iterator[Picture]:
        """The pictures class by class, by name; a cursor is [place of the class, of the file]."""
        first_class, first_file = cursor or (0, 0)
        for label in range(first_class, len(self.class_names)):
            skip = first_file if label == first_class else 0
            for number, (path, fault) in enumerate(self._files(split, label)):
                if number >= skip:
                    yield self._read(path, fault, label, [label, number + 1])

    def _read(self, path: Path, fault: str, label: int, cursor: list[int]) -> Picture:
        file = str(path.relative_to(self._folder))
        name = str(path.relative_to(self._root_of(path)))
        if fault:
            return Picture(file, name, label, cursor, 0, None, fault, defective=False)
        try:
            size, mode = path.stat().st_size, path.stat().st_mode
            if stat.S_ISREG(mode) and size <= MAX_BYTES:
                return Picture(file, name, label, cursor, size, path.read_bytes())
            fault = f'no regular file of at most {MAX_BYTES >> 20} MiB'
        except OSError as error:
            fault = f'cannot be read: {error.strerror or error}'
        return Picture(file, name, label, cursor, 0, None, fault)

    def _root_of(self, path: Path) -> Path:
        return next(root for root in self._roots.values() if path.is_relative_to(root))

    def _files(self, split: str, label: int) -> list[tuple[Path, str]]:
        """The files of one class in one split, sorted, each with the reason to leave it out."""
        stored = split if split in self._roots else 'train'
        files = _list_files(self._roots[stored] / self.class_names[label])
        if stored == 'train' and self.made:
            return self._deal(files, self.class_names[label])[split]
        return files

    def _deal(
        self, files: list[tuple[Path, str]], class_name: str
    ) -> dict[str, list[tuple[Path, str]]]:
        """Deals the pictures of a class to the splits by the rank of a hash of their paths.

        The paths are relative, so that a copy of the source gives the same splits. Each split gets
        its share, rounded, and at least one.
        """
        root = self._roots['train']
        pictures = [entry for entry in files if not entry[1]]
        pictures.sort(
            key=lambda entry: hashlib.sha256(
                os.fsencode(entry[0].relative_to(root).as_posix())
            ).digest()
        )
        if len(pictures) <= len(self.made):
            raise UserError(
                f'Class "{class_name}" in {root} has {len(pictures)} pictures: at least '
                f'{len(self.made) + 1} are needed to give each of train, {", ".join(self.made)} '
                'one. Add pictures, leave the class out, or make the splits yourself: folders '
                'train and val (and test) with the class folders in them.'
            )
        dealt, total = {}, len(pictures)
        for place, split in enumerate(self.made):
            still_to_come = len(self.made) - place  # each of them gets one, train too
            count = max(1, round(total * self._fractions[split]))
            count = min(count, len(pictures) - still_to_come)
            dealt[split], pictures = pictures[:count], pictures[count:]
        dealt['train'] = pictures + [entry for entry in files if entry[1]]
        return {split: sorted(entries) for split, entries in dealt.items()}

    def _check_classes(self) -> None:
        train = self._roots['train']
        if not self.class_names:
            raise UserError(
                f'{train} has no class folders: pictures are expected in folders that are named '
                'after their class, such as cat/1.jpg.'
            )
        for name in self.class_names:
            if name != name.strip() or not name.isprintable():
                raise UserError(
                    f'{train} has a class folder with an unusual name ({name!r}): rename it.'
                )
        for root in self._roots.values():
            for name in _folders(root):
                if name not in self.class_names:
                    raise UserError(
                        f'{root} has a class "{name}" that {train} does not have.'
                        + did_you_mean(name, self.class_names)
                    )

    def _scan(self) -> None:
        """Goes through all files once, a class at a time: numbers, bytes and what they hash to."""
        identity, stamp = hashlib.sha256(), hashlib.sha256()
        self.splits: Mapping[str, int] = {}
        self.counts: dict[str, int] = {}
        self.absent: dict[str, list[str]] = {}
        for split in (*self._roots, *self.made):
            sizes, absent = [0, 0], []
            for label, name in enumerate(self.class_names):
                files = self._files(split, label)
                pictures = [path for path, fault in files if not fault]
                if not pictures:
                    absent.append(name)
                for path in pictures:
                    size, changed = _size_and_time(path)
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


def _find_splits(folder: Path) -> dict[str, Path]:
    """Returns split -> the folder with its class folders."""
    names = _folders(folder)
    splits = {}
    for name in names:
        if split := _SPLITS.get(name.lower()):
            if split in splits:
                raise UserError(
                    f'{folder} has two folders for {split} ({splits[split].name}, {name}): leave '
                    'only one.'
                )
            splits[split] = folder / name
    others = [name for name in names if name.lower() not in _SPLITS]
    if 'train' not in splits and len(splits) > 1:
        raise UserError(f'{folder} has {", ".join(p.name for p in splits.values())} but no train.')
    # A class may well be called "test", or even "train" if it holds pictures and no folders.
    if 'train' not in splits or (others and len(splits) == 1 and not _folders(splits['train'])):
        return {'train': folder}
    if others:
        raise UserError(
            f'{folder} has folders for the splits ({", ".join(p.name for p in splits.values())}) '
            f'and others beside them ({", ".join(others[:3])}): move those away, or all classes '
            'into train.'
        )
    return {split: splits[split] for split in ('train', 'validation', 'test') if split in splits}


def _splits_to_make(roots: Mapping[str, Path], fractions: Fractions | None) -> tuple[str, ...]:
    """Which splits are to be taken out of train."""
    if 'validation' not in roots:
        return tuple(split for split in ('validation', 'test') if split not in roots)
    if fractions is not None:
        raise UserError(
            f'{roots["validation"]} is the validation split: leave out --val_fraction and '
            '--test_fraction.'
        )
    return ()


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is in a folder, by name, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith('.')), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f'{folder} cannot be read: {error.strerror or error}.') from error


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if _is_folder(entry)]


def _loose_pictures(folder: Path) -> list[str]:
    return [e.path for e in _entries(folder) if _is_picture(e.name) and not _is_folder(e)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _list_files(folder: Path) -> list[tuple[Path, str]]:
    """All files below a class folder, sorted, each with the reason to leave it out, or ''."""
    files, seen, waiting = [], set(), [folder]
    while waiting:
        here = waiting.pop()
        if not here.is_dir():
            continue
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # a link that leads back, or a second way
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in _entries(here):
            if _is_folder(entry):
                folders.append(Path(entry.path))
            else:
                fault = '' if _is_picture(entry.name) else 'not named like a picture'
                files.append((Path(entry.path), fault))
        waiting.extend(reversed(folders))  # so that they are taken by name
    return sorted(files)


def _size_and_time(path: Path) -> tuple[int, int]:
    """The size and time of a file; of a broken link zeros: it is reported when it is read."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (0, 0)
