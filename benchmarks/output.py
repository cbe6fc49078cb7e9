"""The file for the figures of a benchmark, --output."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from errors import UserError


@contextlib.contextmanager
def reserved(output: Path | None) -> Iterator[Path | None]:
    """Creates the file, which must not be there; it goes again if nothing is written into it.

    Raises:
      UserError: it is there, or cannot be written; nothing has been measured for it yet.
    """
    if output is None:
        yield None
        return
    try:
        output.open('x').close()
    except FileExistsError as error:
        raise UserError(f'--output={output} is there already: choose another name.') from error
    except OSError as error:
        why = error.strerror
        if isinstance(error, FileNotFoundError):
            why += '; it is in a folder that does not exist'
        raise UserError(f'--output={output} cannot be written: {why}.') from error
    try:
        yield output
    finally:
        if not output.stat().st_size:
            output.unlink()
