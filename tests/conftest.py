"""Fixtures shared by all tests. Nothing here may start JAX: children choose their own devices."""

import gc
import os
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get('SHARED_DATA', ROOT.parent / 'shared' / 'data'))
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


def pytest_configure(config):
    # Tracing a network makes objects by the million, and Python collects garbage after every 700.
    gc.set_threshold(50_000, 20, 10)
    # No test fails because a machine is slow, or because it draws what no other run has drawn.
    hypothesis.settings.register_profile(
        'tests',
        deadline=None,
        derandomize=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile('tests')


@pytest.fixture(scope='session', autouse=True)
def compilation_cache(tmp_path_factory):
    """One cache of compiled programs for all tests of this process and their children.

    Not the user's own, so that the tests start from nothing and leave nothing behind.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session', autouse=True)
def plot_curves():
    """Runs in this process leave a curves.png without a picture; yields the function that draws.

    Drawing takes as long as all else of a small run.
    """
    from training import curves

    def leave_out(workdir, *about):
        path = Path(workdir) / curves.CURVES_FILE
        path.write_bytes(b'')
        return path

    with pytest.MonkeyPatch.context() as patch:
        draw = curves.plot_curves
        patch.setattr(curves, 'plot_curves', leave_out)
        yield draw


@pytest.fixture
def drawing(plot_curves, monkeypatch):
    """The runs of this test draw their curves all the same."""
    monkeypatch.setattr('training.curves.plot_curves', plot_curves)


@pytest.fixture
def own_are_forgotten(monkeypatch):
    """Models and tasks that a test registers are forgotten after it."""
    import models.registry
    import tasks.registry

    monkeypatch.setattr(models.registry, '_MODELS', dict(models.registry._MODELS))
    monkeypatch.setattr(tasks.registry, '_TASKS', dict(tasks.registry._TASKS))


@pytest.fixture(scope='module')
def compiled_in_haste():
    """XLA optimises little: what takes long to compile, and is run once, is done a third sooner.

    For tests of what a network is made of; where rounding or speed counts, test what users run.
    """
    import jax

    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='session')
def mnist_idx_dir() -> Path:
    """The folder with MNIST's four idx .gz files; the test is skipped where there is none."""
    folder = SHARED_DATA / 'mnist'
    if not (folder / 'train-images-idx3-ubyte.gz').exists():
        pytest.skip(
            f'needs the four MNIST idx files in {folder} (set SHARED_DATA to point elsewhere)'
        )
    return folder


@pytest.fixture(scope='session')
def digit_set(tmp_path_factory) -> Path:
    """A data folder with the streamed set "pictures": 300 real digits as JPEGs of many sizes."""
    from tests.support import once
    from tests.support_pictures import digit_folder
    from tools import prepare_data

    def make(folder):
        source = digit_folder(folder / 'source')
        command = ['folder', '--name=pictures', f'--source={source}', f'--data_dir={folder}']
        assert prepare_data.main(command) == 0

    return once(tmp_path_factory, 'digit_set', make)


@pytest.fixture(scope='session')
def imagenet_set(tmp_path_factory) -> Path:
    """A data folder with "imagenet2012": 200 real pictures for training, 50 for validation."""
    from tests.support import once
    from tests.support_pictures import imagenet_tars
    from tools import prepare_data

    def make(folder):
        source = imagenet_tars(folder / 'source')
        command = ['imagenet2012', f'--source={source}', f'--data_dir={folder}']
        assert prepare_data.main(command) == 0

    return once(tmp_path_factory, 'imagenet_set', make)


@pytest.fixture(scope='session')
def small(tmp_path_factory) -> Path:
    """The configuration of a run of seconds, with checkpoints at steps 4, 8 and 12."""
    from tests.support import write_config

    return write_config(tmp_path_factory.mktemp('small'), **SMALL)


@pytest.fixture(scope='session')
def small_run(small, plot_curves, tmp_path_factory) -> Path:
    """The workdir of that run, finished; copy it before changing it."""
    from tests.support import once, train_here

    def make(workdir):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('training.curves.plot_curves', plot_curves)
            assert train_here(small, workdir) == 0

    return once(tmp_path_factory, 'small_run', make)


@pytest.fixture(scope='session')
def lenet_run(plot_curves, tmp_path_factory) -> Path:
    """The workdir of a LeNet that reads the embedded digits, finished; copy it to change it.

    It is that of configs/digits_lenet.py with a tenth of the steps.
    """
    from tests.support import once, train_here

    def make(workdir):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('training.curves.plot_curves', plot_curves)
            config = ROOT / 'configs' / 'digits_lenet.py'
            assert train_here(config, workdir, epochs=6, schedule__warmup=1) == 0

    return once(tmp_path_factory, 'lenet_run', make)
