"""Downloads and checks the four files of MNIST.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998. The sizes
and hashes are those of the files that the authors published.
"""

from pathlib import Path

from errors import UserError
from preparation import downloads
from preparation.downloads import Published

MIRRORS = (
    'https://ossci-datasets.s3.amazonaws.com/mnist/',
    'https://storage.googleapis.com/cvdf-datasets/mnist/',
)
FILES = {
    file.name: file
    for file in (
        Published(
            'train-images-idx3-ubyte.gz',
            9_912_422,
            '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
        ),
        Published(
            'train-labels-idx1-ubyte.gz',
            28_881,
            '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
        ),
        Published(
            't10k-images-idx3-ubyte.gz',
            1_648_877,
            '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
        ),
        Published(
            't10k-labels-idx1-ubyte.gz',
            4_542,
            'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
        ),
    )
}


def check_files(folder: Path) -> None:
    """Checks that a folder has the four .gz files of MNIST, byte for byte.

    Raises:
      UserError: a file is missing, cannot be read, or differs in size or sha256.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(
                f'{folder / name} is missing: the four MNIST .gz files are needed. Add it, or '
                'leave out --source to have them downloaded.'
            )
        if fault := downloads.find_fault(folder / name, FILES[name]):
            raise UserError(
                f'{folder / name} is not the MNIST file of that name: {fault}. '
                'Download it again, or leave out --source to have it downloaded.'
            )


def download(folder: Path) -> None:
    """Downloads the files that `folder` does not have yet, and checks them.

    Raises:
      UserError: no mirror has the published file, or the folder cannot be written.
    """
    downloads.fetch(folder, FILES.values(), MIRRORS, 'the four MNIST .gz files', '--source=FOLDER')
