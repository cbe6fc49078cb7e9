"""Fixtures shared by all tests. Nothing here may start JAX: children choose their own devices."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get('SHARED_DATA', ROOT.parent / 'shared' / 'data'))


@pytest.fixture(scope='session')
def mnist_idx_dir() -> Path:
    """The folder with MNIST's four idx .gz files; the test is skipped where there is none."""
    folder = SHARED_DATA / 'mnist'
    if not (folder / 'train-images-idx3-ubyte.gz').exists():
        pytest.skip(
            f'needs the four MNIST idx files in {folder} (set SHARED_DATA to point elsewhere)'
        )
    return folder
