"""Writes files atomically, reads regular files and JSON with checks, lays out text in columns."""

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from errors import UserError, shortened

MOST_JSON = 16 << 20  # bytes; as Python objects they take up to thirty times as many
DEEPEST_JSON = 50
_DEEP = f'it is nested more than {DEEPEST_JSON} deep'
_KINDS = {
    dict: 'an object',
    list: 'a list',
    str: 'a text',
    int: 'a whole number',
    float: 'a number',
    bool: 'true or false',
}
_SPECIAL = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as sorted, indented JSON; a reader sees the old file or the new one.

    Non-finite numbers become null; NumPy scalars and arrays become numbers and lists.

    Raises:
      UserError: the file cannot be written.
    """
    text = json.dumps(nan_to_null(value), indent=2, sort_keys=True, allow_nan=False)
    write(path, text.encode() + b'\n')


def write(path: str | os.PathLike, content: bytes) -> None:
    """Writes a whole file, as `replace` does.

    Raises:
      UserError: the file cannot be written.
    """
    with explaining_errors(path):
        replace(Path(path), content)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading; reading a pipe or a device might never end.

    Raises:
      UserError: it is a folder, pipe, socket or device.
      OSError: it does not exist, or may not be read.
    """
    kind = _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))
    if kind:
        raise UserError(f'{path} is {kind}, not a regular file.')
    return open(path, 'rb')


def check_no_pipes(folder: Path, pattern: str = '*') -> None:
    """Checks that nothing in a folder is a pipe or a device, which could be waited for for ever.

    Args:
      folder: it may be missing.
      pattern: which names; '**/*' for those in its folders as well.

    Raises:
      UserError: something is; names the first.
    """
    for path in sorted(folder.glob(pattern)):
        with contextlib.suppress(OSError):  # a link that leads nowhere, or removed meanwhile
            mode = path.stat().st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                kind = _SPECIAL[stat.S_IFMT(mode)]
                raise UserError(f'{path} is {kind}, not a regular file: remove it.')


def is_file(path: str | os.PathLike) -> bool:
    """Returns whether there is a regular file; False also for a name that no file can have."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """Returns the content of a regular file.

    Raises:
      UserError: it has more than `most` bytes, is no regular file, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f'{shortened(str(path))} cannot be read: {error.strerror}.') from error
    except ValueError as error:  # a NUL or half a surrogate pair in the name
        raise UserError(
            f'{shortened(repr(str(path)))} is not the name of a file: {error}.'
        ) from error
    if len(content) > most:
        raise UserError(f'{path} has more than {most:,} bytes, which is too large for such a file.')
    return content


def read_json(
    path: str | os.PathLike, like: Any = dict, remedy: str = '', most: int = MOST_JSON
) -> Any:
    """Returns the contents of a JSON file. Every JSON file is read through this door.

    Args:
      path: the file.
      like: what it has to hold: dict, list, str, bool, int, float, or object for anything; [like]
        for a list of such values; {name: like, ...} for an object with at least these members.
      remedy: a sentence that says what to do about a file that cannot be used.
      most: how many bytes it may have.

    Raises:
      UserError: the file is missing, no regular file, too large, too deep, not JSON, or holds
        something else; names the file and ends with the remedy.
    """
    try:
        return parse_json(read_bytes(path, most), like)
    except ValueError as error:
        raise UserError(f'{path} cannot be used: {error}. {remedy}'.rstrip()) from error
    except UserError as error:
        raise UserError(f'{error} {remedy}'.rstrip()) from error


def usable_json(path: str | os.PathLike, like: Any = dict) -> Any:
    """Returns what `read_json` does, or None where it would raise an error."""
    try:
        return read_json(path, like)
    except UserError:
        return None


def parse_json(text: str | bytes, like: Any = dict) -> Any:
    """Returns the value of a JSON text, checked as `read_json` checks a file.

    Raises:
      ValueError: the text is not valid JSON, too deep, or holds something else than `like`.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f'it is not valid JSON ({error})') from error
    except RecursionError:
        raise ValueError(_DEEP) from None
    if problem := _too_deep(value) or mismatch(value, like):
        raise ValueError(problem)
    return value


def _too_deep(value: Any) -> str | None:
    """Returns the problem of a value that is nested too deep, or None.

    By levels and not recursively: some versions of Python parse what they cannot walk through.
    """
    level = [value]
    for _ in range(DEEPEST_JSON + 1):
        level = [holder for holder in level if isinstance(holder, dict | list)]
        if not level:
            return None
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return _DEEP


def mismatch(value: Any, like: Any, name: str = '') -> str | None:
    """Returns in what a value of JSON differs from `like`, or None; see `read_json`.

    Args:
      value, like: the two.
      name: the place of the value, for the message.
    """
    kind = type(like) if isinstance(like, dict | list) else like
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind in (int, float)):
        what = 'null' if value is None else _KINDS[type(value)]
        return f'{name or "it"} is {what}, not {_KINDS.get(kind, kind.__name__)}'
    if isinstance(like, list):
        members = [
            (f'item {i} of {name or "the list"}', item, like[0]) for i, item in enumerate(value)
        ]
    elif isinstance(like, dict):
        missing = [key for key in like if key not in value]
        if missing:
            return f'{name or "it"} has no "{missing[0]}"'
        members = [
            (f'"{key}" of {name}' if name else f'"{key}"', value[key], like[key]) for key in like
        ]
    else:
        return None
    return next(filter(None, (mismatch(item, of, place) for place, item, of in members)), None)


def replace(path: Path, content: bytes) -> None:
    """Writes `content` to the file `path` atomically: no kill or power cut leaves half a file.

    Raises:
      OSError: the file cannot be written; the old file, if any, is unchanged.
    """
    # The order matters. The content must be on disk before the rename; otherwise a power cut could
    # leave the new name on an empty file. The rename itself is on disk once the folder is.
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        # A link of that name, in a folder from a stranger, must not lead to another file.
        if temporary.is_symlink():
            temporary.unlink()
        with open(temporary, 'wb', opener=_not_through_links) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def is_open_at(file: IO, path: Path) -> bool:
    """Whether an open file is still the one at `path`: not removed, moved or replaced."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def flush_folder(folder: Path) -> None:
    """Waits until the files in `folder` and the folder itself are on disk.

    Call it before a rename that marks the folder as finished; otherwise a power cut after the
    rename could leave the final name on empty files.
    """
    for path in (*folder.iterdir(), folder):
        _flush(path)


def _flush(path: Path) -> None:
    """Waits until one file, or the list of names in one folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explaining_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError raised while writing `path` into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'Cannot write {path}: {error.strerror or error}. Free some space or choose another '
            '--workdir; the same command resumes from the last checkpoint.'
        ) from error


def nan_to_null(value: Any) -> Any:
    """Returns `value` with everything that JSON cannot represent replaced by what it can."""
    if isinstance(value, Mapping):
        return {str(k): nan_to_null(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(v) for v in value]
    if hasattr(value, 'tolist'):  # numpy scalars and arrays
        return nan_to_null(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def columns(rows: Sequence[Sequence[str]], left_columns: int = 1) -> str:
    """Formats rows as text columns: the first `left_columns` flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)
