"""When a process hangs, dies or never starts, the others end and name it."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distributed import watchdog
from distributed.watchdog import Heartbeat
from tests.conftest import ROOT
from tests.support import Several, last_step, outputs

LIMITS = (30.0, 600.0)
HOST = socket.gethostname()


def heartbeat(reached: int, host: str = 'a', count: int = 1) -> Heartbeat:
    return Heartbeat(count, reached, f'step {reached}', host)


@pytest.mark.parametrize(
    ('heartbeats', 'silent', 'waited', 'sentence'),
    [
        ([heartbeat(3), heartbeat(3), heartbeat(3)], {1: 2.0, 2: 2.0}, 599.0, None),
        ([heartbeat(3), heartbeat(2, 'b')], {1: 1.0}, 599.0, None),
        (
            [heartbeat(3), heartbeat(2, 'b')],
            {1: 1.0},
            600.0,
            'Process 1 (b) did not arrive at step 3 within 600 s (config.distributed_timeout); '
            'last seen at step 2.',
        ),
        (
            [heartbeat(4), heartbeat(4), heartbeat(1, 'c'), heartbeat(2, 'd')],
            {1: 1.0, 2: 1.0, 3: 1.0},
            700.0,
            'Processes 2 (c), 3 (d) did not arrive at step 2 within 600 s '
            '(config.distributed_timeout); last seen at step 1, step 2.',
        ),
        (
            [heartbeat(3), heartbeat(3)],
            {1: 1.0},
            601.0,
            'All processes arrived at step 3, but it did not end within 600 s '
            '(config.distributed_timeout): a device or the network hangs.',
        ),
        # A dead process is not waited for, wherever it was.
        (
            [heartbeat(3), heartbeat(3), heartbeat(3, 'c')],
            {1: 29.0, 2: 30.0},
            40.0,
            'Process 2 (c) no longer answers (killed, stopped, or its machine or network is gone); '
            'last seen at step 3.',
        ),
    ],
)
def test_who_is_to_blame(heartbeats, silent, waited, sentence):
    points = {number: f'step {number}' for number in range(1, heartbeats[0].reached + 1)}
    ranked = dict(enumerate(heartbeats))
    assert watchdog.verdict(ranked, silent, points, waited, LIMITS) == sentence


# A process that waits for another, which is alive but does not arrive; the store is a fake.
WAITING = """
import itertools
import json
import sys
import time
from distributed import watchdog

class Store:
    counter = itertools.count()

    def key_value_set(self, *arguments, **options):
        pass

    def key_value_dir_get(self, folder):
        if 'verdict' in folder:
            return []
        count = next(self.counter)
        heartbeats = [count, 1, 'step 1', 'a'], [count, 0, 'the start', 'b']
        return [(f'{{folder}}{{rank}}', json.dumps(h)) for rank, h in enumerate(heartbeats)]

{first}
dog = watchdog.Watchdog(Store(), 0, 2, {timeout})
print('waits', flush=True)
with dog.waiting('step 1'):
    time.sleep(600)
"""


def waiting(timeout: float, first: str = '', **options) -> subprocess.Popen:
    script = WAITING.format(timeout=timeout, first=first)
    child = subprocess.Popen(
        [sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    )
    assert child.stdout.readline() == 'waits\n'
    return child


@pytest.mark.slow
def test_what_was_waited_between_pauses_adds_up():
    first = 'watchdog.INTERVAL, watchdog.SUSPENDED_AFTER = 0.2, 1.0'
    with waiting(4.0, first, stderr=subprocess.PIPE) as child:
        for _ in range(20):
            child.send_signal(signal.SIGSTOP)
            time.sleep(2)
            child.send_signal(signal.SIGCONT)
            time.sleep(1.5)
            if child.poll() is not None:
                break
        child.kill()
        errors = child.stderr.read()
    assert child.returncode == 69
    assert 'error: Process 1 (b) did not arrive at step 1 within 4 s' in errors


@pytest.mark.slow
def test_a_process_ends_even_where_nothing_can_be_printed():
    with Path('/dev/full').open('w') as full, waiting(4.0, stderr=full) as child:
        assert child.wait(60) == 69


@pytest.mark.parametrize(
    ('text', 'of_connection'),
    [
        ('FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer', True),
        ('INTERNAL: NCCL operation ncclAllReduce failed: remote process exited', True),
        ('Unable to initialize backend cuda: DEADLINE_EXCEEDED: Barrier timed out', True),
        ('UNAVAILABLE: Socket closed', True),
        ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate', False),
        ('Unable to initialize backend tpu: ABORTED: already in use by process 7', False),
        ('NCCL operation failed: unhandled cuda error. Last error: out of memory', False),
        ('NCCL error: /dev/shm/nccl-x: No space left on device', False),
        ('a defect', False),
    ],
)
def test_which_errors_may_come_from_another_process(text, of_connection):
    assert watchdog.is_of_connection(RuntimeError(text)) == of_connection


HANGING = """
import time
import train
import command
from training import placement

original = placement.Placement.train_batches

def a_disk_that_does_not_answer():
    time.sleep(10_000)

def train_batches(self, *arguments):
    for number, batch in enumerate(original(self, *arguments)):
        if number == 4:
            a_disk_that_does_not_answer()
        yield batch

placement.Placement.train_batches = train_batches
command.run(train.main)
"""


@pytest.mark.slow
def test_one_that_hangs_is_named_and_shows_where_it_is(small, tmp_path):
    fields = {'distributed_timeout': 10, 'log_every': 1}
    with Several(small, tmp_path / 'run', tmp_path / 'log', (None, HANGING), **fields) as children:
        assert [child.wait() for child in children] == [69, 69], outputs(children)
    sentence = (
        f'error: Process 1 ({HOST}) did not arrive at step 5 within 10 s '
        '(config.distributed_timeout); last seen at '
    )
    assert all(sentence in child.output for child in children), outputs(children)
    assert 'Traceback' not in children[0].output
    assert 'in a_disk_that_does_not_answer' in children[1].output
    assert 'in a_disk_that_does_not_answer' not in children[0].output


# A process 0 that is still writing a checkpoint when it has to end.
WRITING = """
import threading
import time
import train
from training import checkpoints
import command

original = checkpoints.Checkpoints.wait

def wait(self):
    if threading.current_thread() is threading.main_thread():
        return original(self)
    time.sleep(2)
    (self.folder / 'written').touch()

checkpoints.Checkpoints.wait = wait
command.run(train.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'rank', 'sentence'),
    [
        (signal.SIGKILL, 2, f'Process 2 ({HOST}) no longer answers (killed, '),
        # The process through which the others are connected.
        (signal.SIGSTOP, 0, f'Process 0 ({HOST}), through which the others are connected, no '),
        pytest.param(
            signal.SIGSTOP, 2, f'Process 2 ({HOST}) no longer answers', marks=pytest.mark.full
        ),
    ],
    ids=str,
)
def test_one_that_is_killed_or_stopped_is_named_by_all_others(
    number, rank, sentence, small, tmp_path
):
    workdir, scripts = tmp_path / 'run', (WRITING, None, None)
    fields = {'distributed_timeout': 16, 'steps': 100_000, 'log_every': 10, 'batch_size': 60}
    with Several(small, workdir, tmp_path / 'log', scripts, **fields) as children:
        assert children[0].wait_until(lambda: last_step(workdir) >= 10), outputs(children)
        children[rank].process.send_signal(number)
        others = [child for number, child in enumerate(children) if number != rank]
        assert [child.wait() for child in others] == [69, 69], outputs(children)
    assert all(f'error: {sentence}' in child.output for child in others), outputs(children)
    assert not any('Traceback' in child.output for child in others)
    assert (workdir / 'checkpoints' / 'written').exists() == (rank != 0)


@pytest.mark.slow
def test_a_pause_of_all_is_no_loss(small, tmp_path):
    workdir = tmp_path / 'run'
    fields = {'distributed_timeout': 12, 'steps': 100_000, 'log_every': 10}
    with Several(small, workdir, tmp_path / 'log', **fields) as children:
        assert children[0].wait_until(lambda: last_step(workdir) >= 10), outputs(children)
        for child in children:
            child.process.send_signal(signal.SIGSTOP)
        time.sleep(14)  # longer than any limit of theirs
        reached = last_step(workdir)
        for child in children:
            child.process.send_signal(signal.SIGCONT)
            time.sleep(1)
        # Long enough for a verdict on the heartbeats from before the pause.
        end = time.monotonic() + 4
        goes_on = lambda: last_step(workdir) > reached + 10 and time.monotonic() > end  # noqa: E731
        assert children[0].wait_until(goes_on), outputs(children)
        assert children[1].running, outputs(children)


@pytest.mark.slow
def test_one_that_never_starts_is_named(small, tmp_path):
    fields = {'distributed_timeout': 10}
    scripts = (None, Several.ABSENT, None)
    with Several(small, tmp_path / 'run', tmp_path / 'log', scripts, **fields) as children:
        assert [child.wait() for child in children] == [69, 69], outputs(children)
    for child in children:
        assert 'error: Process 1 of 3 did not start within 10 s: look at its' in child.output
        assert 'Traceback' not in child.output


DYING = """
import os
import train
import command
from distributed import watchdog

watchdog.start = lambda timeout: os.kill(os.getpid(), 9)
command.run(train.main)
"""


@pytest.mark.slow
def test_one_that_dies_before_it_has_said_a_word_is_named(small, tmp_path):
    fields = {'distributed_timeout': 10}
    with Several(small, tmp_path / 'run', tmp_path / 'log', (None, DYING), **fields) as children:
        assert [child.wait() for child in children] == [69, -9], outputs(children)
    assert 'error: Process 1 no longer answers' in children[0].output
    assert 'last seen never' in children[0].output
    assert 'Traceback' not in children[0].output


FAILING = """
import jax
import train
import command
from training import runner, start

def fail(*arguments):
    raise RuntimeError('RESOURCE_EXHAUSTED: a defect')

{function} = fail
command.run(train.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize('function', ['jax.devices', 'start.opened', 'runner.Runner.fetch'])
def test_a_defect_of_one_is_told_to_the_other_at_once(function, small, tmp_path):
    scripts = None, FAILING.format(function=function)
    with Several(small, tmp_path / 'run', tmp_path / 'log', scripts) as children:
        assert [child.wait() for child in children] == [1, 1], outputs(children)
    sentence = 'error: Process 1 has failed: RuntimeError: RESOURCE_EXHAUSTED: a defect'
    assert all(sentence in child.output for child in children), outputs(children)
    assert 'Traceback' in children[1].output
    assert 'Traceback' not in children[0].output
