"""The four files of MNIST: where they are, what they must be, and fetching them.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998. The sizes
and hashes are those of the files as published by the authors.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from errors import UserError

MIRRORS = (
    'https://ossci-datasets.s3.amazonaws.com/mnist/',
    'https://storage.googleapis.com/cvdf-datasets/mnist/',
)
FILES = {  # name: (bytes, sha256)
    'train-images-idx3-ubyte.gz': (
        9_912_422,
        '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    ),
    'train-labels-idx1-ubyte.gz': (
        28_881,
        '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    ),
    't10k-images-idx3-ubyte.gz': (
        1_648_877,
        '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    ),
    't10k-labels-idx1-ubyte.gz': (
        4_542,
        'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
    ),
}
_TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 16


def check_files(folder: Path) -> None:
    """Refuses a folder unless it holds MNIST's four .gz files, byte for byte.

    Raises:
      UserError: a file is missing, cannot be read, or differs in size or sha256.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f'{folder / name} is missing: the four MNIST .gz files are needed.')
        if fault := _fault(folder / name):
            raise UserError(
                f'{folder / name} is not the MNIST file of that name: {fault}. '
                'Fetch it again, or leave out --source to download it.'
            )


def download(folder: Path) -> None:
    """Fetches those of the four files that `folder` does not hold yet, and checks them.

    Raises:
      UserError: no mirror gave a sound file, or the folder cannot be written.
    """
    with Progress(
        *Progress.get_default_columns(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
    ) as progress:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if not (folder / name).is_file() or _fault(folder / name):
                    _download_file(folder / name, progress)
        except OSError as error:
            raise UserError(f'Cannot write {folder}: {error.strerror or error}.') from error


def _download_file(path: Path, progress: Progress) -> None:
    """Tries each mirror; only a complete file with the right hash gets its name."""
    part = path.with_name(f'{path.name}.part')
    faults = []
    for mirror in MIRRORS:
        task = progress.add_task(path.name, total=FILES[path.name][0])
        fault = _fetch(mirror + path.name, part, lambda n, task=task: progress.advance(task, n))
        fault = fault or _fault(part, FILES[path.name])
        if not fault:
            part.replace(path)
            return
        progress.remove_task(task)
        part.unlink(missing_ok=True)
        faults.append(f'{mirror}: {fault}')
    raise UserError(
        f'Cannot download {path.name} ({"; ".join(faults)}). Check the network, or fetch the four '
        'MNIST .gz files elsewhere and pass --source=FOLDER.'
    )


def _fetch(address: str, path: Path, advance) -> str:
    """Copies an address into a file; returns what went wrong with the network, or ''."""
    limit = FILES[address.rpartition('/')[2]][0] + 1  # a wrong file may be endless
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


def _fault(path: Path, expected: tuple[int, str] | None = None) -> str:
    """Returns how a file differs from the published one, or ''."""
    size, sha256 = expected or FILES[path.name]
    if (found := path.stat().st_size) != size:
        return f'{found} bytes, expected {size}'
    with path.open('rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return '' if digest == sha256 else f'sha256 {digest}, expected {sha256}'
