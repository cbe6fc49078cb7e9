"""The calls of engine `slurm` to SLURM, replaced by scripts; tests/cluster/ has the real ones."""

import signal
from types import SimpleNamespace

import pytest

from errors import UserError
from sweeps import slurm_options
from sweeps.slurm_engine import Slurm
from sweeps.slurm_task import SlurmTask

SBATCH = 'cp "$1" {0}/job; echo "Submitted batch job 7"'
BUSY = 'echo "error: Socket timed out" >&2; exit 1'


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Replaces commands of SLURM by shell scripts, whose calls are recorded in `calls`."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder), prepend=':')

    def make(**scripts: str) -> None:
        for name, script in scripts.items():
            new = folder / f'{name}.new'
            new.write_text(f'#!/bin/sh\necho {name} >> {tmp_path}/calls\n{script}\n')
            new.chmod(0o755)
            new.rename(folder / name)

    make(srun='', sbatch=SBATCH.format(tmp_path), squeue='')
    return make


@pytest.fixture
def slurm(tmp_path, commands):
    """Creates the scheduler with --slurm options; its messages are in its `messages`."""

    def make(*options: str) -> Slurm:
        messages = []
        given = {'cpus': None, 'gpus': None, 'slurm': list(options)}
        scheduler = Slurm(SimpleNamespace(folder=tmp_path, options=given, say=messages.append))
        scheduler.messages = messages
        return scheduler

    return make


def test_squeue_is_asked_seldom(slurm, commands, tmp_path):
    scheduler = slurm()
    scheduler.start('worker', 3)
    commands(squeue='echo "7 7 8"')
    assert scheduler.under_way() == 2  # job 8 is another's
    assert [scheduler.under_way() for _ in range(10)] == [2] * 10
    assert (tmp_path / 'calls').read_text().split().count('squeue') == 1
    assert scheduler.start('worker', 2) == 2
    assert scheduler.under_way() == 4  # without another look
    scheduler._next = 0.0  # now it is time for one
    commands(squeue=BUSY)
    assert scheduler.under_way() == 4  # they are not lost
    assert scheduler.messages == []


def test_only_the_first_job_that_is_not_taken_ends_the_sweep(slurm, commands, tmp_path):
    commands(sbatch=BUSY)
    message = r'(?s)^SLURM refused the job; check the --slurm options: .*Socket timed out'
    with pytest.raises(UserError, match=message):
        slurm().start('worker', 2)
    commands(sbatch=SBATCH.format(tmp_path))
    scheduler = slurm()
    assert scheduler.start('worker', 2) == 2
    commands(sbatch=BUSY, squeue='echo 7')
    assert scheduler.under_way() == 1
    assert scheduler.start('worker', 1) == 0
    message = 'SLURM refused the job, which will be submitted again: '
    assert scheduler.messages[0].startswith(message)
    assert scheduler.under_way() is None  # until the next look
    first = scheduler._next
    scheduler._next = 0.0
    assert scheduler.under_way() == 1
    assert scheduler.start('worker', 1) == 0
    assert scheduler._next > first + 10  # it is asked less and less often
    scheduler._next = 0.0
    assert scheduler.under_way() == 1


def test_no_worker_is_started_before_it_is_known_how_many_there_are(slurm, commands):
    slurm().start('worker', 2)
    commands(squeue=BUSY)
    again = slurm()
    for _ in range(2):
        assert again.under_way() is None
        again._next = 0.0
    assert again.messages == ['squeue does not answer: no workers are started until it does']
    commands(squeue='echo "7 7"')
    assert again.under_way() == 2


def test_options_have_the_types_that_submitit_wants(slurm, tmp_path):
    given = (
        'mem_gb=1.5', 'account=007', 'stderr_to_stdout=true', 'timeout_min=30', 'exclusive=true',
        'setup=module load cuda', 'setup=ulimit -n 4096', 'additional_parameters=reservation=r=1',
        'cpus_per_task=4',
    )  # fmt: skip
    slurm(*given).start('worker', 1)
    lines = (tmp_path / 'job').read_text().splitlines()
    for line in (
        '--mem=1536MB', '--account=007', '--time=30', '--exclusive', "--reservation=r=1",
        '--cpus-per-task=4',
    ):  # fmt: skip
        assert f'#SBATCH {line}' in lines
    assert not any('--error' in line for line in lines)
    setup = lines.index('module load cuda')
    assert lines[setup + 1] == 'ulimit -n 4096'
    assert lines[setup + 2].startswith('export PYTHONPATH=')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('partition', '--slurm=partition must be NAME=VALUE, such as partition=gpu'),
        ('additional_parameters=x', 'such as additional_parameters=reservation=mine'),
        ('mem_gb=lots', '--slurm=mem_gb=lots must be a number above 0'),
        ('timeout_min=1:00', '--slurm=timeout_min=1:00 must be a whole number'),
        ('stderr_to_stdout=1', '--slurm=stderr_to_stdout=1 must be true or false'),
    ],
)
def test_a_wrong_option_is_one_sentence(text, message):
    with pytest.raises(UserError) as caught:
        slurm_options.parse([text])
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_an_option_that_submitit_does_not_know_is_refused(slurm):
    with pytest.raises(UserError, match="--engine=slurm: Unknown argument 'partitoin'"):
        slurm('partitoin=gpu')


@pytest.mark.parametrize(
    ('signalled', 'state', 'again'),
    [
        (True, 'echo RUNNING', True),  # preempted
        (True, 'echo COMPLETING', False),  # cancelled
        (True, BUSY, False),
        (False, 'echo RUNNING', False),
    ],
)
def test_at_sigterm_a_job_that_slurm_says_runs_is_queued_again(
    signalled, state, again, commands, monkeypatch
):
    others = 'echo RUNNING; echo COMPLETING'  # the answer for a whole array
    commands(squeue=f'case "$*" in *--jobs=7_1*) {state};; *) {others};; esac')
    for name, value in (
        ('SUBMITIT_EXECUTOR', 'slurm'),
        ('SLURM_JOB_ID', '7'),
        ('SLURM_ARRAY_JOB_ID', '7'),
        ('SLURM_ARRAY_TASK_ID', '1'),
    ):
        monkeypatch.setenv(name, value)
    asked, queued = [], []

    class Worker:
        def __call__(self):
            if signalled:
                signal.raise_signal(signal.SIGTERM)

        def ask_to_stop(self):
            asked.append(True)

    earlier = {
        number: signal.signal(number, lambda number, frame: queued.append(number))
        for number in (signal.SIGTERM, signal.SIGUSR2)
    }
    try:
        SlurmTask(Worker())()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    assert asked == [True] * signalled
    assert queued == [signal.SIGUSR2] * again
