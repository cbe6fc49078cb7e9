"""A trace of some steps: where it lies, what is in it, and which wishes are refused."""

import os
import signal

import jax
import pytest

from errors import UserError
from tests.support import curve, result, saved_steps, train_here
from training import start


def traces(workdir):
    return sorted(workdir.glob('tensorboard/plugins/profile/*/*.xplane.pb'))


def traced_steps(workdir):
    """The numbers of the steps that the only trace names."""
    (path,) = traces(workdir)
    found = []
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if event.name == 'train' and 'step_num' in stats:
                    found.append(int(stats['step_num']))
    return sorted(found)


def test_the_steps_asked_for_are_in_the_trace(small, small_run, tmp_path, capfd):
    assert train_here(small, tmp_path, profile__steps='(5,8)') == 0
    assert traced_steps(tmp_path) == [6, 7, 8]
    said = f'A trace of steps 6 to 8 is in {tmp_path}/tensorboard/plugins/profile'
    assert said in capfd.readouterr().out
    # The run is the same.
    assert curve(tmp_path) == curve(small_run)
    assert result(tmp_path)['params_sha256'] == result(small_run)['params_sha256']


@pytest.mark.slow
def test_no_call_reaches_over_the_edge_of_the_trace(small, tmp_path):
    settings = {'steps_per_call': 3, 'log_every': 12, 'eval_every': 1.0}
    assert train_here(small, tmp_path, checkpoint__every_steps=12, profile__steps='(4,8)',
                      **settings) == 0  # fmt: skip
    assert traced_steps(tmp_path) == [7, 8]  # 5 to 7 in one call, then 8


def test_a_run_that_is_stopped_within_writes_what_there_is(small, monkeypatch, tmp_path, capfd):
    class Runner(start.Runner):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            original, calls = self.train, iter(range(1, 100))

            def train(*given):
                if next(calls) == 6:
                    os.kill(os.getpid(), signal.SIGTERM)
                return original(*given)

            self.train = train

    monkeypatch.setattr(start, 'Runner', Runner)
    assert train_here(small, tmp_path, profile__steps='(4,9)') == 75
    assert traced_steps(tmp_path) == [5, 6]
    assert 'A trace of steps 5 to 6' in capfd.readouterr().out
    monkeypatch.undo()
    assert saved_steps(tmp_path)[-1] == 6
    assert train_here(None, tmp_path) == 0  # and goes on with the rest
    assert 'A trace of steps 7 to 9' in capfd.readouterr().out
    assert 1 <= len(traces(tmp_path)) <= 2  # a folder is named by the second it was written in


@pytest.mark.slow
def test_a_run_that_fails_within_can_be_followed_by_another(small, monkeypatch, tmp_path):
    class Runner(start.Runner):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)

            def fail(*given):
                raise UserError('no')

            self.train = fail

    monkeypatch.setattr(start, 'Runner', Runner)
    with pytest.raises(UserError, match='no'):
        train_here(small, tmp_path / 'one', profile__steps='(0,2)')
    monkeypatch.undo()
    assert train_here(small, tmp_path / 'two', profile__steps='(0,2)') == 0
    assert traced_steps(tmp_path / 'two') == [1, 2]


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        ('(5,)', r'must be \(start, stop\) with 0 <= start < stop'),
        ('(5,5)', r'must be \(start, stop\)'),
        ('(-1,5)', 'at least 0'),
        ('(1,2,3)', r'must be \(start, stop\)'),
        ('(1.5,3)', 'a tuple of whole numbers'),
        ('1-3', 'a tuple of whole numbers'),
        ('(10,13)', r'profile.steps=\(10, 13\) lies beyond the end of the run, which has 12 steps'),
    ],
)
def test_what_is_refused(steps, message, small, tmp_path):
    with pytest.raises(UserError, match=message):
        train_here(small, tmp_path / 'run', profile__steps=steps)
    assert not (tmp_path / 'run').exists()
