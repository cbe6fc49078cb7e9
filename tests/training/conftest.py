"""One small run that several files of tests start from."""

from pathlib import Path

import pytest

from tests.support import train_here, write_config

SMALL = {
    'model__name': 'fcn',
    'model__units': 16,
    'model__depth': 1,
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 0.02,
    'batch_size': 64,
    'steps': 12,
    'log_every': 3,
    'eval_every': 0.2,  # four steps
    'checkpoint__every_steps': 4,
    'checkpoint__keep': 3,
}


@pytest.fixture(scope='session')
def small(tmp_path_factory) -> Path:
    """The configuration of a run of seconds, with checkpoints at steps 4, 8 and 12."""
    return write_config(tmp_path_factory.mktemp('small'), **SMALL)


@pytest.fixture(scope='session')
def small_run(small, tmp_path_factory) -> Path:
    """The workdir of that run, finished; copy it before changing it."""
    workdir = tmp_path_factory.mktemp('small_run') / 'run'
    assert train_here(small, workdir) == 0
    return workdir
