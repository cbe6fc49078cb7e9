"""A run that is stopped, however and wherever, ends bit for bit like one that never was.

With dropout, augmentation, batch norm and averaged weights on. The numbers of steps only leave
room for stops; what decides is what a child has done, never how long it took.
"""

import random
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import (
    LONG,
    Child,
    arguments,
    curve,
    finished,
    last_step,
    result,
    saved_steps,
    write_config,
)

STEPS = 60
# Stands still in the middle of saving step 10: the arrays are written, the name is not given.
HANGING_SAVE = """
import time
import train
from training import checkpoints
import command

finish = checkpoints.Checkpoints._write_manifest

def hang(self):
    if self._saving == 10:
        time.sleep(1000)
    finish(self)

checkpoints.Checkpoints._write_manifest = hang
command.run(train.main)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    return write_config(
        tmp_path_factory.mktemp('config'),
        model__name='deep_cnn',
        model__dropout_rate=0.3,
        augment__shift=2.0,
        augment__rotate=10.0,
        augment__scale=0.1,
        augment__flip=0.5,
        augment__mixup=0.4,
        augment__cutmix=1.0,
        augment__erase=0.3,
        ema_decay=0.9,
        optimizer__name='adam',
        optimizer__learning_rate=0.01,
        batch_size=32,
        steps=STEPS,
        log_every=3,
        eval_every=0.3,
        checkpoint__every_steps=5,
    )


@pytest.fixture(scope='module')
def reference(config, tmp_path_factory) -> Path:
    """The workdir of a run that was left alone."""
    return finished(config, tmp_path_factory.mktemp('reference'))


def assert_same_run(workdir: Path, reference: Path):
    ours, theirs = result(workdir), result(reference)
    for name in ('params_sha256', 'test_correct', 'test_loss', 'steps', 'config'):
        assert ours[name] == theirs[name], name
    # Each step once, in order, and with the very same numbers.
    assert curve(workdir) == curve(reference)
    assert saved_steps(workdir) == saved_steps(reference)


def test_killed_at_random_steps_and_in_the_middle_of_a_save(config, reference, tmp_path):
    workdir, argv = tmp_path / 'run', arguments(config, tmp_path / 'run')
    with Child(argv, tmp_path / 'log0', HANGING_SAVE) as child:
        assert child.wait_until(lambda: any(workdir.glob('checkpoints/10.*tmp*/default/*'))), (
            child.output
        )
        assert child.kill() == -signal.SIGKILL
    assert saved_steps(workdir) == [5]

    seed = random.randrange(10**6)
    print(f'random.Random({seed})')  # shown when the test fails
    draw = random.Random(seed)
    kills, number = 0, 0
    while True:
        number += 1
        stop_at = last_step(workdir) + draw.randrange(1, 20)
        with Child(argv, tmp_path / f'log{number}') as child:
            if kills < 2 and child.wait_until(lambda stop_at=stop_at: last_step(workdir) > stop_at):
                child.kill()
            code = child.wait()
        kills += code == -signal.SIGKILL
        if code == 0:
            break
        assert code == -signal.SIGKILL, child.output
    assert kills, 'it was too fast to be killed'
    assert 'resuming from the checkpoint of step' in child.output
    assert not list(workdir.glob('checkpoints/*tmp*'))
    assert_same_run(workdir, reference)


@pytest.mark.slow
def test_told_to_stop_by_each_signal(config, reference, tmp_path):
    workdir = tmp_path / 'run'
    # While it starts: it says what it will train before it compiles the first step.
    with Child(arguments(config, workdir), tmp_path / 'log0') as child:
        assert child.wait_until(lambda: 'steps of 32 images' in child.output)
        code = child.kill(signal.SIGTERM)
    assert code == 75, child.output
    assert 'SIGTERM: stopped after step' in child.output
    first = saved_steps(workdir)
    assert first[-1] < STEPS
    assert not (workdir / 'result.json').exists()

    with Child(arguments(None, workdir), tmp_path / 'log1') as child:
        assert child.wait_until(lambda: last_step(workdir) > first[-1])
        code = child.kill(signal.SIGUSR2)
    assert code == 75, child.output
    second = saved_steps(workdir)
    assert first[-1] < second[-1] < STEPS
    assert f'SIGUSR2: stopped after step {second[-1]} of {STEPS} and saved.' in child.output

    # The line that says how to go on works as printed.
    line = child.output.splitlines()[-1].strip()
    assert line.endswith(f' train.py --workdir={workdir}')
    ended = subprocess.run(
        shlex.split(line), cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert f'resuming from the checkpoint of step {second[-1]}' in ended.stdout
    assert_same_run(workdir, reference)
