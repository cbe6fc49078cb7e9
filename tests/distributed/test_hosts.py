"""Several devices and several processes: the same batches, the same result, nobody left waiting.

Processes are connected by Gloo on this machine. On a CPU their sums are rounded differently from
those of one process with as many devices, by a part in ten million: the tests ask for 1e-6.
"""

import json
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL
from tests.support import (
    Child,
    Several,
    curve,
    finished,
    free_port,
    last_step,
    outputs,
    result,
    saved_arrays,
    saved_steps,
    train_here,
    write_config,
)

STEPS = 40


@pytest.fixture(scope='module', autouse=True)
def threads():
    """The same number of threads for a process with one device as for one with two.

    XLA's matrix products split their sums by the number of threads, and are rounded accordingly.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PJRT_NPROC', '4')
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """Dropout draws by device, batch norm sums over them, so both notice how they are counted."""
    return write_config(
        tmp_path_factory.mktemp('config'),
        model__name='deep_cnn',
        model__dropout_rate=0.3,
        optimizer__learning_rate=0.002,
        batch_size=32,
        steps=STEPS,
        log_every=1,
        eval_every=0.25,
        checkpoint__every_steps=10,
        checkpoint__keep=4,
    )


@pytest.fixture(scope='module')
def reference(config, tmp_path_factory) -> Path:
    """The workdir of one process with two devices."""
    return finished(config, tmp_path_factory.mktemp('reference'), devices=2)


def difference(ours: Path, theirs: Path, step: int) -> float:
    """The largest difference of two runs' parameters, as a fraction of the largest parameter."""
    ours, theirs = saved_arrays(ours, step), saved_arrays(theirs, step)
    names = [name for name in theirs if name.startswith('params/')]
    assert names
    assert set(ours) == set(theirs)
    largest = max(np.abs(theirs[name]).max() for name in names)
    return max(np.abs(ours[name] - theirs[name]).max() for name in names) / largest


def assert_close_curves(ours: Path, theirs: Path, tolerance: float, batch: int = 32):
    """Compares curves; the accuracy of a batch may differ by one example, as it is a count."""
    ours, theirs = curve(ours), curve(theirs)
    assert [set(record) for record in ours] == [set(record) for record in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for name in one:
            apart = 1 / batch if name.endswith('accuracy') else 0.0
            np.testing.assert_allclose(
                one[name], other[name], rtol=tolerance, atol=apart, err_msg=name
            )


@pytest.mark.slow
def test_two_processes_stopped_and_continued_equal_one_with_two_devices(
    config, reference, tmp_path
):
    workdir = tmp_path / 'run'
    with Several(config, workdir, tmp_path / 'first') as children:
        first, second = children
        assert first.wait_until(lambda: last_step(workdir) >= 2), outputs(children)
        # Only the second is told; both stop, at the same step.
        assert second.kill(signal.SIGTERM) == 75, outputs(children)
        assert first.wait() == 75, outputs(children)
    step = saved_steps(workdir)[-1]
    assert f'SIGTERM: stopped after step {step} of {STEPS} and saved.' in first.output
    assert 'INDEX' in first.output.splitlines()[-1]
    assert 'stopped after' not in second.output  # process 0 alone speaks

    with Several(None, workdir, tmp_path / 'second') as children:
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    assert f'resuming from the checkpoint of step {step}' in children[0].output
    assert 'test accuracy' not in children[1].output
    assert result(workdir)['processes'] == 2
    assert result(workdir)['devices'] == result(reference)['devices'] == 2
    assert difference(workdir, reference, STEPS) < 1e-6
    assert_close_curves(workdir, reference, 1e-4)
    assert abs(result(workdir)['test_correct'] - result(reference)['test_correct']) <= 1
    assert len(list((workdir / 'tensorboard').iterdir())) == 2  # one each start, of process 0


@pytest.mark.slow
def test_two_processes_under_shard_map(config, tmp_path):
    """Against one under shard_map: pmap's step is another program, rounded differently, and one
    number beyond a ReLU's border moves a step's gradient norm by a part in ten thousand."""
    one = finished(config, tmp_path, devices=2, runner='shard_map')
    workdir = tmp_path / 'two'
    with Several(config, workdir, tmp_path / 'logs', runner='shard_map') as children:
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    assert difference(workdir, one, STEPS) < 1e-6
    assert_close_curves(workdir, one, 1e-6)


FAILING_SAVE = """
import train
from errors import UserError
from training import checkpoints
import command

def save(*arguments):
    raise UserError('this disk is full')

checkpoints.Checkpoints.save = save
command.run(train.main)
"""


@pytest.mark.slow
def test_a_failure_of_one_process_ends_the_other(small, tmp_path):
    with Several(small, tmp_path / 'run', tmp_path / 'log', (FAILING_SAVE, None)) as children:
        assert [child.wait() for child in children] == [2, 2], outputs(children)
    assert 'error: this disk is full' in children[0].output
    assert 'error: Process 0 has stopped; its message says why.' in children[1].output


BLIND = """
import train
import command
from training import transfer

transfer.read = None
command.run(train.main)
"""


@pytest.mark.slow
def test_a_probe_of_two_processes_starts_from_what_the_first_has_read(small, small_run, tmp_path):
    fields = {'init_from': small_run, 'linear_probe': True, 'steps': 4, 'seed': 1}
    both, alone = tmp_path / 'both', tmp_path / 'alone'
    with Several(small, both, tmp_path / 'log', (None, BLIND), **fields) as children:
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    assert train_here(small, alone, **fields) == 0
    source, probe = saved_arrays(small_run, 12), saved_arrays(both, 4)
    for name in ('params/dense1/kernel', 'params/dense1/bias'):
        assert probe[name].tobytes() == source[name].tobytes()
    assert difference(both, alone, 4) < 1e-6
    assert_close_curves(both, alone, 1e-4, batch=SMALL['batch_size'])
    assert result(both)['init_from_sha256'] == result(small_run)['params_sha256']


TALKING = """
import json, sys
import numpy as np
from configs import base
from errors import UserError
from distributed import devices, hosts

config = base.get_config()
config.devices = 1
config.distributed = sys.argv[1].partition('=')[2]
devices.start(config)
here = int(config.distributed[-1])
results = {}

def failing(where):
    def function():
        if here == where:
            raise UserError('broken')
        return here
    return function

for name, call in {
    'first': lambda: hosts.on_first(lambda: 'result'),
    'each': lambda: hosts.on_each(lambda: here),
    'first fails': lambda: hosts.on_first(failing(0)),
    'second fails': lambda: hosts.on_each(failing(1)),
    'same': lambda: hosts.check_same('a', 'configurations'),
    'different': lambda: hosts.check_same(str(here), 'configurations'),
}.items():
    try:
        results[name] = call()
    except UserError as error:
        results[name] = f'{type(error).__name__}: {error}'
tree = {
    'float': np.array([-0.0, 0.1, np.nan, 1e-45, np.inf], np.float32),
    'int': np.int32(-7), 'byte': np.array([[0, 255]], np.uint8), 'none': None, 'bool': np.True_,
    'empty': np.zeros((0, 3), np.float32),
}
blank = {k: v if v is None else np.zeros_like(v) for k, v in tree.items()}
copy = hosts.broadcast(tree if here == 0 else blank)
results['broadcast'] = [k for k, v in tree.items() if v is not None and (
    copy[k].tobytes() != v.tobytes() or copy[k].dtype != v.dtype or copy[k].shape != v.shape)]
print(json.dumps(results))
"""


def test_what_processes_tell_each_other(tmp_path):
    address = f'127.0.0.1:{free_port()}'
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child([f'--to={address},2,{i}'], tmp_path / f'log{i}', TALKING))
            for i in range(2)
        ]
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    first, second = (json.loads(child.output.splitlines()[-1]) for child in children)
    assert (first.pop('first'), second.pop('first')) == ('result', None)
    assert (first.pop('each'), second.pop('each')) == (0, 1)
    stopped = 'UserError: Process {} has stopped; its message says why.'
    assert first.pop('first fails') == 'UserError: broken'
    assert second.pop('first fails') == stopped.format(0)
    assert first.pop('second fails') == stopped.format(1)
    assert second.pop('second fails') == 'UserError: broken'
    different = (
        'UserError: The processes have different configurations: start all of them in the same way.'
    )
    assert first == second == {'same': None, 'different': different, 'broadcast': []}


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory) -> Path:
    """The workdir of a run of two processes.

    Dropout is keyed by device, and so is no part of what stays the same on other numbers of them. A
    rate that drops nothing, but needs no other program than the runs above.
    """
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    log = workdir.with_name('log')
    with Several(config, workdir, log, model__dropout_rate=1e-9) as children:
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 4])
def test_a_run_of_two_processes_goes_on_on_other_numbers(processes, whole, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(whole, workdir)
    for step in ('20', '30', '40'):
        shutil.rmtree(workdir / 'checkpoints' / step)
    with Several(None, workdir, tmp_path / 'log', (None,) * processes) as children:
        assert [child.wait() for child in children] == [0] * processes, outputs(children)
    assert 'resuming from the checkpoint of step 10' in children[0].output
    assert result(workdir)['processes'] == result(workdir)['devices'] == processes
    # One record for each batch: other examples would give a loss that differs by per cents. Sums
    # over other numbers of devices are rounded differently, which training amplifies.
    assert_close_curves(workdir, whole, 2e-3)
    assert difference(workdir, whole, STEPS) < 1e-4
