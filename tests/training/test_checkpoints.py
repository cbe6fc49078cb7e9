"""Checkpoints: damage is noticed and survived, the best is kept, a full disk loses nothing."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import command
import train
from errors import UserError
from tasks.classification import Classification
from tests.support import (
    arguments,
    curve,
    files_of_at_most,
    go_back,
    result,
    run_child,
    saved_arrays,
    saved_steps,
    slow,
    train_here,
)
from training import checkpoints, trained
from training.checkpoints import Checkpoints
from training.state import TrainState

ACCURACY, LOSS = Classification.metrics


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_byte(folder):
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def truncate(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:-7])
    return path


def remove(folder):
    path = largest_file(folder)
    path.unlink()
    return path


def remove_manifest(folder):
    path = folder / 'manifest.json'
    path.unlink()
    return path


@pytest.fixture
def workdir(small_run, tmp_path) -> Path:
    """A finished run with checkpoints at 4, 8 and 12, to do with as one likes."""
    return Path(shutil.copytree(small_run, tmp_path / 'run'))


@pytest.mark.parametrize('harm', [flip_a_byte, truncate, remove, remove_manifest])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    harm, workdir, small_run, capfd
):
    newest = workdir / 'checkpoints' / '12'
    path = harm(newest)
    before = {p.relative_to(newest): p.read_bytes() for p in newest.rglob('*') if p.is_file()}

    assert train_here(None, workdir) == 0
    output = capfd.readouterr().out
    assert f'warning: checkpoint {newest} is damaged' in output
    assert path.name in output
    assert 'resuming from the checkpoint of step 8' in output
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert curve(workdir) == curve(small_run)

    moved = workdir / 'damaged_checkpoints' / '12.0'
    assert str(moved) in output
    assert before == {p.relative_to(moved): p.read_bytes() for p in moved.rglob('*') if p.is_file()}


def test_two_damaged_ones_are_both_passed_over(workdir, small_run):
    for step in ('8', '12'):
        flip_a_byte(workdir / 'checkpoints' / step)
    assert train_here(None, workdir) == 0
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert {p.name for p in (workdir / 'damaged_checkpoints').iterdir()} == {'8.0', '12.0'}


def test_no_sound_checkpoint_is_refused_and_the_run_left_as_it_is(workdir, tmp_path):
    for step in ('4', '8', '12'):
        truncate(workdir / 'checkpoints' / step)
    records = (workdir / 'metrics.jsonl').read_bytes()
    child = run_child(arguments(None, workdir), tmp_path / 'log')
    assert child.process.returncode == 2
    assert 'None of the checkpoints' in child.output
    # Nor does the next start begin anew, as if there had been no checkpoints.
    with pytest.raises(UserError, match='None of the checkpoints'):
        train_here(None, workdir)
    assert (workdir / 'metrics.jsonl').read_bytes() == records
    assert saved_steps(workdir) == [4, 8, 12]


def test_a_damaged_checkpoint_is_not_evaluated(workdir):
    flip_a_byte(workdir / 'checkpoints' / '12')
    with pytest.raises(UserError, match=r'12 is damaged: .* has changed.*STEP: 4, 8'):
        trained.load(workdir)
    assert trained.load(workdir, '8').step == 8


def test_a_checkpoint_of_another_model_is_refused(workdir):
    # Only possible when somebody has edited config.json, since a run's model may not change.
    path = workdir / 'config.json'
    stored = json.loads(path.read_text())
    stored['model']['units'] = 9
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match='is of another model or optimizer'):
        train_here(None, workdir)
    assert saved_steps(workdir) == [4, 8, 12]


def state(value: float) -> TrainState:
    return TrainState(np.int32(1), {'kernel': np.full(3, value, np.float32)}, {}, ())


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    metric=st.sampled_from(Classification.metrics),
    values=st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=6),
    keep=st.integers(1, 2),
)
@example(metric=LOSS, values=[2, 1, 1], keep=2)  # of equals, the latest
def test_the_latest_and_the_best_are_kept(tmp_path_factory, metric, values, keep):
    workdir = tmp_path_factory.mktemp('policy')
    name = f'validation/{metric.name}'
    other = 'validation/loss' if metric == ACCURACY else 'validation/accuracy'
    with Checkpoints(workdir, metric, keep) as saved:
        for step, value in enumerate(values, start=1):
            # The other metric falls while this one rises, and the other way round.
            saved.save(step, state(step), None if value is None else {name: value, other: value})
        saved.wait()
    sign = -1 if metric == LOSS else 1
    ranked = [(sign * v, step) for step, v in enumerate(values, start=1) if v is not None]
    latest = list(range(1, len(values) + 1))[-keep:]
    best = [max(ranked)[1]] if ranked else []
    assert saved_steps(workdir) == sorted({*latest, *best})
    if best:
        found = trained.find(workdir, 'best', metric)
        assert found.name == str(best[0])
        np.testing.assert_array_equal(checkpoints.read_arrays(found)['params/kernel'], best[0])
    else:
        with pytest.raises(UserError, match='use --checkpoint=last'):
            trained.find(workdir, 'best', metric)
    assert trained.find(workdir, 'last', metric).name == str(len(values))
    with pytest.raises(UserError, match='choose last, best, or one of the steps'):
        trained.find(workdir, '99', metric)


def test_metrics_added_later_make_a_checkpoint_the_best(tmp_path):
    with Checkpoints(tmp_path, ACCURACY, keep=1) as saved:
        saved.save(1, state(1.0))
        saved.wait()
        saved.add_metrics(1, {'validation/accuracy': 0.9, 'validation/loss': 1.0})
        for step in (2, 3):
            saved.save(step, state(step), {'validation/accuracy': 0.5, 'validation/loss': 2.0})
        saved.wait()
    assert saved_steps(tmp_path) == [1, 3]
    assert trained.find(tmp_path, 'best', ACCURACY).name == '1'
    assert checkpoints.damage(tmp_path / 'checkpoints' / '1') is None


def test_what_a_save_wrote_is_read_back(tmp_path):
    template = state(0.0)
    with Checkpoints(tmp_path, ACCURACY) as saved:
        assert saved.restore_latest(template) is None
        saved.save(7, state(-0.0), window={'loss': 0.1, 'correct': 3, 'count': 8})
        saved.wait()
        step, found = saved.restore_latest(template)
        assert step == 7
        assert found.params['kernel'].tobytes() == np.full(3, -0.0, np.float32).tobytes()
        assert saved.window(7) == {'loss': 0.1, 'correct': 3, 'count': 8}


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of one MiB, where this may be made."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    made = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f'a tmpfs cannot be mounted here: {made.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


# The room that the check had seen is gone when the files are written.
UNCHECKED = """
import command, train
from training import checkpoints
checkpoints.Checkpoints.check_room = lambda *arguments: None
command.run(train.main)
"""


@pytest.mark.parametrize('found', [slow('before'), 'while writing'])
def test_a_full_disk_stops_the_run_and_loses_nothing(found, small_run, tiny_disk, tmp_path):
    workdir, ballast = tiny_disk / 'run', tiny_disk / 'ballast'
    shutil.copytree(small_run, workdir)
    for step in ('8', '12'):
        shutil.rmtree(workdir / 'checkpoints' / step)
    arrays = sum(array.nbytes for array in saved_arrays(workdir, 4).values())
    # Room for the arrays is not enough: each file takes whole blocks of the disk, too.
    room = arrays // 2 if found == 'before' else arrays + 32 * 1024
    ballast.write_bytes(bytes(shutil.disk_usage(tiny_disk).free - room))
    script = UNCHECKED if found == 'while writing' else None
    child = run_child(arguments(None, workdir), tmp_path / 'log', script)
    assert child.process.returncode == 2, child.output
    message = child.output.splitlines()[-1]
    assert message.startswith('error: The checkpoint of step 8 could not be written')
    assert 'No space left on device' in message
    assert 'The last good checkpoint is step 4' in message
    assert 'Traceback' not in child.output
    assert saved_steps(workdir) == [4]

    ballast.unlink()
    assert train_here(None, workdir) == 0
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert curve(workdir) == curve(small_run)
    assert saved_steps(workdir) == [4, 8, 12]
    assert not list(workdir.glob('checkpoints/*tmp*'))


@pytest.mark.filterwarnings('ignore:Error writing persistent compilation cache')
def test_a_limit_on_files_stops_the_run_and_loses_nothing(workdir, small_run, capsys):
    """As a quota, which nobody can ask for beforehand."""
    go_back(workdir, 4)
    with files_of_at_most(16_384):
        assert command.call(train.main, arguments(None, workdir)) == 2
    said = capsys.readouterr().err
    assert said.startswith('error: The checkpoint of step 8 could not be written')
    assert 'File too large' in said
    assert len(said.splitlines()) == 1
    assert saved_steps(workdir) == [4]
    assert train_here(None, workdir) == 0
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert not list(workdir.glob('checkpoints/*tmp*'))
