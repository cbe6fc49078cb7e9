"""Sweeps and training jobs in a SLURM cluster: run by tests/cluster/run_slurm.sh alone.

States are waited for, never times: how long SLURM takes to act is its own affair.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import (
    LONG,
    SPACE,
    Several,
    curve,
    free_port,
    last_step,
    outputs,
    result,
    trials_of,
    write_config,
)

pytestmark = pytest.mark.slurm
FIELDS = {
    'model__name': 'lenet',
    'batch_size': 64,
    'optimizer__name': 'adam',
    'log_every': 10,
    'checkpoint__every_steps': 50,
}


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def queue(job: str = '') -> list[tuple[str, str]]:
    """(task, state) of what is in the queue."""
    lines = slurm('squeue', '--noheader', '--array', '--format=%i %F %T').splitlines()
    return [(task, state) for task, of, state in map(str.split, lines) if job in ('', of)]


def wait_until(happened: Callable[[], bool], what: Callable[[], str]) -> None:
    end = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def processes_of(*commands: bytes, **environment) -> list[int]:
    """The processes of a task whose command has such a word, found by what SLURM told them."""
    found = []
    wanted = {f'{name}={value}'.encode() for name, value in environment.items()}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            words = set((folder / 'environ').read_bytes().split(b'\0'))
            command = (folder / 'cmdline').read_bytes()
        except OSError:
            continue
        if wanted <= words and b'srun' not in command and any(c in command for c in commands):
            found.append(int(folder.name))
    return found


@pytest.fixture
def config(tmp_path) -> Path:
    return write_config(tmp_path, **FIELDS, steps=900, eval_every=5)


@pytest.fixture(autouse=True)
def same_threads(monkeypatch):
    """XLA splits the sums of a matrix product by the number of threads."""
    monkeypatch.setenv('PJRT_NPROC', '4')
    monkeypatch.setenv('PYTHON', sys.executable)


def test_a_job_of_two_processes_survives_signals_and_the_loss_of_one(config, tmp_path, monkeypatch):
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', f'127.0.0.1:{free_port()}')
    monkeypatch.setenv('WAIT', '20')  # longer than others need to see that one is gone
    workdir, output = tmp_path / 'run', tmp_path / 'job.out'
    job = slurm(
        'sbatch', '--parsable', '--gpus-per-node=0', '--cpus-per-task=4', '--mem=2000',
        f'--output={output}', f'--chdir={ROOT}', str(ROOT / 'cluster' / 'many_nodes.sbatch'),
        f'--config={config}', f'--workdir={workdir}', '--config.devices=1',
        '--config.distributed_timeout=20',
    )  # fmt: skip

    def said() -> str:
        text = output.read_text() if output.exists() else ''
        return f'{queue(job)}\n{text}'

    def runs_on(step: int) -> Callable[[], bool]:
        return lambda: workdir.exists() and last_step(workdir) >= step

    wait_until(runs_on(100), said)
    slurm('scancel', '--signal=USR2', job)  # what SLURM sends before the time is up
    wait_until(lambda: 'saved and stopped (75): queued again' in said(), said)
    stopped = last_step(workdir)
    assert stopped < 900

    # The second cannot even end itself: SLURM has to, when the others have ended.
    for failure, number in enumerate((signal.SIGKILL, signal.SIGSTOP), 1):
        wait_until(runs_on(last_step(workdir) + 100), said)
        for process in processes_of(b'train.py', SLURM_JOB_ID=job, SLURM_PROCID=1):
            os.kill(process, number)
        wait_until(lambda: f'failure {failure}: queued again' in said(), said)  # noqa: B023
        assert said().count('no longer answers') == failure
        assert last_step(workdir) < 900

    wait_until(lambda: not queue(job), said)
    assert said().count('resuming from the checkpoint') == 3
    found = result(workdir)
    assert found['processes'] == found['devices'] == 2

    undisturbed = tmp_path / 'undisturbed'
    with Several(config, undisturbed, tmp_path / 'log') as children:
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    assert found['params_sha256'] == result(undisturbed)['params_sha256']
    assert curve(workdir) == curve(undisturbed)


def test_a_mistake_ends_the_job_on_one_node(config, tmp_path):
    output = tmp_path / 'job.out'
    code = subprocess.run(
        ['sbatch', '--wait', '--gpus-per-node=0', '--cpus-per-task=4', '--mem=2000',
         f'--output={output}', f'--chdir={ROOT}', ROOT / 'cluster' / 'one_node.sbatch',
         f'--config={config}', f'--workdir={tmp_path / "run"}', '--config.batch_size=0'],
        check=False,
    ).returncode  # fmt: skip
    assert code == 2
    assert 'config.batch_size' in output.read_text()
    assert 'queued again' not in output.read_text()


def test_a_sweep_whose_workers_are_cancelled_killed_and_queued_again(tmp_path):
    file = tmp_path / 'space.py'
    file.write_text(SPACE % '')
    config = write_config(tmp_path, **FIELDS, steps=400, eval_every=2)
    folder = tmp_path / 'sweep'
    command = [
        sys.executable, ROOT / 'sweep.py', f'--config={config}', f'--sweep={file}',
        f'--workdir={folder}', '--engine=slurm', '--jobs=4', '--sampler=random', '--pruner=none',
        '--cpus=4', '--slurm=partition=main', '--trials=6',
    ]  # fmt: skip
    log = tmp_path / 'log'
    with log.open('wb') as file:
        sweep = subprocess.Popen(command, stdout=file, stderr=file)

    def said() -> str:
        logs = [path.read_text() for path in sorted((folder / 'slurm').glob('*_log.*'))]
        return '\n'.join([str(queue()), log.read_text(), *logs])

    def at_work() -> list[Path]:
        done = {path.parent for path in (folder / 'trials').glob('*/result.json')}
        started = {path.parent for path in (folder / 'trials').glob('*/metrics.jsonl')}
        return sorted(path for path in started - done if last_step(path) >= 20)

    try:
        wait_until(lambda: len(at_work()) == 4, said)
        hurt = at_work()
        tasks = sorted(task for task, state in queue() if state == 'RUNNING')
        cancelled, killed, preempted, late = tasks
        slurm('scancel', cancelled)  # it saves, and others take its trial
        job, place = killed.split('_')
        both = b'submitit.core', b'train.py'
        for process in processes_of(*both, SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID=place):
            os.kill(process, 9)
        # These save, and are queued again.
        slurm('scancel', '--signal=TERM', preempted)
        slurm('scancel', '--signal=USR2', late)
        for task in (preempted, late):
            wait_until(lambda task=task: f'Requeued job {task} ' in said(), said)

        wait_until(lambda: sweep.poll() is not None, said)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, said()
    rows = trials_of(folder)
    assert [row['trial'] for row in rows] == [str(n) for n in range(6)], said()
    assert {row['state'] for row in rows} == {'complete'}, said()
    assert queue() == []
    assert f'Requeued job {cancelled}' not in said()

    # Those that were interrupted found what train.py finds.
    for trial in hurt:
        alone = tmp_path / f'alone{trial.name}'
        stored = json.loads(trial.with_suffix('.json').read_text())
        again = write_config(tmp_path)
        again.write_text(json.dumps(stored))
        command = [sys.executable, 'train.py', f'--config={again}', f'--workdir={alone}']
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert result(alone)['params_sha256'] == result(trial)['params_sha256']
