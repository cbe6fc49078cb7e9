"""Several updates per call: the same run, and the same promises, as with one."""

import os
import shutil
import signal
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed import devices
from errors import UserError
from tests.conftest import SMALL
from tests.support import (
    arguments,
    curve,
    result,
    run_child,
    saved_arrays,
    saved_steps,
    slow,
    train_here,
    write_config,
)
from training import placement, start
from training.calendar import Calendar
from training.runner import RUN_AHEAD

MOST = 2
# Records at 3, 6, 9 and 12, evaluations and checkpoints at 4, 8 and 12.
AFTER = {0: 2, 2: 1, 3: 1, 4: 2, 6: 2, 8: 1, 9: 2, 11: 1}
# Kills itself while its fourth call of two updates is under way: after step 9.
KILLED = """
import os
import signal
import train
import command
from training import start

class Runner(start.Runner):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        original, calls = self.train_many, iter(range(1, 100))

        def train_many(*given):
            if next(calls) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given)

        self.train_many = train_many

start.Runner = Runner
command.run(train.main)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Everything that is drawn by the step or carried from one to the next."""
    random = {'model__dropout_rate': 0.3, 'augment__flip': 0.5}
    return write_config(tmp_path_factory.mktemp('config'), **SMALL, **random, ema_decay=0.9)


@pytest.fixture(scope='module')
def one_by_one(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('one') / 'run'
    assert train_here(config, workdir, steps_per_call=1) == 0
    return workdir


@pytest.fixture(scope='module')
def in_twos(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('two') / 'run'
    assert train_here(config, workdir, steps_per_call=MOST) == 0
    return workdir


@pytest.fixture
def spy(monkeypatch):
    """spy(before, after): called around each call of the step, with its number of updates."""

    def arrange(before=lambda count: None, after=lambda count, state, metrics: (state, metrics)):
        class Runner(start.Runner):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                self.train = self._spied(self.train, 1)
                self.train_many = self._spied(self.train_many, MOST)

            @staticmethod
            def _spied(original, count):
                def call(*given):
                    before(count)
                    return after(count, *original(*given))

                return call

        monkeypatch.setattr(start, 'Runner', Runner)

    return arrange


@given(
    steps=st.integers(1, 200),
    log=st.integers(1, 50),
    evaluate=st.floats(1, 80),
    save=st.floats(1, 80),
    most=st.integers(1, 12),
    edges=st.sets(st.integers(0, 200), max_size=2),
)
def test_a_call_ends_where_something_is_due(steps, log, evaluate, save, most, edges):
    due = Calendar(steps, log, evaluate, save, tuple(edges))
    stops = {n for n in range(1, steps + 1) if due.logs(n)} | edges
    for first in range(steps):
        count = due.call(first, most)
        inside = stops & set(range(first + 1, first + most))
        assert count == (1 if inside else most)
        assert first + count <= steps


@pytest.mark.parametrize('runner', ['pmap', slow('shard_map')])
def test_equals_a_run_step_by_step(runner, config, one_by_one, spy, tmp_path):
    """To 1e-6: the compiler may round a step within a loop otherwise. (Here it does not.)

    In a network with max pooling a difference of rounding grows, as it would between machines.
    """
    calls = []
    spy(before=calls.append)
    assert train_here(config, tmp_path, steps_per_call=MOST, runner=runner) == 0
    assert calls == list(AFTER.values())
    ours, theirs = curve(tmp_path), curve(one_by_one)
    assert [list(record) for record in ours] == [list(record) for record in theirs]
    for record, expected in zip(ours, theirs, strict=True):
        for name, value in expected.items():
            assert record[name] == pytest.approx(value, rel=1e-6), name
    assert saved_steps(tmp_path) == saved_steps(one_by_one)
    ours, theirs = saved_arrays(tmp_path, 12), saved_arrays(one_by_one, 12)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-6, atol=1e-7, err_msg=name)


def assert_same_run(workdir, reference):
    for name in ('params_sha256', 'test_correct', 'test_loss', 'steps'):
        assert result(workdir)[name] == result(reference)[name], name
    assert curve(workdir) == curve(reference)
    assert saved_steps(workdir) == saved_steps(reference)


@pytest.mark.parametrize('call', [3, 5])
def test_told_to_stop_it_stops_after_the_call(call, config, in_twos, spy, monkeypatch, tmp_path):
    """After the call of one update that ends at step 4, or that of two between records."""
    left = iter(range(1, 100))
    spy(before=lambda count: os.kill(os.getpid(), signal.SIGTERM) if next(left) == call else None)
    assert train_here(config, tmp_path, steps_per_call=MOST) == 75
    start = list(AFTER)[call - 1]
    assert saved_steps(tmp_path)[-1] == start + AFTER[start]
    monkeypatch.undo()
    assert train_here(None, tmp_path) == 0
    assert_same_run(tmp_path, in_twos)


def test_killed_it_goes_on_to_the_same_bits(config, in_twos, tmp_path):
    workdir = tmp_path / 'run'
    child = run_child(arguments(config, workdir, steps_per_call=MOST), tmp_path / 'log', KILLED)
    assert child.process.returncode == -signal.SIGKILL, child.output
    assert saved_steps(workdir)[-1] in (4, 8)  # 8 was on its way to the disk
    assert train_here(None, workdir) == 0
    assert_same_run(workdir, in_twos)


@pytest.mark.parametrize('number', [0, 1])
def test_a_loss_that_is_not_finite_is_named_by_its_step(number, config, spy, tmp_path):
    after_calls = []

    def after(count, state, metrics):
        after_calls.append(count)
        if len(after_calls) == 5:  # steps 7 and 8
            assert count == MOST
            loss = np.array(metrics['loss'])
            loss[number] = np.nan
            metrics = {**metrics, 'loss': metrics['loss'] * 0 + loss}
        return state, metrics

    spy(after=after)
    with pytest.raises(UserError, match=f'The loss is not finite at step {7 + number}; .* step 4'):
        train_here(config, tmp_path, steps_per_call=MOST)


def test_it_runs_ahead_by_two_calls_and_no_more(config, spy, monkeypatch, tmp_path):
    under_way, ahead = [0], []
    fetch = start.Runner.fetch

    def counting(tree, into=None):
        if isinstance(tree, dict) and 'grad_norm' in tree:
            under_way[0] -= 1
        return fetch(tree, into)

    def after(count, state, metrics):
        under_way[0] += 1
        return state, metrics

    spy(before=lambda count: ahead.append(under_way[0]), after=after)
    monkeypatch.setattr(start.Runner, 'fetch', staticmethod(counting))
    settings = {'log_every': 12, 'eval_every': 1.0, 'checkpoint__every_steps': 12}
    assert train_here(config, tmp_path, steps_per_call=MOST, **settings) == 0
    assert ahead == [0, 1] + [RUN_AHEAD] * 4


@pytest.mark.parametrize(
    'fields', [{'data__placement': 'host'}, {'data__name': 'pictures', 'data__image_size': 32}]
)
def test_refused_where_images_are_sent_by_the_batch(fields, config, tmp_path):
    with pytest.raises(UserError, match=r'config.steps_per_call=2 needs a training set that is'):
        train_here(config, tmp_path / 'run', steps_per_call=MOST, **fields)
    assert not (tmp_path / 'run').exists()


def test_refused_where_the_set_does_not_fit(config, monkeypatch, tmp_path):
    monkeypatch.setattr(devices, 'memory_limit', lambda device: 1_000_000)
    with pytest.raises(UserError, match=r'leave config\.steps_per_call out'):
        train_here(config, tmp_path, steps_per_call=MOST)


@pytest.mark.parametrize(
    ('resident', 'platform', 'expected'),
    [(True, 'cpu', 1), (True, 'gpu', 10), (True, 'tpu', 10), (False, 'gpu', 1)],
)
def test_what_is_chosen_where_nobody_says(resident, platform, expected):
    config = types.SimpleNamespace(steps_per_call=None)
    assert placement.updates_per_call(config, resident, platform) == expected


def test_the_number_may_change_on_resume(config, in_twos, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(in_twos, workdir)
    for step in (8, 12):
        shutil.rmtree(workdir / 'checkpoints' / str(step))
    (workdir / 'result.json').unlink()
    assert train_here(config, workdir, steps_per_call=1) == 0
    assert result(workdir)['test_correct'] == result(in_twos)['test_correct']
