"""A sweep on a Ray cluster of two worker nodes on this machine, of which one is lost.

`make test-ray` runs it: Ray is large, and starting its nodes takes half a minute.
"""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import ROOT
from tests.support import LONG, SPACE, Child, arguments, saved_steps, trials_of, write_config

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip('ray', reason='pip install -r requirements-ray.txt')


@pytest.fixture
def cluster(monkeypatch):
    """A head without cores, and two nodes with two each; a lost one is noticed within seconds."""
    for name, value in (
        ('RAY_USAGE_STATS_ENABLED', '0'),
        ('RAY_health_check_initial_delay_ms', '500'),
        ('RAY_health_check_period_ms', '500'),
        ('RAY_health_check_failure_threshold', '4'),
    ):
        monkeypatch.setenv(name, value)
    from ray import cluster_utils

    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={'num_cpus': 0})
    cluster.nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def lose(cluster, node) -> None:
    """Kills a node's daemon and everything below it: as if the machine had gone."""
    raylet = psutil.Process(node.all_processes['raylet'][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)


def test_a_lost_node_loses_no_trial(cluster, tmp_path):
    file = tmp_path / 'space.py'
    file.write_text(SPACE % '')
    # The nodes were started elsewhere, and have to find what a relative path names.
    first = write_config(tmp_path, model__name='lenet', batch_size=64, steps=1)
    with Child(arguments(first, tmp_path / 'first'), tmp_path / 'first.log') as child:
        assert child.wait() == 0, child.output
    config = write_config(
        tmp_path, model__name='lenet', batch_size=64, optimizer__name='adam', steps=600,
        log_every=10, eval_every=2, checkpoint__every_steps=50, init_from='first',
    )  # fmt: skip
    folder, log = tmp_path / 'sweep', tmp_path / 'log'
    command = [
        sys.executable, ROOT / 'sweep.py', f'--config={config}', f'--sweep={file}',
        f'--workdir={folder}', '--engine=ray', f'--ray_address={cluster.address}', '--jobs=2',
        '--cpus=2', '--sampler=random', '--pruner=none', '--trials=5',
    ]  # fmt: skip

    def started():
        return [path.parent for path in folder.glob('trials/*/metrics.jsonl')]

    with log.open('wb') as out:
        sweep = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    try:
        end = time.monotonic() + LONG
        while len([run for run in started() if saved_steps(run)]) < 2:
            assert sweep.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        lose(cluster, cluster.nodes[1])
        assert sweep.wait(2 * LONG) == 0, log.read_text()
    finally:
        sweep.kill()
    rows = trials_of(folder)
    assert [row['trial'] for row in rows] == [str(n) for n in range(5)], log.read_text()
    assert {row['state'] for row in rows} == {'complete'}, log.read_text()
    assert {row['steps'] for row in rows} == {'600'}
    # One trial was begun twice, in the same folder, and went on.
    went_on = [path for path in folder.glob('trials/*.log') if 'resuming from' in path.read_text()]
    assert len(went_on) == 1


def test_told_to_stop_its_workers_save_and_the_same_command_goes_on(tmp_path):
    file = tmp_path / 'space.py'
    file.write_text(SPACE % '')
    config = write_config(tmp_path, model__name='lenet', batch_size=64, steps=600, log_every=10)
    folder, log = tmp_path / 'sweep', tmp_path / 'log'
    command = [sys.executable, 'sweep.py', f'--config={config}', f'--sweep={file}', '--trials=2',
               f'--workdir={folder}', '--engine=ray', '--ray_address=local',
               '--jobs=2']  # fmt: skip

    def start() -> subprocess.Popen:
        with log.open('ab') as out:
            return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)

    sweep = start()
    try:
        end = time.monotonic() + LONG
        while not list(folder.glob('trials/*/metrics.jsonl')):
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(LONG) == 75, log.read_text()
    finally:
        sweep.kill()
    assert list((folder / 'workers').iterdir()) == []
    assert any('and saved' in path.read_text() for path in folder.glob('trials/*.log'))
    assert start().wait(LONG) == 0, log.read_text()
    rows = trials_of(folder)
    assert [row['trial'] for row in rows] == ['0', '1']
    assert 'running' not in {row['state'] for row in rows}


def test_no_such_cluster_is_one_sentence(tmp_path):
    file = tmp_path / 'space.py'
    file.write_text(SPACE % '')
    config = write_config(tmp_path, model__name='lenet')
    command = [sys.executable, 'sweep.py', f'--config={config}', f'--sweep={file}',
               f'--workdir={tmp_path / "sweep"}', '--engine=ray']  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert '--ray_address=auto: no such Ray cluster answers' in done.stderr
    assert 'Traceback' not in done.stderr
