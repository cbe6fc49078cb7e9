"""Files that are never left half written, and text in columns."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import UserError


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as sorted, indented JSON; a reader sees the old file or the new, never half.

    Numbers that are not finite become null; numpy scalars and arrays become numbers and lists.
    """
    text = json.dumps(nan_to_null(value), indent=2, sort_keys=True, allow_nan=False)
    with explaining_errors(path):
        replace(Path(path), text.encode() + b'\n')


def replace(path: Path, content: bytes) -> None:
    """Puts `content` in place of the file `path`, in one step that survives a power cut."""
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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself has to reach the disk, too
    finally:
        os.close(folder)


@contextlib.contextmanager
def explaining_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns the system's refusal to write into a sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'Cannot write {path}: {error.strerror or error}. Make room or choose another '
            '--workdir; the same command resumes from the last checkpoint.'
        ) from error


def nan_to_null(value: Any) -> Any:
    """Returns `value` with everything JSON cannot say replaced by what it can."""
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
    """Returns rows as text columns: the first ones flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)
