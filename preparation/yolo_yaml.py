"""Reads the file that describes a set in YOLO's form: data.yaml.

path: ../datasets/cells                       of the machine it was written on
train: ../train/images                        a folder, a list of pictures (.txt), or several
val: ../valid/images
names: [round, flat]                          or {0: round, 1: flat}, by lines or in brackets
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import files
from errors import UserError, shown
from preparation import splits

_MOST = 1 << 20  # bytes of a file
_MOST_LIST = 256 << 20
_MOST_CLASSES = 10_000
_DEEPEST = 20  # levels of lists and mappings


@dataclasses.dataclass(frozen=True)
class Described:
    """What a file says.

    Attributes:
      path: the file.
      names: of the classes; None if it has none.
      places: {split: folders or lists of pictures, as they are written}.
      keypoints: whether boxes are followed by key points.
    """

    path: Path
    names: tuple[str, ...] | None
    places: Mapping[str, tuple[str, ...]]
    keypoints: bool


def read(path: Path) -> Described:
    """Returns what a file says.

    Raises:
      UserError: it is no such file, or its parts do not fit together.
    """
    found = _parsed(path)
    names = _names(path, found['names']) if found.get('names') else None
    count = found.get('nc')
    if names is not None and isinstance(count, str) and count.strip() != str(len(names)):
        raise UserError(
            f'{path} has "nc": {shown(count)}, and {len(names)} names: mend one of them.'
        )
    places = {}
    for key, value in found.items():
        split = splits.NAMES.get(key.lower())
        texts = [value] if isinstance(value, str) else value
        if split is None or not texts:
            continue
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError(f'{path} has {shown(value)} for {key}, not a folder or a list of them.')
        if texts := [text for text in texts if text.strip(' ~') and text.strip() != 'null']:
            places[split] = tuple(texts)
    return Described(path, names, places, 'kpt_shape' in found)


def _parsed(path: Path) -> dict[str, Any]:
    """Returns a mapping of texts, lists and mappings: no value is taken for a number or a date."""
    import yaml  # only this origin needs it

    remedy = 'Give one with the names of the classes, or --class_names.'
    try:
        text = files.read_bytes(path, _MOST).decode('utf-8-sig')
        depth = 0
        for event in yaml.parse(text):  # step by step: thousands of levels would take minutes
            # An alias stands for a value without its text: a few of them unpack to gigabytes.
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f'{path} has aliases (*), which are not followed. {remedy}')
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise UserError(f'{path} is nested too deep. {remedy}')
        found = yaml.load(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not a text in UTF-8. {remedy}') from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        what = ' '.join(str(error).split())
        raise UserError(f'{path} is no YAML: {what:.200}. {remedy}') from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f'{path} holds no names and values, as in "names: [cat, dog]". {remedy}')
    return found


def _names(path: Path, found: Any) -> tuple[str, ...]:
    """Returns the names of the classes, a list or a mapping from their numbers."""
    if isinstance(found, dict):
        numbers = {str(number): key for number, key in enumerate(sorted(found, key=_order))}
        if any(number != key.strip() for number, key in numbers.items()):
            raise UserError(
                f'{path} has names for {shown(list(found))}: the classes are counted from 0, '
                'without gaps.'
            )
        found = [found[key] for key in numbers.values()]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UserError(f'{path} has {shown(found)} for names, not a list of them.')
    return checked([name.strip() for name in found], path)


def _order(key: Any) -> tuple[int, str]:
    text = str(key).strip()
    return (int(text) if text.isdecimal() and len(text) < 9 else 1 << 40, text)


def checked(names: Iterable[str], path: Path) -> tuple[str, ...]:
    """Returns names of classes, each a line of text of its own.

    Raises:
      UserError: they are not; names the file.
    """
    names = tuple(names)
    for name in names:
        if not name or not name.isprintable() or names.count(name) > 1:
            raise UserError(
                f'{path} has the name {shown(name)}: each class needs a name of its own, a line of '
                'text.'
            )
        if len(names) > _MOST_CLASSES:
            raise UserError(f'{path} has more than {_MOST_CLASSES:,} names.')
    return names


# --- which picture is in which split ----------------------------------------------------------


def wanted(described: Described, pictures: Mapping[str, str]) -> dict[str, str]:
    """Returns {key: split} of the pictures in the folders and lists of a file.

    What leads to another machine, or out of the folder, is looked for by the end of its path, as
    far as there is such a folder or picture.

    Args:
      described: what the file says.
      pictures: {path below the folder of the file: key}.

    Raises:
      UserError: a list cannot be read, or a picture is in two splits.
    """
    folders = {
        PurePosixPath(*parent.parts) for p in pictures for parent in PurePosixPath(p).parents
    }
    found: dict[str, str] = {}
    for split, texts in described.places.items():
        for text in texts:
            for path in _listed(described.path.parent, text, pictures, folders):
                key = pictures[path]
                if found.setdefault(key, split) != split:
                    raise UserError(
                        f'{described.path} has {path} in {split} and in {found[key]}: a picture is '
                        'in one split. Remove one of the two entries, or give --splits=FILE.'
                    )
    return found


def _listed(
    base: Path, text: str, pictures: Mapping[str, str], folders: Iterable[PurePosixPath]
) -> list[str]:
    """Returns the paths of the pictures that an entry is of."""
    if not text.strip().lower().endswith('.txt'):
        folder = _ending(text, lambda path: path in folders)
        return (
            []
            if folder is None
            else [p for p in pictures if PurePosixPath(p).is_relative_to(folder)]
        )
    place = _ending(text, lambda path: files.is_file(base / path))
    if place is None:
        return []
    try:
        lines = files.read_bytes(base / place, _MOST_LIST).decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{base / place} is not a text in UTF-8.') from error
    paths = (_ending(line, lambda path: str(path) in pictures) for line in lines if line.strip())
    return [str(path) for path in paths if path is not None]


def _ending(text: str, there: Any) -> PurePosixPath | None:
    """Returns the longest end of a path, below the folder, that is there; None for none."""
    parts = [p for p in text.strip().replace('\\', '/').split('/') if p not in ('', '.', '..')]
    if not parts:
        return PurePosixPath() if there(PurePosixPath()) else None
    ends = (PurePosixPath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in ends if there(path)), None)
