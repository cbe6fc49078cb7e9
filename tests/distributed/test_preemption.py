"""A run that is told to stop ends after the current step, and resumes as if it had not stopped.

The signal comes from the process itself, at a chosen step; test_resume.py sends it from outside.
"""

import os
import signal
import threading

import pytest

from distributed.preemption import Preemption
from tasks.classification import Classification
from tests.support import curve, result, saved_steps, slow, train_here
from training import run, start, trained

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)

ACCURACY = Classification.metrics[0]


@pytest.fixture
def signal_at(monkeypatch):
    """signal_at(step, number): the next run gets the signal while that step is under way."""

    def arrange(step: int, number: signal.Signals):
        class Runner(start.Runner):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                original, calls = self.train, iter(range(1, 10**6))

                def train(state, *rest):
                    if next(calls) == step:
                        os.kill(os.getpid(), number)
                    return original(state, *rest)

                self.train = train

        monkeypatch.setattr(start, 'Runner', Runner)

    return arrange


@pytest.mark.parametrize(
    ('step', 'number'),
    [
        (5, signal.SIGTERM),  # between two records
        slow(6, signal.SIGUSR2),  # at a record
        slow(8, signal.SIGINT),  # where an evaluation and a checkpoint are due
    ],
)
def test_stops_after_the_step_and_goes_on_as_if_it_had_not(
    step, number, small, small_run, signal_at, monkeypatch, tmp_path, capfd
):
    signal_at(step, number)
    assert train_here(small, tmp_path) == 75
    output = capfd.readouterr().out
    assert f'{number.name}: stopped after step {step} of 12 and saved. To resume:' in output
    assert saved_steps(tmp_path)[-1] == step
    assert not (tmp_path / 'result.json').exists()

    monkeypatch.undo()
    assert train_here(None, tmp_path) == 0
    assert result(tmp_path)['params_sha256'] == result(small_run)['params_sha256']
    # The same records: none for the stop, and none that lacks what came before it.
    assert curve(tmp_path) == curve(small_run)
    best = trained.find(tmp_path, 'best', ACCURACY).name
    assert best == trained.find(small_run, 'best', ACCURACY).name


def test_at_the_last_step_the_run_ends(small, small_run, signal_at, tmp_path):
    signal_at(12, signal.SIGTERM)
    assert train_here(small, tmp_path) == 0
    assert curve(tmp_path) == curve(small_run)
    assert result(tmp_path)['params_sha256'] == result(small_run)['params_sha256']


def test_during_the_test_at_the_end_the_run_ends(small, monkeypatch, tmp_path):
    finish = run._test

    def stopped(self, state):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(self, state)

    monkeypatch.setattr(run, '_test', stopped)
    assert train_here(small, tmp_path, steps=1) == 0
    assert result(tmp_path)['steps'] == 1


def test_an_evaluation_left_undone_makes_its_checkpoint_the_best_all_the_same(
    small, small_run, signal_at, monkeypatch, tmp_path
):
    accuracies = {
        record['step']: record['validation/accuracy']
        for record in curve(small_run)
        if 'validation/accuracy' in record
    }
    assert accuracies[4] < accuracies[8], 'this test needs a run that learns'
    signal_at(8, signal.SIGTERM)
    assert train_here(small, tmp_path) == 75
    assert trained.find(tmp_path, 'best', ACCURACY).name == '4'
    monkeypatch.undo()

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.Loop, 'run', killed)  # soon after the next start
    with pytest.raises(KeyboardInterrupt):
        train_here(None, tmp_path)
    assert trained.find(tmp_path, 'best', ACCURACY).name == '8'


def test_sums_that_are_not_on_record_go_with_their_checkpoint(
    small, small_run, signal_at, monkeypatch, tmp_path, capfd
):
    signal_at(5, signal.SIGTERM)
    assert train_here(small, tmp_path) == 75
    monkeypatch.undo()
    (tmp_path / 'checkpoints' / '5' / 'window.json').write_text('{}')
    assert train_here(None, tmp_path) == 0
    assert 'checkpoints/5 is damaged (window.json has changed)' in capfd.readouterr().out
    assert curve(tmp_path) == curve(small_run)


def test_the_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Preemption() as preemption:
        assert [signal.getsignal(number) for number in SIGNALS] != before
        assert preemption.reason() is None
        os.kill(os.getpid(), signal.SIGUSR2)
        assert preemption.reason() == 'SIGUSR2'
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_ctrl_c_means_now():
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.reason() == 'SIGINT'
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_the_handlers_stay():
    reasons = []

    def body():
        with Preemption() as preemption:
            reasons.append(preemption.reason())

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert reasons == [None]
    assert [signal.getsignal(number) for number in SIGNALS] == before
