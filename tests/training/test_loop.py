"""The loop: what is due when, how far it runs ahead, and that nothing non-finite is kept."""

import itertools
import threading
import time
import types

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from errors import UserError
from tests.support import (
    arguments,
    curve,
    run_child,
    saved_arrays,
    saved_steps,
    train_here,
)
from training import start
from training.calendar import Calendar
from training.checkpoints import Checkpoints
from training.runner import RUN_AHEAD, Runner

PERIODS = (
    st.floats(1, 200) | st.integers(1, 200).map(float) | st.integers(2, 400).map(lambda n: n / 2)
)


@given(steps=st.integers(1, 500), period=PERIODS)
@example(steps=20, period=2.5)
@example(steps=10, period=1.5)
def test_the_kth_time_is_at_k_periods(steps, period):
    due = Calendar(steps, log_every=7, eval_every=period, save_every=3.0)
    found = [step for step in range(1, steps + 1) if due.evaluates(step)]
    times = {round(k * period) for k in range(1, steps + 1)}
    assert found == sorted({t for t in times if t <= steps} | {steps})


@given(steps=st.integers(1, 300), evaluate=PERIODS, save=PERIODS, log=st.integers(1, 50))
def test_what_was_summed_up_is_on_record_before_each_checkpoint(steps, evaluate, save, log):
    due = Calendar(steps, log, evaluate, save)
    for step in range(1, steps + 1):
        assert due.logs(step) == (step % log == 0 or due.evaluates(step) or due.saves(step))
    assert due.logs(steps)
    assert due.evaluates(steps)
    assert due.saves(steps)


def test_a_period_below_one_step_means_every_step():
    due = Calendar(5, log_every=100, eval_every=0.3, save_every=0.999)
    assert all(due.evaluates(step) and due.saves(step) for step in range(1, 6))


def test_periods_are_read_off_the_configuration():
    config = types.SimpleNamespace(
        log_every=20, eval_every=0.5, checkpoint=types.SimpleNamespace(every=2.0, every_steps=None)
    )
    experiment = types.SimpleNamespace(config=config, steps=100, steps_per_epoch=12.5)
    assert Calendar.of(experiment) == Calendar(100, 20, 6.25, 25.0)
    config.checkpoint.every_steps = 7
    assert Calendar.of(experiment).save_every == 7


@pytest.fixture
def spy(monkeypatch):
    """spy(after): after(step, state, metrics) sees, and may replace, what each step gives."""

    def arrange(after):
        class Runner(start.Runner):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                original, steps = self.train, iter(range(1, 10**6))
                self.train = lambda *given: after(next(steps), *original(*given))

        monkeypatch.setattr(start, 'Runner', Runner)
        return Runner

    return arrange


def test_it_runs_ahead_by_two_steps_and_no_more(spy, small, tmp_path):
    started, waited, ahead = [], [], []

    def after(step, state, metrics):
        ahead.append(len(started) - len(waited))
        started.append(id(metrics))
        return state, metrics

    runner, fetch = spy(after), start.Runner.fetch

    def counting(tree, into=None):
        if isinstance(tree, dict) and 'grad_norm' in tree:
            waited.append(id(tree))
        return fetch(tree, into)

    runner.fetch = staticmethod(counting)
    assert (
        train_here(small, tmp_path, log_every=12, eval_every=1.0, checkpoint__every_steps=12) == 0
    )
    # Before step 1 nothing was under way, before step 2 one step; then two all the time.
    assert ahead == [0, 1] + [RUN_AHEAD] * 10
    assert RUN_AHEAD == 2
    assert waited == started


def poisoned(tree):
    return jax.tree.map(lambda x: (x * np.float32(np.nan)).astype(x.dtype), tree)


@pytest.mark.parametrize('step', [1, 4, 5, 6, 12])
def test_a_loss_that_is_not_finite_stops_the_run(step, spy, small, tmp_path):
    def after(number, state, metrics):
        if number == step:
            metrics = {**metrics, 'loss': metrics['loss'] * np.float32(np.nan)}
        if number >= step:
            state = state.replace(params=poisoned(state.params))
        return state, metrics

    spy(after)
    with pytest.raises(UserError) as caught:
        train_here(small, tmp_path)
    good = [saved for saved in (4, 8) if saved < step]
    assert f'The loss is not finite at step {step}' in str(caught.value)
    if good:
        assert f'the last good checkpoint is step {good[-1]}' in str(caught.value)
    else:
        assert 'there is no checkpoint yet' in str(caught.value)
    assert saved_steps(tmp_path) == good
    assert all(record['step'] < step for record in curve(tmp_path))


def test_parameters_that_are_not_finite_under_a_finite_loss_are_not_saved(spy, small, tmp_path):
    def after(number, state, metrics):
        if number == 8:  # the loss of step 8 is of the parameters before it
            state = state.replace(opt_state=poisoned(state.opt_state))
        return state, metrics

    spy(after)
    message = r'The state \(opt_state.*\) is not finite at step 8; the last good .* is step 4'
    with pytest.raises(UserError, match=message):
        train_here(small, tmp_path)
    assert saved_steps(tmp_path) == [4]


def test_a_gradient_that_is_not_finite_stops_the_run(spy, small, tmp_path):
    def after(number, state, metrics):
        return state, {**metrics, 'grad_norm': metrics['grad_norm'] * np.float32(np.inf)}

    spy(after)
    with pytest.raises(UserError, match='The gradient is not finite at step 1'):
        train_here(small, tmp_path)


def test_a_learning_rate_far_too_high(small, tmp_path):
    settings = {'optimizer__learning_rate': 1e30, 'checkpoint__every_steps': 1, 'eval_every': 1}
    child = run_child(arguments(small, tmp_path / 'run', **settings), tmp_path / 'log')
    assert child.process.returncode == 2
    message = child.output.splitlines()[-1]
    assert 'is not finite at step' in message
    assert 'Lower config.optimizer.learning_rate' in message
    kept = saved_steps(tmp_path / 'run')
    expected = f'the last good checkpoint is step {kept[-1]}' if kept else 'no checkpoint yet'
    assert expected in message
    for step in kept:
        for name, array in saved_arrays(tmp_path / 'run', step).items():
            assert np.isfinite(array).all(), name


def test_a_save_is_over_before_its_arrays_are_written_over(small, tmp_path, monkeypatch):
    fetch, write_manifest = Runner.fetch, Checkpoints._write_manifest
    writing, seen = threading.Event(), []

    def slowly(self):
        writing.set()
        time.sleep(0.3)
        write_manifest(self)
        writing.clear()

    def watched(tree, into=None):
        if into is not None:
            seen.append(writing.is_set())
        return fetch(tree, into)

    monkeypatch.setattr(Checkpoints, '_write_manifest', slowly)
    monkeypatch.setattr(Runner, 'fetch', staticmethod(watched))
    every_step = {'steps': 4, 'checkpoint__every_steps': 1, 'checkpoint__keep': 4}
    assert train_here(small, tmp_path / 'run', **every_step) == 0
    assert seen == [False] * 3
    saved = [saved_arrays(tmp_path / 'run', step) for step in (1, 2, 3, 4)]
    assert [int(arrays['step']) for arrays in saved] == [1, 2, 3, 4]
    for before, after in itertools.pairwise(saved):
        assert any('params' in n and (before[n] != after[n]).any() for n in before)
