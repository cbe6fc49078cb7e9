"""A checkpoint knows its step, its run and its place there; what does not agree is not used."""

import functools
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import UserError
from tasks.classification import Classification
from tests.support import (
    Child,
    arguments,
    curve,
    go_back,
    result,
    saved_steps,
    slow,
    train_here,
)
from training import checkpoints, run, trained

METRIC = Classification.metrics[0]


@pytest.fixture
def workdir(small_run, tmp_path) -> Path:
    """A finished run with checkpoints at 4, 8 and 12, to do with as one likes."""
    return Path(shutil.copytree(small_run, tmp_path / 'run'))


@pytest.fixture(scope='module')
def other(small, tmp_path_factory) -> Callable[[int], Path]:
    """other(seed) is the workdir of another run; with seed 0, of the same configuration."""

    @functools.cache
    def run_of(seed: int) -> Path:
        folder = tmp_path_factory.mktemp('other')
        assert train_here(small, folder, seed=seed) == 0
        return folder

    return run_of


def replace(newest: Path, by: Path):
    shutil.rmtree(newest)
    shutil.copytree(by, newest)


def older(newest, other):
    replace(newest, newest.with_name('8'))
    return 'it is of step 8', 8


def renamed(newest, other):
    shutil.rmtree(newest)
    newest.with_name('8').rename(newest)
    return 'it is of step 8', 4


def of_the_same_configuration(newest, other):
    replace(newest, other(0) / 'checkpoints' / '12')
    return 'it is of another run', 8


def of_another_seed(newest, other):
    replace(newest, other(1) / 'checkpoints' / '12')
    return 'it is of another run', 8


def never_saved_here(newest, other):
    history = newest.parents[1] / 'history.json'
    stored = json.loads(history.read_text())
    del stored['checkpoints']['12']
    history.write_text(json.dumps(stored))
    return 'this run has not saved it', 8


def saved_at_another_time(newest, other):
    """As a backup from before the run was extended, or continued on other devices."""
    note = newest / 'note.json'
    stored = json.loads(note.read_text())
    note.write_text(json.dumps(stored | {'follows': None}))
    manifest = json.loads((newest / 'manifest.json').read_text())
    manifest['note.json'] = checkpoints.stored.digests(newest)['note.json']
    (newest / 'manifest.json').write_text(json.dumps(manifest))
    return 'it is not the one that this run saved', 8


def window_added(newest, other):
    (newest / 'window.json').write_text('{"loss": 3.0, "count": 64}')
    return 'window.json is not of this checkpoint', 8


def metrics_of_another_step(newest, other):
    replace(newest / 'metrics', newest.with_name('8') / 'metrics')
    return 'metrics/metrics has changed', 8


def note_of_another_step(newest, other):
    shutil.copy(newest.with_name('8') / 'note.json', newest)
    return 'it is of step 8', 8


def copied_in_part(newest, other):
    shutil.rmtree(newest / 'default' / 'params')
    return 'is missing', 8


@pytest.mark.parametrize(
    'harm',
    [older, of_the_same_configuration, slow(renamed), slow(of_another_seed),
     slow(never_saved_here), slow(saved_at_another_time), slow(window_added),
     slow(metrics_of_another_step), slow(note_of_another_step), slow(copied_in_part)],
)  # fmt: skip
def test_what_is_not_the_newest_checkpoint_of_this_run_is_named_and_passed_over(
    harm, workdir, other, small_run, capfd
):
    newest = workdir / 'checkpoints' / '12'
    problem, used = harm(newest, other)
    found = checkpoints.damage(newest)
    assert problem in found
    with pytest.raises(UserError, match='12 is damaged'):
        trained.load(workdir)
    (workdir / 'result.json').unlink()
    assert train_here(None, workdir) == 0
    output = capfd.readouterr().out
    assert f'warning: checkpoint {newest} is damaged ({found}); it was moved to' in output
    assert f'resuming from the checkpoint of step {used}' in output
    assert (workdir / 'damaged_checkpoints' / '12.0').is_dir()
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert curve(workdir) == curve(small_run)
    # Once and for all.
    assert train_here(None, workdir) == 0
    assert 'warning' not in capfd.readouterr().out


@pytest.mark.slow
def test_an_older_one_that_is_another_does_not_become_the_best(workdir, capfd):
    best = workdir / 'checkpoints' / '8'
    replace(best, best.with_name('4'))
    metrics = best / 'metrics' / 'metrics'
    metrics.write_text(json.dumps({'validation/accuracy': 1.0, 'validation/loss': 0.0}))
    with pytest.raises(UserError, match=r'8 is damaged: it is of step 4'):
        trained.load(workdir, 'best')
    assert train_here(None, workdir) == 0
    assert f'warning: checkpoint {best} is damaged (it is of step 4)' in capfd.readouterr().out
    assert saved_steps(workdir) == [4, 12]
    assert trained.find(workdir, 'best', METRIC).name == '12'


def test_metrics_that_a_checkpoint_was_saved_without_are_not_believed(workdir, small, capfd):
    """Copied from elsewhere, or added when a kill came before they were in the manifest."""
    go_back(workdir, 8)
    folder = workdir / 'checkpoints' / '8'
    real = json.loads((folder / 'metrics' / 'metrics').read_text())
    manifest = json.loads((folder / 'manifest.json').read_text())
    del manifest['metrics/metrics']
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    (folder / 'metrics' / 'metrics').write_text(json.dumps(dict.fromkeys(real, 1e9)))
    assert trained.find(workdir, 'best', METRIC).name == '4'
    assert train_here(None, workdir) == 0
    assert 'damaged' not in capfd.readouterr().out
    assert json.loads((folder / 'metrics' / 'metrics').read_text()) == real
    assert trained.find(workdir, 'best', METRIC).name == '8'
    assert checkpoints.damage(folder) is None


def as_an_earlier_version(workdir: Path):
    (workdir / 'history.json').unlink()
    for note in workdir.glob('checkpoints/*/note.json'):
        note.unlink()
        path = note.with_name('manifest.json')
        manifest = json.loads(path.read_text())
        del manifest['note.json']
        path.write_text(json.dumps(manifest))


def test_checkpoints_of_an_earlier_version_are_resumed(workdir, small_run, capfd):
    as_an_earlier_version(workdir)
    go_back(workdir, 8)
    assert trained.load(workdir).step == 8
    assert train_here(None, workdir) == 0
    output = capfd.readouterr().out
    assert 'resuming from the checkpoint of step 8' in output
    assert 'warning' not in output
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    # From now on the run knows them, and other are noticed.
    replace(workdir / 'checkpoints' / '12', workdir / 'checkpoints' / '8')
    assert checkpoints.damage(workdir / 'checkpoints' / '12')
    assert checkpoints.damage(workdir / 'checkpoints' / '8') is None


@pytest.mark.slow
def test_one_of_an_earlier_version_under_another_name_is_noticed_as_well(workdir, capfd):
    as_an_earlier_version(workdir)
    replace(workdir / 'checkpoints' / '12', workdir / 'checkpoints' / '8')
    with pytest.raises(UserError, match='12 holds the state of step 8'):
        trained.load(workdir)
    assert train_here(None, workdir) == 0
    output = capfd.readouterr().out
    assert '12 is damaged (The checkpoint' in output
    assert 'resuming from the checkpoint of step 8' in output


@pytest.mark.slow
def test_without_its_history_a_run_takes_the_checkpoints_that_agree(workdir, other, capfd):
    (workdir / 'history.json').unlink()
    replace(workdir / 'checkpoints' / '12', other(0) / 'checkpoints' / '12')
    assert train_here(None, workdir) == 0
    output = capfd.readouterr().out
    assert '12 is damaged (it is of another run)' in output
    assert 'resuming from the checkpoint of step 8' in output


@pytest.mark.parametrize(
    'remove',
    [
        lambda folder: shutil.rmtree(folder),
        slow(lambda folder: [shutil.rmtree(path) for path in folder.iterdir()]),
        slow(lambda folder: folder.rename(folder.with_name('backup'))),
    ],
)
@pytest.mark.parametrize('history', [True, slow(False)])
def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(remove, history, workdir, small):
    remove(workdir / 'checkpoints')
    (workdir / 'result.json').unlink()
    if not history:
        (workdir / 'history.json').unlink()
    records = (workdir / 'metrics.jsonl').read_bytes()
    for config in (None, small):
        with pytest.raises(UserError, match=r'no checkpoint any more.*put the checkpoints back'):
            train_here(config, workdir)
    assert (workdir / 'metrics.jsonl').read_bytes() == records
    # The way out that it names.
    assert train_here(workdir / 'config.json', workdir / 'another', steps=12) == 0


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    small, small_run, monkeypatch, tmp_path
):
    class Killed(run.Loop):
        def _write(self, state, step, *rest):
            super()._write(state, step, *rest)
            raise KeyboardInterrupt

    monkeypatch.setattr(run, 'Loop', Killed)
    with pytest.raises(KeyboardInterrupt):
        train_here(small, tmp_path)
    assert curve(tmp_path)
    assert saved_steps(tmp_path) == []
    monkeypatch.undo()
    assert train_here(small, tmp_path) == 0
    assert curve(tmp_path) == curve(small_run)


# Stands still where the first checkpoint is in the history, but has no name yet.
HANGING_SAVE = """
import time
import train
from training import checkpoints
import command

finish = checkpoints.Checkpoints._write_manifest

def hang(self):
    finish(self)
    time.sleep(1000)

checkpoints.Checkpoints._write_manifest = hang
command.run(train.main)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_in_its_first_save_begins_anew(small, small_run, tmp_path):
    workdir = tmp_path / 'run'
    with Child(arguments(small, workdir), tmp_path / 'log', HANGING_SAVE) as child:
        history = workdir / 'history.json'
        assert child.wait_until(lambda: history.exists() and '"4"' in history.read_text())
        assert child.kill() == -signal.SIGKILL
    assert saved_steps(workdir) == []
    # Also if the next start is killed as well, after the temporary folder was removed.
    with checkpoints.Checkpoints(workdir, METRIC):
        assert not list(workdir.glob('checkpoints/*tmp*'))
    assert train_here(small, workdir) == 0
    assert curve(workdir) == curve(small_run)


@pytest.mark.slow
def test_one_that_is_gone_is_said_to_be_gone(workdir, small_run, capfd):
    go_back(workdir, 8)
    assert train_here(None, workdir) == 0
    output = capfd.readouterr().out
    assert 'warning: the checkpoint of step 12, which this run has saved, is not in' in output
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']


def test_those_that_a_kill_kept_from_being_deleted_are_deleted_at_the_next_start(
    small, workdir, capfd
):
    (workdir / 'checkpoints' / 'notes').mkdir()
    # Deleted in part when the kill came.
    (workdir / 'checkpoints' / '4' / 'manifest.json').unlink()
    best = int(trained.find(workdir, 'best', METRIC).name)
    assert train_here(small, workdir, checkpoint__keep=1) == 0
    assert 'warning' not in capfd.readouterr().out
    assert saved_steps(workdir) == sorted({best, 12})
    assert not (workdir / 'damaged_checkpoints').exists()
    assert (workdir / 'checkpoints' / 'notes').is_dir()


def test_names_that_only_look_like_steps_are_no_checkpoints(workdir):
    for name in ('012', '8.bak', '\u0661\u0662', '\u00b2'):
        shutil.copytree(workdir / 'checkpoints' / '4', workdir / 'checkpoints' / name)
    assert saved_steps(workdir) == [4, 8, 12]


@pytest.mark.parametrize('step', ['9' * 5000, '\u0661\u0662', '-1', ''])
def test_a_history_of_no_steps_is_a_sentence(workdir, step):
    (workdir / 'history.json').write_text(json.dumps({'run': 'x', 'checkpoints': {step: 'y'}}))
    for use in (trained.load, lambda folder: train_here(None, folder)):
        with pytest.raises(UserError, match=r'history.json cannot be used.*Remove it'):
            use(workdir)
