"""Workers that share a sweep's trials: no trial is drawn twice or lost, and none is in excess.

Workers are threads here, and a trial trains nothing; tests/cluster/ has real ones.
"""

import datetime
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from configs import base
from configs.search import Float, Objective, Sweep
from errors import UserError
from sweeps import child, fleet, local_engine, owner, ray_engine, room, study
from sweeps.engine import Work
from tests.conftest import ROOT

SWEEP = Sweep(
    {'optimizer.learning_rate': Float(1e-4, 1e-1, log=True)},
    Objective('validation/accuracy', 'maximize'),
    seed=3,
)
OPTIONS = {'sampler': 'random', 'pruner': 'none', 'storage': None}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shortens all waiting times."""
    monkeypatch.setattr(fleet, 'PAUSE', 0.05)
    monkeypatch.setattr(owner, 'INTERVAL', 0.1)
    monkeypatch.setattr(owner, 'SILENCE_LIMIT', 1.0)


class Threads:
    """A scheduler of threads, which start after a delay in seconds."""

    output = 'their output is here'

    def __init__(self, delay: float = 0.0):
        self.threads, self.started, self.delay = [], 0, delay

    def start(self, worker, count):
        self.started += count
        new = [threading.Timer(self.delay, worker.again()) for _ in range(count)]
        self.threads += new
        for thread in new:
            thread.start()
        return count

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


def work_of(folder, trials: int, jobs: int = 3) -> Work:
    shared = open_study(folder, trials)
    options = {**OPTIONS, 'jobs': jobs}
    return Work(base.get_config(), SWEEP, shared, folder, Never(), print, options)


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
        time.sleep(0.05)  # without the lock, another worker would count the same trials meanwhile
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
    dead._owner._ended.set()  # without removing its file, as after SIGKILL
    began = {lost.number: lost.parameters}
    taken = {}

    def run(work, trial, *where):
        taken[trial.number] = trial.parameters
        trial.report(0.5, 1)
        return f'{trial.complete():.1f}'

    monkeypatch.setattr(child, 'run', run)
    scheduler = Threads(delay=0.2)
    fleet.run(work_of(tmp_path, 2), scheduler)
    assert set(taken) == {0, 1}
    assert taken[lost.number] == began[lost.number]
    assert scheduler.started <= 2  # none is started for a trial that may not be taken yet


def test_a_trial_without_an_owner_is_taken_whatever_the_clocks_say(tmp_path):
    dead, driver, other = (open_study(tmp_path, 1) for _ in range(3))
    nameless = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    nameless.datetime_start += datetime.timedelta(hours=14)  # by a clock that is ahead
    dead.optuna.add_trial(nameless)  # and it dies before it has claimed the trial
    assert driver.load() == (1, 0)  # the owner may claim it in a moment
    time.sleep(1.1)
    assert driver.load() == (0, 1)
    assert other.ask().number == 0


def test_a_disk_that_fails_for_a_moment_makes_nobody_dead(tmp_path):
    shared = open_study(tmp_path, 1)
    shared.ask()
    (tmp_path / 'workers').rename(tmp_path / 'away')
    time.sleep(0.3)
    (tmp_path / 'away').rename(tmp_path / 'workers')
    time.sleep(1.1)
    assert open_study(tmp_path, 1).ask() is None
    shared.close()


def test_a_trial_that_was_taken_over_hears_no_more_of_its_first_owner(tmp_path):
    paused, other = open_study(tmp_path, 1), open_study(tmp_path, 1)
    lost = paused.ask()
    lost.report(0.25, 1)
    paused._owner._ended.set()
    time.sleep(1.1)
    taken = other.ask()
    assert taken.number == lost.number
    before = values(other), other.optuna.trials[0].user_attrs
    for say in (
        lambda: lost.report(0.5, 2), lost.complete, lost.prune, lambda: lost.fail('why'),
        lambda: lost.note(seconds=1.0),
    ):  # fmt: skip
        with pytest.raises(owner.TakenOverError, match='trial 0 is left to another process'):
            say()
    assert (values(other), other.optuna.trials[0].user_attrs) == before
    taken.report(0.75, 1)
    taken.complete()
    with pytest.raises(owner.TakenOverError):
        lost.report(0.5, 2)


def test_a_trial_that_was_taken_over_is_not_trained_on(tmp_path, monkeypatch):
    script = 'import pathlib, time; pathlib.Path("began").touch(); time.sleep(60)'
    (tmp_path / 'train.py').write_text(script)
    monkeypatch.setattr(child, 'ROOT', tmp_path)
    monkeypatch.chdir(tmp_path)
    work, other = work_of(tmp_path, 1), open_study(tmp_path, 1)
    messages = []
    work.say = messages.append

    def take():
        while not (tmp_path / 'began').exists():
            time.sleep(0.05)
        other._owner.claim(optuna.Trial(other.optuna, other.optuna.trials[0]._trial_id))

    thread = threading.Thread(target=take)
    thread.start()
    began = time.monotonic()
    local_engine.run(work)
    thread.join()
    assert time.monotonic() - began < 30  # the process was ended
    assert messages == [
        'trial 0 is left to another process, which took it over because this one did not respond '
        'for 1 s'
    ]
    assert values(other)[0][2] == 'RUNNING'


def test_the_lock_of_a_process_killed_while_drawing_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, 'LOCK_TIMEOUT', 3)
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


@pytest.mark.slow
def test_a_lock_that_changes_hands_is_nobodys_for_the_taking(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, 'LOCK_TIMEOUT', 3)
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


@pytest.mark.slow
def test_workers_that_get_nowhere_are_not_started_for_ever(tmp_path, monkeypatch):
    def ask(self):
        raise UserError('this machine has no data')

    monkeypatch.setattr(study.Study, 'ask', ask)
    monkeypatch.setattr(threading, 'excepthook', lambda *about: None)
    message = (
        r'^Workers were started 12 times without progress of any trial: their output is here\.$'
    )
    with pytest.raises(UserError, match=message):
        fleet.run(work_of(tmp_path, 2), Threads())


def test_a_worker_without_room_ends_the_sweep_and_no_trial(tmp_path, monkeypatch):
    full = [True]

    def run(work, trial, *where):
        if full:
            raise room.NoRoomError(str(tmp_path))
        trial.report(0.5, 1)
        return f'{trial.complete():.1f}'

    monkeypatch.setattr(child, 'run', run)
    monkeypatch.setattr(threading, 'excepthook', lambda *about: None)
    work = work_of(tmp_path, 2)
    with pytest.raises(UserError, match='make room, and the same command resumes it'):
        fleet.run(work, Threads())
    assert {state for _, _, state in values(work.study)} == {'RUNNING'}
    full.clear()
    work = work_of(tmp_path, 2)
    fleet.run(work, Threads())
    assert [state for _, _, state in values(work.study)] == ['COMPLETE'] * 2


def test_trials_that_are_longer_than_their_workers_live_come_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, 'SILENCE_LIMIT', 0.5)
    record = tmp_path / 'trials' / '0000' / 'metrics.jsonl'
    record.parent.mkdir(parents=True)
    enough = fleet.FRUITLESS + 4

    def run(work, trial, *where):
        with record.open('a') as file:
            file.write('{}\n')
        if len(record.read_text().splitlines()) < enough:
            work.stop.event.set()  # the scheduler preempts it
            return None
        trial.report(0.5, 1)
        return f'{trial.complete():.1f}'

    monkeypatch.setattr(child, 'run', run)
    scheduler = Threads()
    fleet.run(work_of(tmp_path, 1, jobs=1), scheduler)
    assert scheduler.started == enough


@pytest.mark.parametrize('there', [True, False], ids=['there', 'not there'])
def test_a_worker_goes_where_the_sweep_was_started(there, tmp_path, monkeypatch, capsys):
    home, elsewhere = tmp_path / 'home', tmp_path / 'elsewhere'
    home.mkdir()
    elsewhere.mkdir()
    folders = []

    def run(work, trial, *where):
        folders.append(Path.cwd())
        trial.report(0.5, 1)
        return f'{trial.complete():.1f}'

    monkeypatch.setattr(child, 'run', run)
    monkeypatch.chdir(home)
    worker = fleet.Worker(base.get_config(), SWEEP, tmp_path, 1, 'random', 'none', None)
    monkeypatch.chdir(elsewhere)
    if not there:
        home.rmdir()
    worker.again()()
    assert folders == [home if there else elsewhere]
    message = (
        f'The folder {home}, where the sweep was started, is not available on this machine (No '
        f'such file or directory): relative paths start in {elsewhere}\n'
    )
    assert (message in capsys.readouterr().out) is not there


def test_ray_says_that_no_node_is_large_enough(tmp_path):
    nodes = [
        {'Alive': True, 'Resources': {'CPU': 4.0}},
        {'Alive': False, 'Resources': {'GPU': 8.0}},
    ]
    task = SimpleNamespace(remote=lambda worker: worker)
    ray = SimpleNamespace(remote=lambda **resources: lambda run: task, nodes=lambda: nodes)
    messages = []
    options = {'cpus': 2, 'gpus': 1}
    work = SimpleNamespace(folder=tmp_path, options=options, say=messages.append)
    scheduler = ray_engine.Ray(ray, work)
    assert scheduler.start('worker', 2) == scheduler.start('worker', 2) == 2
    message = (
        'No node has the 2 CPU and 1 GPU of a trial (there are nodes of 4 and 0): the workers wait '
        'for such a node; otherwise, start again with other --cpus and --gpus'
    )
    assert messages == [message]
    options['gpus'] = None
    assert ray_engine.Ray(ray, work).start('worker', 1) == 1
    assert messages == [message]


def test_a_sweep_alone_does_not_take_the_trials_of_living_workers(tmp_path):
    other = open_study(tmp_path, 2)
    other.ask()
    with pytest.raises(UserError, match='Workers are still running trials of'):
        open_study(tmp_path, 2, alone=True)
    other.close()
    alone = open_study(tmp_path, 2, alone=True)
    assert alone.ask().number == 0


def test_a_data_base_is_of_one_folder(tmp_path):
    storage = f'sqlite:///{tmp_path / "trials.db"}'
    about = study.describe(SWEEP, base.get_config(), 'random', storage)
    for name in ('here', 'there'):
        (tmp_path / name).mkdir()

    def opened(name: str) -> study.Study:
        named = ('random', 'none', study.storage_of(tmp_path / name, storage), about, False)
        return study.Study(SWEEP, tmp_path / name, 2, *named)

    opened('here').close()
    with pytest.raises(UserError, match='in another --workdir: give the same'):
        opened('there')
    (tmp_path / 'here').rename(tmp_path / 'moved')
    opened('moved').close()


@pytest.mark.timeout(60)
def test_a_folder_that_was_moved_with_a_lock_in_it_goes_on(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    old.mkdir()
    open_study(old, 2).close()
    for name in ('study.journal', 'drawing'):
        (old / f'{name}.lock').symlink_to(old / name)
    old.rename(new)
    assert open_study(new, 2).ask().number == 0
