"""The list that says which pictures are in which split (`--splits=FILE`).

JSON, {split: [stems]}; other members may be texts, such as a note on how the list was made:

    {"about": "drawn by hand", "train": ["a", "b"], "validation": ["c"], "test": ["d"]}

or text, a split and a stem on each line; what follows a # at the start of a line is a comment:

    # drawn by hand
    train a
    train b
    validation c

A stem is the path of a picture below its folder of pictures, without the suffix; with it is fine
too. `val` and `valid` mean validation. Only train has to be there.
"""

from pathlib import Path

import files
from data_sources import picture_files
from errors import UserError, did_you_mean, shown
from preparation import splits

_MOST = files.MOST_JSON


def read(path: Path) -> dict[str, str]:
    """Returns {stem: split}.

    Raises:
      UserError: the file cannot be read, names a split that is none, lists a stem twice, or nothing
        for train.
    """
    found = _json(path) if path.suffix.lower() == '.json' else _text(path)
    listed = {}
    for split, stem in found:
        if split.lower() not in splits.NAMES:
            raise UserError(
                f'{path} has a split {shown(split)}: the splits are {", ".join(splits.ALL)}.'
                + did_you_mean(split, splits.NAMES)
            )
        split, stem = splits.NAMES[split.lower()], without_suffix(stem)
        if stem in listed:
            also = f'in {split} and in {listed[stem]}' if listed[stem] != split else 'twice'
            raise UserError(f'{path} lists {shown(stem)} {also}: a picture is in one split, once.')
        listed[stem] = split
    if 'train' not in listed.values():
        raise UserError(f'{path} lists no pictures for train.')
    return listed


def without_suffix(name: str) -> str:
    """Returns a name without the suffix of a picture; another ending is a part of the stem."""
    bare, dot, suffix = name.rpartition('.')
    return bare if f'{dot}{suffix}'.lower() in picture_files.SUFFIXES and bare else name


def _json(path: Path) -> list[tuple[str, str]]:
    """Returns (split, stem) of each entry of a JSON file."""
    found = []
    for split, stems in files.read_json(path).items():
        if isinstance(stems, str):
            continue
        if not isinstance(stems, list) or not all(isinstance(stem, str) for stem in stems):
            raise UserError(f'{path} has {shown(stems)} for {shown(split)}, not a list of stems.')
        found += [(split, stem) for stem in stems]
    return found


def _text(path: Path) -> list[tuple[str, str]]:
    """Returns (split, stem) of each line of a text."""
    try:
        lines = files.read_bytes(path, _MOST).decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not a text in UTF-8.') from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith('#'):
            continue
        split, *rest = line.split(None, 1)
        if not rest:
            raise UserError(
                f'{path}, line {number}: {shown(line)} is not a split and a stem, as in "train a".'
            )
        found.append((split, rest[0].strip()))
    return found
