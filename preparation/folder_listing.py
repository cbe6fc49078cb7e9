"""What a folder of pictures holds, and what of it is left out for which reason.

What systems and programs leave beside the user's files is no class and no picture. It is counted,
and not opened.
"""

import functools
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from data_sources import picture_files
from errors import UserError

_HEAD = 1 << 20  # bytes of a file in which its kind is looked for

NO_PICTURE = 'not named like a picture'
MISNAMED = 'a picture by its contents that is not named like one'
NO_SUFFIX = 'without a suffix'


class Found(NamedTuple):
    """A file below a class folder.

    Attributes:
      path: the file; a folder if it is one of a system's.
      fault: why it is left out, or ''.
      kind: what it is counted as: its suffix in lower case, NO_SUFFIX, or what left it behind.
      ignored: whether it is not the user's own.
    """

    path: Path
    fault: str
    kind: str
    ignored: bool = False


def entries(folder: Path) -> list[os.DirEntry]:
    """Returns what is in a folder, sorted by name.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f'{folder} cannot be read ({error.strerror or error}): check its permissions and links.'
        ) from error


def is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # for example a link to itself
        return False


def folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without those of systems."""
    return [
        e.name for e in entries(folder) if is_folder(e) and not picture_files.system_kind(e.name)
    ]


def printable(name: str) -> str:
    """Returns a name as text that every terminal can show: a name may hold any bytes."""
    shown = name.encode('utf-8', 'backslashreplace').decode()
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def kind_of(name: str) -> str:
    """Returns a name's suffix in lower case; NO_SUFFIX for none, or a number as in "cat.12"."""
    last = os.path.splitext(name)[1].lower()
    return NO_SUFFIX if last[1:].isdecimal() or last in ('', '.') else printable(last)


def is_picture_inside(path: Path) -> bool:
    """Whether the first bytes of a file are those of a picture that is read here."""
    try:
        status = path.stat()
    except OSError:
        return False
    # Opening a pipe would wait.
    return stat.S_ISREG(status.st_mode) and _is_picture(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 16)  # a folder is listed for each split
def _is_picture(path: Path, *_: int) -> bool:
    try:
        with path.open('rb') as file, picture_files.opened(file.read(_HEAD)):
            return True
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        return False


def look_at(entry: os.DirEntry) -> Found:
    """Says of a file, or of a system's folder, whether it is taken."""
    path, kind = Path(entry.path), picture_files.system_kind(entry.name)
    if kind:
        return Found(path, NO_PICTURE, kind, ignored=True)
    kind = kind_of(entry.name)
    if kind in picture_files.SUFFIXES:
        return Found(path, '', kind)
    if not is_picture_inside(path):
        return Found(path, NO_PICTURE, kind)
    return Found(path, '' if kind == NO_SUFFIX else MISNAMED, kind)


def outside(folder: Path) -> list[Found]:
    """Returns what is in a folder of class folders and is none of them."""
    return [
        look_at(entry)
        for entry in entries(folder)
        if not is_folder(entry) or picture_files.system_kind(entry.name)
    ]


def files_below(folder: Path) -> list[Found]:
    """Returns all files below a class folder, sorted; links are followed, and loops end."""
    files, seen, waiting = [], set(), [folder]
    while waiting:
        current = waiting.pop()
        if not current.is_dir():
            continue
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue  # reached before, through a link
        seen.add((status.st_dev, status.st_ino))
        below = []
        for entry in entries(current):
            if is_folder(entry) and not picture_files.system_kind(entry.name):
                below.append(Path(entry.path))
            else:
                files.append(look_at(entry))
        # Reversed, because `pop` takes the last one: the folders are visited in order of name.
        waiting.extend(reversed(below))
    return sorted(files)


def contents(path: Path) -> tuple[bytes | None, str]:
    """Returns (what is in a file, ''), or (None, why it cannot be read)."""
    try:
        status = path.stat()  # before it is opened: opening a pipe would wait for its other end
        if stat.S_ISREG(status.st_mode) and status.st_size <= picture_files.MAX_BYTES:
            return path.read_bytes(), ''
        return None, f'not a regular file of at most {picture_files.MAX_BYTES >> 20} MiB'
    except OSError as error:
        return None, f'cannot be read: {error.strerror or error}'


def size_and_time(path: Path) -> tuple[int, int]:
    """Returns the size and time of a file; zeros for one that `contents` does not read."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (0, 0)


def counted(kinds: Mapping[str, int]) -> str:
    """Returns, for instance, '8 .txt, 2 hidden'; '' for none."""
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ', '.join(f'{count:,} {kind}' for kind, count in ranked if count)
