"""Downloads published files from one of several mirrors, and checks their size and hash."""

import dataclasses
import functools
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from errors import UserError

_TIMEOUT = 30  # seconds without data
_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Published:
    """A file as its authors published it.

    Attributes:
      name: the name of the file.
      size: its size in bytes.
      digest: its hash in hexadecimal.
      algorithm: hashlib's name for the algorithm of the hash.
    """

    name: str
    size: int
    digest: str
    algorithm: str = 'sha256'


def fetch(
    folder: Path, files: Iterable[Published], mirrors: Sequence[str], description: str, option: str
) -> None:
    """Downloads the files that `folder` does not have yet, and checks them.

    Args:
      folder: where the files go; it is created if necessary.
      files: the files to download.
      mirrors: addresses to which a file's name is appended, tried in this order.
      description: names the files in the error message.
      option: the option that passes files to the command, for the error message.

    Raises:
      UserError: no mirror has the published file, or the folder cannot be written.
    """
    with Progress(
        *Progress.get_default_columns(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
    ) as progress:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                path = folder / file.name
                if path.is_file() and not find_fault(path, file):
                    continue
                if faults := _fetch_one(path, file, mirrors, progress):
                    raise UserError(
                        f'Cannot download {file.name} ({"; ".join(faults)}). Check the network, or '
                        f'download {description} elsewhere and pass {option}.'
                    )
        except OSError as error:
            raise UserError(
                f'Cannot write {folder}: {error.strerror or error}. Free some space, or choose '
                'another --data_dir.'
            ) from error


def find_fault(path: Path, file: Published) -> str:
    """Returns how the file at `path` differs from the published one, or ''."""
    if (size := path.stat().st_size) != file.size:
        return f'{size} bytes, expected {file.size}'
    with path.open('rb') as opened:
        digest = hashlib.file_digest(opened, file.algorithm).hexdigest()
    if digest == file.digest:
        return ''
    return f'{file.algorithm} {digest}, expected {file.digest}'


def _fetch_one(
    path: Path, file: Published, mirrors: Sequence[str], progress: Progress
) -> list[str]:
    """Tries each mirror until one succeeds; returns the faults of the mirrors if none does."""
    # The file gets its final name only once it is complete and has the right hash.
    temporary = path.with_name(f'{path.name}.part')
    faults = []
    for mirror in mirrors:
        task = progress.add_task(path.name, total=file.size)
        advance = functools.partial(progress.advance, task)
        fault = _copy(mirror + file.name, temporary, file.size, advance)
        fault = fault or find_fault(temporary, file)
        if not fault:
            temporary.replace(path)
            return []
        progress.remove_task(task)
        temporary.unlink(missing_ok=True)
        faults.append(f'{mirror}: {fault}')
    return faults


def _copy(address: str, path: Path, size: int, advance: Callable[[int], None]) -> str:
    """Downloads an address into a file; returns what went wrong with the network, or ''."""
    limit = size + 1  # a wrong file may have no end
    with path.open('wb') as file:
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
                while limit > 0 and (block := answer.read(min(_BLOCK, limit))):
                    limit -= file.write(block)
                    advance(len(block))
        except urllib.error.URLError as error:
            return str(error.reason)
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
    return ''
