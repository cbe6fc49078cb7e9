"""Reads pictures in class folders, with or without folders for the splits.

    SOURCE/cat/1.jpg SOURCE/dog/2.png ...                       split here, by a hash of the path
    SOURCE/train/cat/1.jpg SOURCE/val/cat/2.jpg ... [test/]     split as it is

Without a validation folder, validation (and test, unless it has a folder) is taken out of train. A
set with a validation folder but no test folder has no test split.
"""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_sources.picture_files import MAX_BYTES, SUFFIXES
from errors import UserError, did_you_mean
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
    """The fractions of each class's pictures that are taken out of train."""

    validation: float = 0.1
    test: float = 0.1


class ImageFolder:
    """A `picture_sets.PictureSource` of the pictures in class folders.

    A class folder may contain folders of any depth. Links are followed; a folder that can be
    reached in several ways is read once. Hidden files and folders are ignored.

    Args:
      folder: the source.
      name: the name of the data set.
      fractions: how much to take out of train for the splits that the source lacks.

    Attributes:
      made: the splits that are taken out of train.
      counts: split -> the number of pictures.
      absent: split -> the classes without pictures in it.
      loose: up to three pictures outside class folders; such pictures are left out.

    Raises:
      UserError: the folder does not exist or has no class folders; a class has no pictures, or too
        few to split; another split has a class that train lacks.
    """

    version = '1.0.0'
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
        self.class_names = tuple(_folders(self._roots['train']))
        self._check_classes()
        outside = dict.fromkeys([folder, *self._roots.values()])
        self.loose = [path for root in outside for path in _loose_pictures(root)][:3]
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
            fault = f'not a regular file of at most {MAX_BYTES >> 20} MiB'
        except OSError as error:
            fault = f'cannot be read: {error.strerror or error}'
        return Picture(file, name, label, cursor, 0, None, fault)

    def _root_of(self, path: Path) -> Path:
        return next(root for root in self._roots.values() if path.is_relative_to(root))

    def _files(self, split: str, label: int) -> list[tuple[Path, str]]:
        """Returns the files of one class in one split, sorted, as (path, why it is left out)."""
        stored = split if split in self._roots else 'train'
        files = _list_files(self._roots[stored] / self.class_names[label])
        if stored == 'train' and self.made:
            return self._deal(files, self.class_names[label])[split]
        return files

    def _deal(
        self, files: list[tuple[Path, str]], class_name: str
    ) -> dict[str, list[tuple[Path, str]]]:
        """Divides the pictures of a class among the splits by the rank of a hash of their paths.

        The paths are relative, so that a copy of the source gives the same splits. Each split gets
        its fraction, rounded, and at least one picture.
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
                'one. Add pictures, leave the class out, or split the pictures yourself into '
                'folders train and val (and test) that contain the class folders.'
            )
        divided, total = {}, len(pictures)
        for number, split in enumerate(self.made):
            reserved = len(self.made) - number  # one for each later split and one for train
            count = max(1, round(total * self._fractions[split]))
            count = min(count, len(pictures) - reserved)
            divided[split], pictures = pictures[:count], pictures[count:]
        divided['train'] = pictures + [entry for entry in files if entry[1]]
        return {split: sorted(entries) for split, entries in divided.items()}

    def _check_classes(self) -> None:
        train = self._roots['train']
        if not self.class_names:
            raise UserError(
                f'{train} has no class folders: put the pictures into folders named after their '
                'class, such as cat/1.jpg.'
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
        """Reads the sizes and times of all files once, class by class, and hashes them."""
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
    """Returns split -> the folder that contains its class folders."""
    names = _folders(folder)
    splits = {}
    for name in names:
        if split := _SPLITS.get(name.lower()):
            if split in splits:
                raise UserError(
                    f'{folder} has two folders for {split} ({splits[split].name}, {name}): keep '
                    'only one.'
                )
            splits[split] = folder / name
    others = [name for name in names if name.lower() not in _SPLITS]
    if 'train' not in splits and len(splits) > 1:
        raise UserError(
            f'{folder} has the folders {", ".join(p.name for p in splits.values())} but no train: '
            'add a folder train with the training pictures.'
        )
    # A class may be called "test", or even "train" if it contains pictures and no folders.
    if 'train' not in splits or (others and len(splits) == 1 and not _folders(splits['train'])):
        return {'train': folder}
    if others:
        raise UserError(
            f'{folder} has folders for the splits ({", ".join(p.name for p in splits.values())}) '
            f'and other folders ({", ".join(others[:3])}): move the others elsewhere, or move all '
            'classes into train.'
        )
    return {split: splits[split] for split in ('train', 'validation', 'test') if split in splits}


def _splits_to_make(roots: Mapping[str, Path], fractions: Fractions | None) -> tuple[str, ...]:
    """Returns the splits that are to be taken out of train."""
    if 'validation' not in roots:
        return tuple(split for split in ('validation', 'test') if split not in roots)
    if fractions is not None:
        raise UserError(
            f'{roots["validation"]} is the validation split, so nothing is taken out of train: '
            'leave out --val_fraction and --test_fraction.'
        )
    return ()


def _entries(folder: Path) -> list[os.DirEntry]:
    """Returns what is in a folder, sorted by name, without hidden files and folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith('.')), key=lambda e: e.name)
    except OSError as error:
        raise UserError(
            f'{folder} cannot be read ({error.strerror or error}): check its permissions and links.'
        ) from error


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # for example a link to itself
        return False


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if _is_folder(entry)]


def _loose_pictures(folder: Path) -> list[str]:
    return [e.path for e in _entries(folder) if _is_picture(e.name) and not _is_folder(e)]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _list_files(folder: Path) -> list[tuple[Path, str]]:
    """Returns all files below a class folder, sorted, as (path, why it is left out or '')."""
    files, seen, waiting = [], set(), [folder]
    while waiting:
        current = waiting.pop()
        if not current.is_dir():
            continue
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # reached before, through a link
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in _entries(current):
            if _is_folder(entry):
                folders.append(Path(entry.path))
            else:
                fault = '' if _is_picture(entry.name) else 'not named like a picture'
                files.append((Path(entry.path), fault))
        # Reversed, because `pop` takes the last one: the folders are visited in order of name.
        waiting.extend(reversed(folders))
    return sorted(files)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Returns the size and time of a file; zeros for a broken link, which `_read` reports."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (0, 0)
