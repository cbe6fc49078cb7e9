"""Reads pictures whose boxes are in YOLO's text: a `box_sets.BoxSource`.

    images/train/a.jpg  labels/train/a.txt  data.yaml     or images and labels without splits,
    train/images/a.jpg  train/labels/a.txt  data.yaml     or a.jpg and a.txt side by side

data.yaml says the names of the classes, and may say which pictures are for which split; otherwise
the folders do, or a hash of the stems. A picture without a file of boxes has no objects.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import files
from errors import UserError
from preparation import box_folder, box_listing, split_list, yolo_labels, yolo_yaml
from preparation.box_folder import BoxFolder
from preparation.box_sets import BoxFaultError, Marked
from preparation.folder_source import Entry

_NAMES = ('classes.txt', 'obj.names', '_darknet.labels', 'predefined_classes.txt')
# Texts that tools leave beside the pictures and that are no boxes.
_NO_BOXES = ('classes', 'predefined_classes', 'readme', 'license', 'notes', 'requirements', 'train',
             'val', 'valid', 'validation', 'test', 'trainval')  # fmt: skip
_MOST = 1 << 20  # bytes of a file of names
_MOST_CLASSES = 10_000


class YoloFolder(BoxFolder):
    """A `box_sets.BoxSource` of pictures and YOLO's texts in a folder.

    Args:
      folder: the source.
      name: the name of the data set.
      class_names: of the classes; None: those in data.yaml, or else in classes.txt or obj.names, or
        else the numbers up to the largest that occurs.
      listed: a file that says which picture is in which split, or None.

    Attributes:
      notes: what is to be known of how the pictures were divided.

    Raises:
      UserError: the folder, data.yaml or a list of splits is not of the form that is expected;
        there are too few pictures to divide, or no boxes.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        class_names: tuple[str, ...] | None = None,
        listed: Path | None = None,
    ):
        super().__init__(folder, name)
        self.description = f'{name}, prepared from pictures and boxes in the format of YOLO.'
        self.notes: list[str] = []
        found = box_listing.listed(folder, '.txt', ('labels',))
        described = _described(found, needed=class_names is None)
        self._keypoints = described is not None and described.keypoints
        names, source_of_names = _listed_names(found)
        used = {source_of_names, described.path if described else None}
        found.odd = [f for f in found.odd if f.path not in used]
        entries = [entry for entry in _paired(found) if entry.path not in used]
        odd, ignored = box_listing.odd_entries(found)
        self.system.update(ignored)
        if listed is not None:
            divided, in_folders = box_listing.divided(folder, entries)
            divided['train'] += odd
            self._divide(divided, split_list.read(listed), str(listed), in_folders)
        else:
            self._divide_as_described(found, described, entries, odd)
        described_names = described.names if described else None
        self.class_names = class_names or described_names or names or self._numbers()

    def identity(self) -> dict[str, Any]:
        """Returns what defines the set: paths and sizes of the files, and what follows a box."""
        return {**super().identity(), 'keypoints': self._keypoints}

    def about_left_out(self) -> list[str]:
        """Returns sentences that say how the pictures were divided, and what was left out."""
        return [*self.notes, *super().about_left_out()]

    def _marker(self, entry: Entry) -> Callable[[], Marked]:
        if not entry.beside:
            return yolo_labels.nothing
        return functools.partial(_marked, entry.beside[0], len(self.class_names), self._keypoints)

    def _divide_as_described(
        self,
        found: box_listing.Files,
        described: yolo_yaml.Described | None,
        entries: list[Entry],
        odd: list[Entry],
    ) -> None:
        """Divides the entries as data.yaml says, or else their folders."""
        wanted: dict[str, str] = {}
        if described is not None and described.places:
            wanted = yolo_yaml.wanted(described, _below(found, described.path.parent))
            absent = described.places.keys() - set(wanted.values())
            if absent:
                self.notes.append(
                    f'{described.path} names pictures for {", ".join(sorted(absent))} that are not '
                    'below its folder.'
                )
        if set(wanted.values()) <= {'train'}:  # then it says nothing that folders do not
            divided, in_folders = box_listing.divided(self._folder, entries)
            divided['train'] += odd
            self._divide(divided, in_folders=in_folders)
            return
        for entry in entries:  # a folder that it does not speak of
            if split := box_listing.split_of(entry.stem):
                wanted.setdefault(entry.stem, split)
        if 'train' not in wanted.values():
            raise UserError(f'{described.path} names no pictures for train that are there.')
        self._divide({'train': [*entries, *odd]}, wanted, str(described.path))

    def _numbers(self) -> tuple[str, ...]:
        """Returns the numbers of all classes up to the largest that occurs."""
        largest = -1
        for entry in (entry for entries in self._entries.values() for entry in entries):
            for path in entry.beside if not entry.fault else ():
                try:
                    rows = yolo_labels.rows(box_folder.contents(path), self._keypoints)
                except BoxFaultError:  # it is named when the picture's turn comes
                    continue
                largest = max([largest, *(label for _, (label, _) in rows)])
        if not 0 <= largest < _MOST_CLASSES:
            what = 'no boxes' if largest < 0 else f'a class {largest}'
            raise UserError(
                f'The texts in {self._folder} have {what}, and there is no data.yaml with names: '
                'add one, or give --class_names.'
            )
        return tuple(map(str, range(largest + 1)))


def _marked(path: Path, classes: int, keypoints: bool) -> Marked:
    return yolo_labels.read(box_folder.contents(path), classes, keypoints)


def _below(found: box_listing.Files, base: Path) -> dict[str, str]:
    """Returns {path below a folder: key} of the pictures there."""
    return {
        path.relative_to(base).as_posix(): key
        for key, paths in found.pictures.items()
        for path in paths
        if path.is_relative_to(base)
    }


def _paired(found: box_listing.Files) -> list[Entry]:
    """Returns an entry for each picture, and for each text that belongs to none."""
    entries = []
    for key, pictures in found.pictures.items():
        first, *others = pictures
        texts = found.boxes.get(key, [])
        if others or len(texts) > 1:
            names = ', '.join(path.name for path in (*others, *texts[1:]))
            fault = f'has the same stem as {names}: keep only one'
            entries.append(Entry(key, first, fault=fault))
        else:
            entries.append(Entry(key, first, tuple(texts)))
    inside = any('labels' in _parts(found, path) for of in found.boxes.values() for path in of)
    for key, texts in found.boxes.items():
        if key not in found.pictures:
            for path in texts:
                entries.append(_alone(key, path, inside))
    if not any(entry.beside for entry in entries):
        raise UserError(
            f'{found.root} has no .txt with the name of a picture: boxes are in labels/a.txt for '
            'images/a.jpg, or beside it.'
        )
    return sorted(entries, key=lambda entry: (entry.stem, entry.path))


def _alone(key: str, path: Path, in_folder: bool) -> Entry:
    """Returns the entry of a text that belongs to no picture."""
    name = path.stem.lower().partition('.')[0]
    known = name in _NO_BOXES
    if not known and not in_folder:  # side by side with the pictures there may be any text
        try:
            known = not yolo_labels.rows(box_folder.contents(path))
        except BoxFaultError:
            known = True
    if known:
        return Entry('', path, fault='a text without boxes', defective=False)
    return Entry(key, path, fault='there is no picture of its name')


def _parts(found: box_listing.Files, path: Path) -> list[str]:
    return [part.lower() for part in path.relative_to(found.root).parts[:-1]]


def _described(found: box_listing.Files, needed: bool) -> yolo_yaml.Described | None:
    """Returns what the data.yaml nearest to the top says; None without one.

    Args:
      found: what is in the folder.
      needed: whether the names of the classes are.

    Raises:
      UserError: it cannot be read, or there are several.
    """
    paths = [f.path for f in found.odd if f.kind in ('.yaml', '.yml') and not f.ignored]
    if not paths:
        return None
    top = min(len(path.parts) for path in paths)
    paths = [path for path in paths if len(path.parts) == top]
    named = [path for path in paths if path.stem.lower() in ('data', 'dataset')]
    read = [yolo_yaml.read(path) for path in (named or paths)[:20]]
    read = [one for one in read if one.names or one.places] or read
    if len(read) > 1 and (needed or any(one.places != read[0].places for one in read)):
        listed = ', '.join(one.path.name for one in read[:3])
        raise UserError(
            f'{found.root} has several files that describe a set ({listed}): keep the one that is '
            'to be used, and move the others elsewhere.'
        )
    return read[0]


def _listed_names(found: box_listing.Files) -> tuple[tuple[str, ...], Path | None]:
    """Returns the names in classes.txt, obj.names or the like, and the file; none without one."""
    paths = [f.path for f in found.odd if not f.ignored]
    paths += [path for of in found.boxes.values() for path in of]
    named = sorted((len(path.parts), path) for path in paths if path.name.lower() in _NAMES)
    if not named:
        return (), None
    path = named[0][1]
    try:
        lines = files.read_bytes(path, _MOST).decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not a text in UTF-8.') from error
    return yolo_yaml.checked([line.strip() for line in lines if line.strip()], path), path
