"""Contestants take turns, are stopped in between, and all of their CPU time is counted."""

import contextlib
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import contest
from benchmarks.contest import Contestant, ContestantProcess, LeftOutError, Turn
from processes import ROOT

# What stands in for an array: it has a length, a shape and a dtype.
BATCHES = """
import sys, threading, time
sys.path.insert(0, {channel!r})
import channel

class Batch(list):
    shape, dtype = (3, 2, 2, 3), 'uint8'

def batches(work):
    while True:
        {each}
        yield Batch([0] * work['images'])

def compete(answers, work):
    print('noise that is no answer')
    {first}
    answers.serve(batches(work), versions={{'it': '1.0'}})

channel.run(compete)
"""


def contestant_of(tmp_path, each='pass', first='pass', images=3, name='it'):
    path = tmp_path / 'contestant.py'
    folder = str(ROOT / 'benchmarks' / 'contestants')
    path.write_text(textwrap.dedent(BATCHES).format(channel=folder, each=each, first=first))
    return Contestant(name, [sys.executable, path], {'images': images})


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda contestant: ContestantProcess(contestant, tmp_path / 'log', stack)


def family(contestant):
    first = psutil.Process(contestant.process.pid)
    return [first, *first.children(recursive=True)]


def test_it_gives_as_many_batches_as_asked_for(tmp_path, start):
    contestant = start(contestant_of(tmp_path))
    assert contestant.about == {
        'shape': [3, 2, 2, 3],
        'dtype': 'uint8',
        'versions': {'it': '1.0'},
    }
    assert [contestant.run(count).images for count in (1, 4, 2)] == [3, 12, 6]


def test_its_seconds_are_those_of_the_turn(tmp_path, start):
    before = 'while time.process_time() < 0.6: pass'
    turn = start(contestant_of(tmp_path, each='time.sleep(0.05)', first=before)).run(4)
    assert turn.seconds >= 0.2
    assert turn.cpu_seconds < 0.3  # asleep


def test_it_is_stopped_between_its_turns_with_all_its_processes(tmp_path, start):
    child = "import subprocess; subprocess.Popen(['sleep', '600'])"
    contestant = start(contestant_of(tmp_path, first=child))
    for _ in range(2):
        _until(lambda: {p.status() for p in family(contestant)} == {psutil.STATUS_STOPPED})
        assert len(family(contestant)) == 2
        contestant.run(1)


def test_the_time_of_its_processes_counts(tmp_path, start):
    burn = 'import time\nwhile time.process_time() < 0.3: pass'
    for each in (
        f'import subprocess; subprocess.run([sys.executable, "-c", {burn!r}])',  # ended: waited for
        f'import subprocess; p = subprocess.Popen([sys.executable, "-c", {burn + chr(10)!r} + '
        '"print(flush=True); time.sleep(600)"], stdout=subprocess.PIPE); p.stdout.readline()',
    ):
        # The batch before the first turn is not its own.
        contestant = start(contestant_of(tmp_path, each=each))
        assert contestant.run(1).cpu_seconds > 0.25


def test_nothing_of_it_is_left(tmp_path):
    child = "import subprocess; subprocess.Popen(['sleep', '600'])"
    with contextlib.ExitStack() as stack:
        contestant = contestant_of(tmp_path, first=child)
        members = family(ContestantProcess(contestant, tmp_path / 'log', stack))
    _until(lambda: not any(p.is_running() and p.status() != 'zombie' for p in members))


def test_what_cannot_take_part_says_why(tmp_path):
    folder = ROOT / 'benchmarks' / 'contestants'
    dies = Contestant('it', [sys.executable, '-c', 'raise SystemExit("out of luck")'], {})
    without = contestant_of(tmp_path, first='import not_there_at_all')
    for contestant, message in (
        (
            Contestant('it', ['/nowhere/python', folder], {}),
            '/nowhere/python cannot be started: No su',
        ),
        (dies, 'it ended by itself: out of luck'),
        (without, f'{sys.executable} has no package "not_there_at_all": install it there.'),
    ):
        with contextlib.ExitStack() as stack, pytest.raises(LeftOutError) as caught:
            ContestantProcess(contestant, tmp_path / 'log', stack)
        assert str(caught.value).startswith(message)


def test_one_that_ends_in_its_turn(tmp_path, start):
    contestant = start(
        contestant_of(tmp_path, each="sys.argv.append('') or len(sys.argv) < 5 or 1 / 0")
    )
    assert contestant.run(1).images == 3
    with pytest.raises(LeftOutError, match=r'it ended by itself: ZeroDivisionError: division'):
        contestant.run(5)


def test_those_that_do_not_start_are_reported_and_the_others_play(tmp_path):
    reported = {}
    contestants = [contestant_of(tmp_path), Contestant('absent', ['/nowhere/python'], {})]
    with contest.started(contestants, tmp_path, reported.__setitem__) as running:
        assert list(running) == ['it']
        turns = list(contest.play(running, rounds=2, batches=2, warm_up=1))
    assert [(name, turn.images) for name, turn in turns] == [('it', 6), ('it', 6)]
    assert list(reported) == ['absent']


def test_they_take_turns_after_a_first_round_that_does_not_count():
    asked = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def run(self, batches):
            asked.append((self.name, batches))
            return Turn(batches, 1.0, 1.0)

    fakes = {name: Fake(name) for name in 'ab'}
    counted = [name for name, _ in contest.play(fakes, rounds=2, batches=5, warm_up=3)]
    assert counted == ['a', 'b', 'a', 'b']
    assert asked == [('a', 3), ('b', 3), ('a', 5), ('b', 5), ('a', 5), ('b', 5)]


def test_scores_by_hand():
    turns = {
        'ours': [Turn(100, 1.0, 2.0), Turn(100, 0.5, 2.0), Turn(100, 10.0, 4.0)],
        'other': [Turn(100, 2.0, 1.0), Turn(100, 4.0, 1.0), Turn(100, 2.0, 1.0)],
    }
    ours, other = contest.score(turns)
    assert (ours.rate, ours.slowest, ours.fastest) == (100, 10, 200)
    assert (ours.cpu_rate, ours.ratio, ours.cpu_ratio) == (50, 1, 1)
    assert (other.rate, other.slowest, other.fastest) == (50, 25, 50)
    assert (other.cpu_rate, other.ratio, other.cpu_ratio) == (100, 2, 0.5)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.floats(0.1, 10))
def test_the_ratio_does_not_depend_on_the_machine(seconds, factor):
    turns = {
        'ours': [Turn(64, second, second) for second in seconds],
        'other': [Turn(64, 2 * second, second) for second in seconds],
    }
    slower = {
        name: [Turn(t.images, t.seconds * factor, t.cpu_seconds * factor) for t in own]
        for name, own in turns.items()
    }
    for scores in (contest.score(turns), contest.score(slower)):
        assert scores[1].ratio == pytest.approx(2)
        assert scores[1].cpu_ratio == pytest.approx(1)


def test_the_channel_needs_nothing_but_the_standard_library():
    """It runs in other people's Pythons."""
    code = 'import sys, channel; print(*{name.partition(".")[0] for name in sys.modules})'
    command = [sys.executable, '-S', '-c', code]
    folder = ROOT / 'benchmarks' / 'contestants'
    imported = set(subprocess.check_output(command, cwd=folder, text=True).split())
    assert {'channel', 'json'} <= imported
    assert imported <= {*sys.stdlib_module_names, 'channel', '__main__'}


def _until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
