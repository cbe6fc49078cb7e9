"""Which configuration may go on in a workdir, and what a run leaves there."""

import errno
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import command
import files
import train
from configs import reading
from errors import UserError
from tests.support import (
    arguments,
    curve,
    go_back,
    result,
    run_child,
    saved_steps,
    slow,
    train_here,
)
from training import run, start
from training import workdir as workdirs

# Users' scripts read them: a new one is added here, and none is renamed.
RESULT = {
    'config', 'seed', 'steps', 'epochs', 'test_accuracy', 'test_loss', 'test_correct',
    'test_examples', 'test_bad_records', 'params_sha256', 'init_from_sha256', 'parameters',
    'wall_seconds', 'examples_per_second', 'step_flops', 'step_bytes', 'model_flops_per_image',
    'peak_memory_bytes', 'peak_memory_of', 'device', 'devices', 'processes', 'extensions',
    'output_problem', 'versions',
}  # fmt: skip
VERSIONS = {
    'python', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets',
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.fixture
def workdir(small_run, tmp_path) -> Path:
    """A finished run, to do with as one likes."""
    return Path(shutil.copytree(small_run, tmp_path / 'run'))


def test_result_json_has_these_keys_and_no_others(small_run):
    found = result(small_run)
    assert set(found) == RESULT
    assert set(found['versions']) == VERSIONS


def test_what_a_run_leaves(small_run):
    found = result(small_run)
    assert found['test_examples'] == 359
    assert found['test_accuracy'] == found['test_correct'] / 359
    assert found['steps'] == 12
    assert found['wall_seconds'] > 0
    assert found['examples_per_second'] > 0
    assert json.loads((small_run / 'config.json').read_text()) == found['config']
    for name in ('metrics.jsonl', 'curves.png', 'tensorboard', 'checkpoints'):
        assert (small_run / name).exists(), name
    steps = [record['step'] for record in curve(small_run)]
    assert steps == [3, 4, 4, 6, 8, 8, 9, 12, 12]


def test_the_stored_configuration_repeats_the_run(small_run, tmp_path):
    assert train_here(small_run / 'config.json', tmp_path / 'again') == 0
    assert result(tmp_path / 'again')['params_sha256'] == result(small_run)['params_sha256']


@pytest.mark.usefixtures('drawing')
def test_a_finished_run_is_not_trained_again(small, workdir, capfd):
    before = contents(workdir)
    assert train_here(small, workdir) == 0
    output = capfd.readouterr().out
    assert 'is finished' in output
    assert 'test accuracy' in output
    after = contents(workdir)
    assert before.pop('curves.png')
    assert after.pop('curves.png')  # drawn again
    assert before == after


def test_a_run_killed_just_before_its_result_gets_it(workdir, small_run):
    (workdir / 'result.json').unlink()
    assert train_here(None, workdir) == 0
    ours, theirs = result(workdir), result(small_run)
    for name in ('params_sha256', 'test_correct', 'test_loss'):
        assert ours[name] == theirs[name]
    assert ours['wall_seconds'] >= curve_seconds(small_run)
    assert curve(workdir) == curve(small_run)


def curve_seconds(workdir: Path) -> float:
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return max(json.loads(line)['wall_seconds'] for line in lines)


def test_fields_of_the_experiment_may_not_change(small, workdir):
    before = contents(workdir)
    changed = {'seed': 1, 'optimizer__learning_rate': 0.2, 'model__units': 9}
    with pytest.raises(UserError) as caught:
        train_here(small, workdir, **changed)
    for name in ('seed (0 there, 1 now)', 'optimizer.learning_rate', 'model.units'):
        assert name in str(caught.value)
    with pytest.raises(UserError, match='another experiment, which differs in batch_size'):
        train_here(small, workdir, '--extend', batch_size=32)
    assert contents(workdir) == before


def test_fields_of_the_run_may_change(small, workdir, small_run):
    go_back(workdir, 4)
    changed = {
        'runner': 'shard_map', 'eval_batch_size': 50, 'log_every': 5, 'devices': 1,
        'checkpoint__keep': 1, 'checkpoint__best': 'validation/loss', 'distributed': 'off',
    }  # fmt: skip
    assert train_here(small, workdir, **changed) == 0
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert workdirs.load_config(workdir).runner == 'shard_map'


def test_more_steps_need_extend_and_are_recorded(small, workdir, small_run, capfd):
    with pytest.raises(UserError, match=r'steps \(12 there, 16 now\).*--extend'):
        train_here(small, workdir, steps=16)
    assert train_here(small, workdir, '--extend', steps=16) == 0
    output = capfd.readouterr().out
    assert 'extended from 12 to 16 steps at step 12' in output
    assert 'cosine schedule' in output
    extension = {'at_step': 12, 'from_steps': 12, 'to_steps': 16}
    assert result(workdir)['extensions'] == [extension]
    assert result(workdir)['steps'] == 16
    assert curve(workdir)[: len(curve(small_run))] == curve(small_run)
    # From now on it is a run of that length.
    go_back(workdir, 12)
    assert train_here(None, workdir) == 0
    assert result(workdir)['extensions'] == [extension]
    with pytest.raises(UserError, match='was to have 16 steps and the configuration now says 12'):
        train_here(small, workdir, '--extend')
    with pytest.raises(UserError, match=r'steps \(16 there, 12 now\)'):
        train_here(small, workdir)


def test_an_extension_without_a_decay_says_nothing_of_one(small, tmp_path, capfd):
    train_here(small, tmp_path, steps=1, schedule__name='constant')
    train_here(small, tmp_path, '--extend', steps=2, schedule__name='constant')
    output = capfd.readouterr().out
    assert 'extended from 1 to 2 steps at step 1' in output
    assert 'cosine' not in output


def test_an_extension_that_dies_at_once_is_recorded_once(tmp_path):
    for _ in range(2):
        workdirs.record_extension(tmp_path, 4, 4, 8)
    workdirs.record_extension(tmp_path, 6, 8, 9)
    assert [entry['at_step'] for entry in workdirs.extensions(tmp_path)] == [4, 6]


def test_resume_must_and_never(small, workdir, tmp_path):
    with pytest.raises(UserError, match='holds no run to resume'):
        train_here(small, tmp_path / 'new', '--resume=must')
    assert not (tmp_path / 'new').exists()
    with pytest.raises(UserError, match='--resume=never'):
        train_here(small, workdir, '--resume=never')
    assert train_here(small, workdir, '--resume=must') == 0


@pytest.mark.parametrize(
    'name', ['metrics.jsonl', 'result.json', 'checkpoints/700/array', 'checkpoints/notes.txt']
)
def test_what_another_program_left_is_not_written_over(name, small, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('of great value')
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r'no config.json that it belongs to'):
        train_here(small, tmp_path)
    assert contents(tmp_path) == before


def test_other_files_in_the_folder_stay_as_they_are(small, tmp_path):
    (tmp_path / 'checkpoints').mkdir()  # as a run leaves it that died while it started
    (tmp_path / 'notes.txt').write_text('seed 0 looks best')
    assert train_here(small, tmp_path, steps=1) == 0
    assert (tmp_path / 'notes.txt').read_text() == 'seed 0 looks best'


def test_a_second_run_in_the_same_folder_is_refused(small, workdir):
    before = contents(workdir)
    with (
        workdirs.lock(workdir),
        pytest.raises(UserError, match='Another run is using '),
    ):
        train_here(small, workdir)
    assert contents(workdir) == before
    assert train_here(small, workdir) == 0


def test_a_workdir_that_cannot_be_written(small, tmp_path):
    (tmp_path / 'file').write_text('')
    child = run_child(arguments(small, tmp_path / 'file' / 'run'), tmp_path / 'log')
    assert child.process.returncode == 2
    assert 'is not writable: Not a directory. Choose another folder.' in child.output
    with pytest.raises(UserError, match='is not writable'):
        train_here(small, Path('/proc/run'))


def test_the_address_of_a_process_is_not_stored(small, tmp_path):
    # evaluate.py would wait for the other processes.
    config = reading.from_arguments(str(small), ['--config.distributed=10.0.0.1:1234,2,0'])
    workdirs.store(tmp_path, config)
    assert workdirs.load_config(tmp_path).distributed == 'auto'


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob('*'))


@pytest.mark.parametrize(
    ('late', 'where'),
    [(False, 'not/there/yet'), (True, 'there'), slow(True, 'run'), slow(False, 'there')],
)
def test_a_refused_run_leaves_nothing(late, where, small, tmp_path, monkeypatch):
    """Refused for its source of weights, or when config.json and records are there already."""
    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'notes.txt').write_text('mine')
    before = tree(tmp_path)
    fields = {'init_from': tmp_path / 'nothing'}
    if late:

        def refuse(*arguments):
            assert (tmp_path / where / 'metrics.jsonl').exists()
            assert (tmp_path / where / 'history.json').exists()
            raise UserError('refused')

        monkeypatch.setattr(run, 'Loop', refuse)
        fields = {}
    with pytest.raises(UserError, match='refused' if late else 'init_from'):
        train_here(small, tmp_path / where, **fields)
    assert tree(tmp_path) == before


def test_what_another_run_made_before_the_lock_is_left(tmp_path):
    """It began and ended while this one, which is then refused, opened its data."""
    claim = workdirs.Claim(tmp_path / 'run', start.OWN)
    (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
    (tmp_path / 'run' / 'config.json').write_text('of the other one')
    with workdirs.lock(tmp_path / 'run'):
        claim.locked()
        (tmp_path / 'run' / 'result.json').write_text('of this one')
        claim.leave(UserError, UserError('refused'), None)
    assert {path.name for path in tree(tmp_path / 'run')} == {'checkpoints', 'config.json'}


def test_a_refused_resumption_leaves_what_was_there(small, workdir, monkeypatch):
    go_back(workdir, 8)
    before = contents(workdir)

    def refuse(*arguments):
        raise UserError('refused')

    monkeypatch.setattr(run, 'Loop', refuse)
    with pytest.raises(UserError, match='refused'):
        train_here(None, workdir)
    after = contents(workdir)
    assert set(before) <= set(after)
    assert {name for name in set(after) - set(before) if 'tensorboard' not in name} == set()


@pytest.mark.slow
def test_a_run_that_fails_after_its_first_step_keeps_its_folder(small, tmp_path):
    with pytest.raises(UserError, match='not finite'):
        train_here(small, tmp_path / 'run', optimizer__name='sgd', optimizer__learning_rate=1e30)
    assert (tmp_path / 'run' / 'config.json').exists()


def remove(folder):
    shutil.rmtree(folder)


def replaced(folder):
    folder.rename(folder.with_name('moved'))
    folder.mkdir()


def records_replaced(folder):
    text = (folder / 'metrics.jsonl').read_bytes()
    (folder / 'metrics.jsonl').unlink()
    (folder / 'metrics.jsonl').write_bytes(text)


@pytest.mark.parametrize('harm', [remove, slow(replaced), slow(records_replaced)])
@pytest.mark.parametrize('after', [5, slow(12)])  # a step between two records, and the last
def test_a_folder_that_is_removed_under_a_run_stops_it(
    harm, after, small, tmp_path, monkeypatch, capsys
):
    class Loop(run.Loop):
        def run(self, *arguments):
            train, steps = self.runner.train, itertools.count(1)

            def step(*arguments):
                if next(steps) == after:
                    self.checkpoints.wait()
                    harm(tmp_path / 'run')
                return train(*arguments)

            self.runner.train = step
            return super().run(*arguments)

    monkeypatch.setattr(run, 'Loop', Loop)
    assert command.call(train.main, arguments(small, tmp_path / 'run')) == 2
    said = capsys.readouterr()
    assert re.fullmatch(
        r'error: .*run(/metrics.jsonl)? was removed, moved or replaced while the run was using it.*'
        r'\n'.replace('using', '(using|writing)'),
        said.err,
    )
    assert 'Written to' not in said.out
    assert not (tmp_path / 'run' / 'result.json').exists()
    monkeypatch.undo()
    if harm is replaced:
        assert train_here(None, tmp_path / 'moved') == 0
        assert list((tmp_path / 'run').iterdir()) == []
    if harm is records_replaced:
        assert train_here(None, tmp_path / 'run') == 0


@pytest.mark.slow
def test_a_folder_that_is_removed_during_the_test_gets_no_result(
    small, tmp_path, monkeypatch, capsys
):
    finish = run.Evaluator

    def removed(*arguments):
        if not any(tmp_path.glob('run/result.json')) and saved_steps(tmp_path / 'run') == [1]:
            replaced(tmp_path / 'run')
        return finish(*arguments)

    monkeypatch.setattr(run, 'Evaluator', removed)
    assert command.call(train.main, arguments(small, tmp_path / 'run', steps=1)) == 2
    assert 'was removed, moved or replaced' in capsys.readouterr().err
    assert list((tmp_path / 'run').iterdir()) == []


def test_checkpoints_that_are_removed_under_a_run_are_saved_again(
    small, small_run, tmp_path, monkeypatch, capsys
):
    class Loop(run.Loop):
        def _write(self, state, step, *rest):
            super()._write(state, step, *rest)
            if step == 4:
                self.checkpoints.wait()
                shutil.rmtree(tmp_path / 'run' / 'checkpoints')

    monkeypatch.setattr(run, 'Loop', Loop)
    assert train_here(small, tmp_path / 'run') == 0
    assert 'checkpoints was removed while the run was using it' in capsys.readouterr().out
    assert saved_steps(tmp_path / 'run') == [8, 12]
    assert curve(tmp_path / 'run') == curve(small_run)


@pytest.mark.parametrize('name', ['result.json', slow('config.json'), slow('history.json')])
@pytest.mark.parametrize('number', [errno.ENOSPC, slow(errno.EROFS), slow(errno.EDQUOT)])
def test_a_disk_that_cannot_be_written_stops_the_run_and_the_same_command_resumes_it(
    name, number, small, small_run, workdir, monkeypatch, capsys
):
    go_back(workdir, 8)
    replace = files.replace

    def full(path, content):
        if path.name == name:
            raise OSError(number, os.strerror(number))
        replace(path, content)

    monkeypatch.setattr(files, 'replace', full)
    assert command.call(train.main, arguments(small, workdir)) == 2
    said = capsys.readouterr()
    assert os.strerror(number) in said.err
    assert len(said.err.splitlines()) == 1
    assert 'Written to' not in said.out
    monkeypatch.undo()
    assert train_here(small, workdir) == 0
    assert result(workdir)['params_sha256'] == result(small_run)['params_sha256']
    assert curve(workdir) == curve(small_run)
