"""Reads pictures whose boxes are in the XML of Pascal VOC: a `box_sets.BoxSource`.

Pictures and XML may be in the folders JPEGImages and Annotations, or images and annotations, in any
case, or side by side; all of that also below train, val and test (`box_listing`). Lists in
ImageSets/Main divide a set without such folders, as VOC's own.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import files
from errors import UserError
from preparation import box_folder, box_listing, folder_listing, split_list, splits, voc_xml
from preparation.box_folder import BoxFolder
from preparation.box_sets import BoxFaultError, Marked
from preparation.folder_source import Entry

FOLDERS = ('annotations', 'annotation', 'annots', 'annot', 'xmls', 'xml', 'labels')
_UNDESCRIBED = 'pictures without an .xml'
_LISTS = 'imagesets'
_LIST = re.compile(r'(train|trainval|val|valid|validation|test)\.txt', re.IGNORECASE)
_MOST = 64 << 20  # bytes of a list


class VocFolder(BoxFolder):
    """A `box_sets.BoxSource` of pictures and XML in a folder.

    Args:
      folder: the source.
      name: the name of the data set.
      class_names: of the classes; None: the names that occur, sorted.
      listed: a file that says which picture is in which split, or None.
      zero_based: whether boxes are counted from 0 (see voc_xml.py).

    Raises:
      UserError: the folder, or a list of splits, is not of the form that is expected; there are too
        few pictures to divide, or no boxes.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        class_names: tuple[str, ...] | None = None,
        listed: Path | None = None,
        zero_based: bool = False,
    ):
        super().__init__(folder, name)
        self.description = f'{name}, prepared from pictures and boxes in the format of Pascal VOC.'
        self._zero_based = zero_based
        found = box_listing.listed(folder, '.xml', FOLDERS, (_LISTS,))
        odd, ignored = box_listing.odd_entries(found)
        self.system.update(ignored)
        divided, in_folders = box_listing.divided(folder, _paired(found))
        divided['train'] += odd
        wanted, list_name = None, ''
        if listed is not None:
            wanted, list_name = split_list.read(listed), str(listed)
        elif not in_folders:
            wanted, list_name = _image_sets(folder)
        self._divide(divided, wanted, list_name, in_folders)
        self.class_names = self._found_names() if class_names is None else class_names
        self._numbers = {name: number for number, name in enumerate(self.class_names)}

    def identity(self) -> dict[str, Any]:
        """Returns what defines the set: paths and sizes of the files, and how boxes are counted."""
        return {**super().identity(), 'zero_based': self._zero_based}

    def _marker(self, entry: Entry) -> Callable[[], Marked]:
        return functools.partial(_marked, entry.beside[0], self._numbers, self._zero_based)

    def _found_names(self) -> tuple[str, ...]:
        """Returns the names of all classes that occur, sorted."""
        found, first = set(), ''
        for entry in (entry for entries in self._entries.values() for entry in entries):
            if entry.fault:
                continue
            try:
                found.update(name for name, _, _ in _read(entry.beside[0]).objects)
            except BoxFaultError as fault:  # it is named when the picture's turn comes
                first = first or f' {self._named(entry.beside[0])} {fault}.'
        if not found:
            raise UserError(f'The annotations in {self._folder} have no boxes.{first}')
        return tuple(sorted(found))


def _read(path: Path) -> voc_xml.Annotation:
    return voc_xml.read(box_folder.contents(path))


def _marked(path: Path, numbers: dict[str, int], zero_based: bool) -> Marked:
    return voc_xml.marked(_read(path), numbers, zero_based)


def _paired(found: box_listing.Files) -> list[Entry]:
    """Returns an entry for each XML, and for each picture that none describes."""
    entries, described = [], {}
    for key, annotations in found.boxes.items():
        first = annotations[0]
        if len(annotations) > 1:
            others = ', '.join(path.name for path in annotations[1:])
            fault = f'has the same stem as {others}: keep only one'
            entries.append(Entry(key, first, fault=fault))
            described.update(dict.fromkeys(found.pictures.get(key, ()), first))
            continue
        pictures = found.pictures.get(key) or _named_inside(first, key, found)
        if len(pictures) > 1:
            pictures = _of_name(first, pictures)
        if len(pictures) != 1:
            what = 'there is no picture of its name' if not pictures else (
                f'there are {len(pictures)} pictures of its name'
            )  # fmt: skip
            entries.append(Entry(key, first, fault=what))
        elif pictures[0] in described:
            fault = f'is of the same picture as {described[pictures[0]].name}'
            entries.append(Entry(key, first, fault=fault))
        else:
            described[pictures[0]] = first
            # The folders of the picture say the split where those of the annotation do not.
            stem = key if box_listing.split_of(key) else _with_split(key, pictures[0], found)
            entries.append(Entry(stem, pictures[0], (first,)))
    for key, pictures in found.pictures.items():
        entries += [
            Entry(key, path, (), 'has no .xml', defective=False, kind=_UNDESCRIBED)
            for path in pictures
            if path not in described
        ]
    return entries


def _with_split(key: str, picture: Path, found: box_listing.Files) -> str:
    parts = picture.relative_to(found.root).parts[:-1]
    named = [part for part in parts if part.lower() in splits.NAMES]
    return '/'.join((*named[:1], key))


def _named_inside(annotation: Path, key: str, found: box_listing.Files) -> list[Path]:
    """Returns the pictures that an annotation without one of its own name may be of.

    Its own <filename> says so, or a picture has its name in another folder. What <path> says is of
    the machine on which it was written.
    """
    try:
        name = _read(annotation).filename
    except BoxFaultError:
        name = ''
    own = key.rpartition('/')[2]
    for base in filter(None, (name, own)):
        keys = found.with_base(base)
        near = [k for k in keys if k.rpartition('/')[0] == key.rpartition('/')[0]]
        # A picture with an annotation of its own name belongs to that one.
        free = [k for k in near or keys if k not in found.boxes]
        if len(free) == 1:
            return found.pictures[free[0]]
    return []


def _of_name(annotation: Path, pictures: Sequence[Path]) -> list[Path]:
    """Returns those of several pictures that an annotation names."""
    try:
        name = _read(annotation).filename.lower()
    except BoxFaultError:
        name = ''
    return [path for path in pictures if path.name.lower() == name] or list(pictures)


def _image_sets(folder: Path) -> tuple[Mapping[str, str] | None, str]:
    """Returns {stem: split} of the lists in ImageSets/Main, and what to call them; None for none.

    Raises:
      UserError: a list cannot be read, or a picture is in two splits.
    """
    found: dict[str, str] = {}
    where = ''
    for base in _places_of_lists(folder):
        lists = {}
        for entry in folder_listing.entries(base):
            if match := _LIST.fullmatch(entry.name):
                lists[match[1].lower()] = Path(entry.path)
        if 'train' in lists:
            lists.pop('trainval', None)
        above = base.relative_to(folder).parts
        above = above[: next(n for n, part in enumerate(above) if part.lower() == _LISTS)]
        for name, path in lists.items():
            where = where or str(base)
            split = splits.NAMES['train' if name == 'trainval' else name]
            for stem in _stems(path):
                key = '/'.join((*above, stem))
                if found.setdefault(key, split) != split:
                    raise UserError(f'{base} lists {key} in {split} and in {found[key]}.')
    if found and 'train' not in found.values():
        raise UserError(f'{where} has no train.txt that lists pictures.')
    return (found, where) if found else (None, '')


def _places_of_lists(folder: Path) -> list[Path]:
    """Returns the folders in which lists are: ImageSets/Main, or else ImageSets."""
    places = []
    inside = [folder / name for name in folder_listing.folders(folder)]
    for base in [*inside, *(p / name for p in inside for name in folder_listing.folders(p))]:
        if base.name.lower() == _LISTS:
            main = [n for n in folder_listing.folders(base) if n.lower() == 'main']
            places += [base / main[0]] if main else [base]
    return places


def _stems(path: Path) -> list[str]:
    """Returns the stems in a list; what follows one on its line says more of the picture."""
    try:
        lines = files.read_bytes(path, _MOST).decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not a text in UTF-8.') from error
    stems = [re.sub(r'\s+-?[01]$', '', line.strip()) for line in lines if line.strip()]
    return [box_listing.without_suffix(stem.replace('\\', '/')) for stem in stems]
