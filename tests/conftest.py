"""Fixtures shared by all tests. Nothing here may start JAX: children choose their own devices."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get('SHARED_DATA', ROOT.parent / 'shared' / 'data'))


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """One cache of compiled programs for all tests of this process and their children.

    Not the user's own, so that the tests start from nothing and leave nothing behind.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session')
def mnist_idx_dir() -> Path:
    """The folder with MNIST's four idx .gz files; the test is skipped where there is none."""
    folder = SHARED_DATA / 'mnist'
    if not (folder / 'train-images-idx3-ubyte.gz').exists():
        pytest.skip(
            f'needs the four MNIST idx files in {folder} (set SHARED_DATA to point elsewhere)'
        )
    return folder
