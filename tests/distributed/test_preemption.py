"""A run that is told to stop ends after the current step, and resumes as if it had not stopped.

The signal comes from the process itself, at a chosen step; test_resume.py sends it from outside.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest

import command
import train
from distributed import preemption
from distributed.preemption import Preemption
from tasks.classification import Classification
from tests.conftest import ROOT
from tests.support import (
    LONG,
    Broken,
    Child,
    arguments,
    curve,
    result,
    saved_steps,
    slow,
    train_here,
)
from training import run, start, trained

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)

ACCURACY = Classification.metrics[0]


@pytest.fixture(scope='module', autouse=True)
def signals_as_in_a_terminal():
    """The tests may have been started with some ignored, by nohup or behind an ampersand."""
    earlier = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


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
        slow(5, signal.SIGHUP),
        slow(5, signal.SIGUSR1),
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


def test_a_run_that_prints_into_a_pipe_without_a_reader_is_stopped_and_says_so_by_its_code(
    small, signal_at, monkeypatch, tmp_path
):
    signal_at(1, signal.SIGTERM)
    monkeypatch.setattr(sys, 'stdout', Broken(BrokenPipeError()))
    assert command.call(train.main, arguments(small, tmp_path)) == 75
    assert saved_steps(tmp_path) == [1]


@pytest.mark.parametrize('number', SIGNALS)
def test_the_handlers_come_back(number):
    before = [signal.getsignal(number) for number in SIGNALS]
    with Preemption() as preemption:
        assert not {signal.getsignal(number) for number in SIGNALS} & set(before)
        assert preemption.reason() is None
        os.kill(os.getpid(), number)
        assert preemption.reason() == number.name
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_nohup_stays_in_force(monkeypatch):
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert preemption.reason() is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, earlier)


# Stands still where JAX compiles, in code that runs no Python: its handlers do not run either. A
# lock that is taken twice waits for ever, and signals do not interrupt it.
COMPILING = """
import ctypes
from distributed import preemption

preemption.UNWIND = 0
with preemption.Preemption():
    print('compiling', flush=True)
    mutex = ctypes.create_string_buffer(64)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize('number', [SIGNALS[0], *map(slow, SIGNALS[1:])])
def test_a_signal_is_acknowledged_while_nothing_else_moves_and_aborts_if_sent_again(
    number, tmp_path
):
    answer = f'{number.name}: stopping after this step; again to abort'
    with Child([], tmp_path / 'log', COMPILING) as child:
        assert child.wait_until(lambda: 'compiling' in child.output), child.output
        child.process.send_signal(number)
        assert child.wait_until(lambda: answer in child.output), child.output
        assert child.kill(number) == 130
    assert child.output.splitlines() == [
        'compiling', answer, 'aborted: the same command resumes from the last checkpoint'
    ]  # fmt: skip


@pytest.mark.parametrize('number', SIGNALS)
def test_one_signal_while_nothing_else_moves_saves(number, monkeypatch):
    """It is answered before its handler runs, which must not take it for a second one."""
    answered, calls, select = threading.Event(), itertools.count(1), preemption.select.select

    def selecting(*arguments):
        if next(calls) == 2:  # it has answered, and waits for the next signal
            answered.set()
        return select(*arguments)

    monkeypatch.setattr(preemption.select, 'select', selecting)
    with Preemption() as caught:
        # The interpreter writes at once, and calls the handler when the main thread runs Python.
        pipe = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        os.write(pipe, bytes([number]))
        assert answered.wait(LONG)
        signal.getsignal(number)(number, None)
        assert caught.reason() == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_two_different_signals_are_no_order_to_abort():
    """As SLURM sends them: a warning, and SIGTERM when the time is over."""
    with Preemption() as preemption:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
            assert preemption.reason() == number.name


def test_signals_while_it_starts_are_caught_before_anything_slow_is_imported():
    script = (
        'import sys, train, distributed.preemption as preemption\n'
        'def enter(self):\n'
        '    assert not {"jax", "numpy"} & set(sys.modules)\n'
        '    sys.exit(7)\n'
        'preemption.Preemption.__enter__ = enter\n'
        'train.main(["--workdir=x"])\n'
    )
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, check=False)
    assert done.returncode == 7


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
