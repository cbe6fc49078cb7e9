"""Workers that share a sweep's trials: none is drawn twice, none is lost, none is one too many.

Workers are threads here, and a trial trains nothing; tests/cluster/ has real ones.
"""

import subprocess
import sys
import threading
import time

import optuna
import pytest

from configs import base
from errors import UserError
from sweeps import child, fleet, owner, study
from sweeps.engine import Work
from sweeps.space import Float, Objective, Sweep
from tests.conftest import ROOT

SWEEP = Sweep({'optimizer.learning_rate': Float(1e-4, 1e-1, log=True)}, Objective(), seed=3)
OPTIONS = {'jobs': 3, 'sampler': 'random', 'pruner': 'none', 'storage': None}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Seconds of waiting become tenths."""
    monkeypatch.setattr(fleet, 'PAUSE', 0.05)
    monkeypatch.setattr(owner, 'BEAT', 0.1)
    monkeypatch.setattr(owner, 'SILENCE', 1.0)


class Threads:
    """A scheduler of threads."""

    def __init__(self):
        self.threads, self.started = [], 0

    def start(self, worker, count):
        self.started += count
        new = [threading.Thread(target=worker.again()) for _ in range(count)]
        self.threads += new
        for thread in new:
            thread.start()

    def under_way(self):
        return sum(thread.is_alive() for thread in self.threads)

    def leave(self):
        return 'left'


class Never:
    def reason(self):
        return None


def open_study(folder, trials: int, alone: bool = False) -> study.Study:
    about = study.describe(SWEEP, base.get_config(), 'random', None)
    storage = study.storage_of(folder, None, alone)
    return study.Study(SWEEP, folder, trials, 'random', 'none', storage, about, alone)


def work_of(folder, trials: int) -> Work:
    shared = open_study(folder, trials)
    return Work(base.get_config(), SWEEP, shared, folder, Never(), print, OPTIONS)


def values(found: study.Study) -> list[tuple]:
    return [(t.number, t.params, t.state.name) for t in found.optuna.get_trials()]


def test_workers_draw_each_trial_once_and_as_one_process_would(tmp_path, monkeypatch):
    seen = []

    def run(work, trial, *where):
        seen.append(trial.number)
        time.sleep(0.05)
        trial.report(0.5, 1)
        return f'{trial.complete():.1f}'

    ask = optuna.study.Study.ask

    def slowly(self, *arguments):
        time.sleep(0.05)  # what another worker has counted meanwhile is wrong
        return ask(self, *arguments)

    monkeypatch.setattr(optuna.study.Study, 'ask', slowly)
    monkeypatch.setattr(child, 'run', run)
    work = work_of(tmp_path, 10)
    fleet.run(work, Threads())
    assert sorted(seen) == list(range(10))
    alone = tmp_path / 'alone'
    alone.mkdir()
    other = open_study(alone, 10, alone=True)
    for _ in range(10):
        trial = other.ask()
        trial.report(0.5, 1)
        trial.complete()
    assert values(work.study) == values(other)


def test_the_trial_of_a_dead_worker_is_taken_over_with_its_values(tmp_path, monkeypatch):
    dead = open_study(tmp_path, 2)
    lost = dead.ask()
    dead._owner._ended.set()  # it does not say so, as after SIGKILL
    began = {lost.number: lost.parameters}
    taken = {}

    def run(work, trial, *where):
        taken[trial.number] = trial.parameters
        trial.report(0.5, 1)
        return f'{trial.complete():.1f}'

    monkeypatch.setattr(child, 'run', run)
    scheduler = Threads()
    fleet.run(work_of(tmp_path, 2), scheduler)
    assert set(taken) == {0, 1}
    assert taken[lost.number] == began[lost.number]
    assert scheduler.started <= 4  # none is started for a trial that may not be taken yet


def test_the_lock_of_a_process_killed_while_drawing_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, 'GRACE', 3)
    script = f"""
import pathlib, time
from sweeps.owner import Owner
with Owner(pathlib.Path({str(tmp_path)!r}), alone=False).drawing():
    print('drawing', flush=True)
    time.sleep(60)
"""
    command = [sys.executable, '-c', script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'drawing\n'
        other.kill()
    began = time.monotonic()
    shared = open_study(tmp_path, 2)
    assert shared.ask().number == 0
    assert time.monotonic() - began >= 3
    shared.close()


def test_a_lock_that_changes_hands_is_nobodys_for_the_taking(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, 'GRACE', 3)
    inside, overlaps = [], []
    end = time.monotonic() + 5

    def work():
        own = owner.Owner(tmp_path, alone=False)
        while time.monotonic() < end:
            with own.drawing():
                inside.append(own)
                time.sleep(0.2)
                overlaps.extend(inside[1:])
                inside.remove(own)
        own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []


def test_workers_that_get_nowhere_are_not_started_for_ever(tmp_path, monkeypatch):
    def ask(self):
        raise UserError('this machine has no data')

    monkeypatch.setattr(study.Study, 'ask', ask)
    monkeypatch.setattr(threading, 'excepthook', lambda *about: None)
    with pytest.raises(UserError, match='and no trial ended: their output is below'):
        fleet.run(work_of(tmp_path, 2), Threads())


def test_a_sweep_alone_does_not_take_the_trials_of_living_workers(tmp_path):
    other = open_study(tmp_path, 2)
    other.ask()
    with pytest.raises(UserError, match='Workers are still at trials of'):
        open_study(tmp_path, 2, alone=True)
    other.close()
    alone = open_study(tmp_path, 2, alone=True)
    assert alone.ask().number == 0
