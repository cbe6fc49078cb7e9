"""Whole runs on a streamed set: they learn, resume bit for bit, and end as they are told to."""

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

import evaluate
import predict
from errors import UserError
from tests.support import (
    Child,
    arguments,
    curve,
    finished,
    free_port,
    last_step,
    result,
    run_child,
    saved_arrays,
    train_here,
    write_config,
)
from tests.test_streams import spoil, spoil_split
from tools import prepare_data, summary
from training.records import read_metrics

STEPS = 60


@pytest.fixture(scope='module')
def config(digit_set, tmp_path_factory) -> Path:
    """Crops, flips and dropout, so that every source of randomness is drawn from."""
    return write_config(
        tmp_path_factory.mktemp('config'),
        data__name='pictures',
        data__dir=str(digit_set),
        data__image_size=28,
        data__crop_scale=[0.6, 1.0],
        data__mean=[0.13],
        data__std=[0.31],
        data__threads=2,
        model__name='lenet',
        model__dropout_rate=0.1,
        optimizer__learning_rate=0.02,
        batch_size=32,
        steps=STEPS,
        log_every=3,
        eval_every=1.0,
        checkpoint__every_steps=5,
    )


@pytest.fixture(scope='module')
def reference(config, tmp_path_factory) -> Path:
    """The workdir of a run that was left alone."""
    return finished(config, tmp_path_factory.mktemp('reference'))


def assert_same_run(folder, reference):
    assert result(folder)['params_sha256'] == result(reference)['params_sha256']
    assert curve(folder) == curve(reference)


@pytest.mark.slow
def test_it_learns(reference):
    found = result(reference)
    assert found['test_examples'] == 30
    assert found['test_accuracy'] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize('fields', [{'data__workers': 2, 'data__threads': 1}, {'data__threads': 5}])
def test_workers_and_threads_may_change(config, reference, tmp_path, fields):
    child = run_child(arguments(config, tmp_path / 'run', **fields), tmp_path / 'log')
    assert child.process.returncode == 0, child.output
    assert_same_run(tmp_path / 'run', reference)


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_bit_for_bit(config, reference, tmp_path):
    folder, killed, chance = tmp_path / 'run', 0, random.Random(0)
    for attempt in range(4):
        goal = last_step(folder) + chance.randint(4, 15)
        workers = {'data__workers': attempt % 2}
        with Child(arguments(config, folder, **workers), tmp_path / f'log{attempt}') as child:
            if child.wait_until(lambda goal=goal: last_step(folder) >= goal):
                others = psutil.Process(child.process.pid).children(recursive=True)
                killed += child.kill() == -signal.SIGKILL
                assert not psutil.wait_procs(others, timeout=30)[1]
    assert killed >= 2
    child = run_child(arguments(config, folder), tmp_path / 'log')
    assert child.process.returncode == 0, child.output
    assert_same_run(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_no_worker_behind(config, reference, tmp_path, number):
    """To all processes, as a terminal's Ctrl-C and a scheduler's notice come."""
    folder = tmp_path / 'run'
    with Child(arguments(config, folder, data__workers=2), tmp_path / 'log') as child:
        assert child.wait_until(lambda: last_step(folder) >= 9)
        workers = psutil.Process(child.process.pid).children(recursive=True)
        assert len(workers) >= 2
        for worker in workers:
            worker.send_signal(number)
        assert child.kill(number) == 75, child.output
        assert not psutil.wait_procs(workers, timeout=30)[1]
    child = run_child(arguments(config, folder), tmp_path / 'log2')
    assert_same_run(folder, reference)


@pytest.mark.slow
def test_two_hosts_train_as_one_with_two_devices(config, tmp_path, monkeypatch):
    monkeypatch.setenv('PJRT_NPROC', '4')  # equally many threads, which split (and round) sums
    folder, address = tmp_path / 'two', f'127.0.0.1:{free_port()}'
    fields = {'model__dropout_rate': 0.0, 'steps': 20}
    alone = run_child(arguments(config, tmp_path / 'one', devices=2, **fields), tmp_path / 'log')
    assert alone.process.returncode == 0, alone.output
    places = [{'distributed': f'{address},2,{i}', 'devices': 1, **fields} for i in range(2)]
    with (
        Child(arguments(config, folder, **places[0]), tmp_path / 'log0') as first,
        Child(arguments(config, folder, **places[1]), tmp_path / 'log1') as second,
    ):
        assert (first.wait(), second.wait()) == (0, 0), first.output + second.output
    ours, theirs = (saved_arrays(path, 20) for path in (folder, tmp_path / 'one'))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert result(folder)['test_correct'] == result(tmp_path / 'one')['test_correct']


def test_evaluate_and_predict_see_what_training_saw(reference, digit_set, tmp_path, capsys):
    assert evaluate.main([f'--workdir={reference}', f'--output={tmp_path}']) == 0
    found = json.loads((tmp_path / 'evaluation_test.json').read_text())
    assert found['accuracy'] == result(reference)['test_accuracy']
    capsys.readouterr()
    pictures = sorted((digit_set / 'source').glob('*/*.jpg'))
    argv = [*map(str, pictures), f'--workdir={reference}', '--top=1', '--json']
    argv.append('--config.data.dir=/nowhere')  # the workdir is enough
    assert predict.main(argv) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = sum(row['top'][0]['class'] == Path(row['image']).parent.name for row in rows)
    assert right / len(rows) > 0.6


def test_predict_names_what_it_cannot_read(reference, tmp_path, capsys):
    (tmp_path / 'bad.jpg').write_bytes(b'\xff\xd8 no picture')
    argv = [str(tmp_path / 'bad.jpg'), f'--workdir={reference}']
    assert predict.main(argv) == 2
    assert f'{tmp_path}/bad.jpg cannot be read as a picture' in capsys.readouterr().err


@pytest.mark.slow
def test_a_linear_probe_of_a_streamed_set(config, reference, tmp_path):
    fields = {'linear_probe': True, 'init_from': str(reference), 'steps': 20}
    assert train_here(config, tmp_path / 'run', **fields) == 0
    assert result(tmp_path / 'run')['test_accuracy'] > 0.6


def test_bad_records_are_reported(config, digit_set, tmp_path, capsys):
    """Stopped at one, the run may go on without it; evaluation says what it left out."""
    folder = spoil(digit_set, tmp_path, 'train')
    spoil_split(folder, 'test')
    fields, run = {'data__dir': str(folder), 'steps': 12}, tmp_path / 'run'
    with pytest.raises(UserError, match="on_bad_record='skip'"):
        train_here(config, run, **fields)
    assert train_here(config, run, data__on_bad_record='skip', **fields) == 0
    counts = [record.get('train/bad_records', 0) for record in read_metrics(run)]
    assert sum(counts) >= 3
    assert 'did not decode; others took their place' in capsys.readouterr().out
    assert (result(run)['test_examples'], result(run)['test_bad_records']) == (27, 3)
    copied = Path(shutil.copytree(run, tmp_path / 'copied'))  # to where the set lies elsewhere
    stored = (run / 'config.json').read_text()
    (copied / 'config.json').write_text(stored.replace(str(folder), '/nowhere'))
    assert evaluate.main([f'--workdir={copied}', '--report', f'--config.data.dir={folder}']) == 0
    assert '3 record(s) did not decode and were not counted' in capsys.readouterr().out
    page = (copied / 'report.html').read_text()
    assert '<dt>records that did not decode</dt><dd>3</dd>' in page
    assert 'of 27 answers were wrong' in page
    fields |= {'linear_probe': True, 'init_from': str(run), 'model__dropout_rate': 0.0}
    assert train_here(config, tmp_path / 'probe', data__on_bad_record='skip', **fields) == 0
    assert '3 train record(s) did not decode and are left out' in capsys.readouterr().out


def test_a_set_that_nothing_can_be_tested_on_is_known_at_once(digit_set, tmp_path, config):
    command = ['folder', '--name=untested', f'--source={digit_set / "source"}']
    command += [f'--data_dir={tmp_path}', '--val_fraction=0', '--test_fraction=0']
    assert prepare_data.main(command) == 0
    fields = {'data__name': 'untested', 'data__dir': str(tmp_path)}
    with pytest.raises(UserError, match='has no "test" split, only train'):
        train_here(config, tmp_path / 'run', **fields)
    assert not (tmp_path / 'run').exists()


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(config, tmp_path):
    fields = {'data__workers': 1, 'steps': 100_000, 'eval_every': 1000.0}
    with Child(arguments(config, tmp_path / 'run', **fields), tmp_path / 'log') as child:
        assert child.wait_until(lambda: last_step(tmp_path / 'run') >= 9)
        for worker in psutil.Process(child.process.pid).children(recursive=True):
            if 'resource_tracker' not in ' '.join(worker.cmdline()):
                worker.kill()
        assert child.wait() == 2, child.output
        assert 'error: A process that decodes pictures was killed' in child.output
        assert 'Traceback' not in child.output


def test_a_summary_of_a_streamed_configuration(config, capsys):
    assert summary.main([f'--config={config}']) == 0
    assert capsys.readouterr().out.splitlines()[0] == 'image 28x28x3'
