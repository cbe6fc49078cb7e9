"""Writes files atomically, reads them back, and lays out text in columns."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import UserError


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as sorted, indented JSON; a reader sees the old file or the new one.

    Non-finite numbers become null; NumPy scalars and arrays become numbers and lists.

    Raises:
      UserError: the file cannot be written.
    """
    text = json.dumps(nan_to_null(value), indent=2, sort_keys=True, allow_nan=False)
    with explaining_errors(path):
        replace(Path(path), text.encode() + b'\n')


def read_json(path: Path) -> Any:
    """Returns the contents of a JSON file, or None if it is missing or not valid JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def replace(path: Path, content: bytes) -> None:
    """Writes `content` to the file `path` atomically: no kill or power cut leaves half a file.

    Raises:
      OSError: the file cannot be written; the old file, if any, is unchanged.
    """
    # The order matters. The content must be on disk before the rename; otherwise a power cut could
    # leave the new name on an empty file. The rename itself is on disk once the folder is.
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with temporary.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


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
