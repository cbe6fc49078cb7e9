"""The drill: what does not hold is seen, named and kept, and what holds leaves nothing behind."""

import json

import pytest

import command
from tools import drill
from tools.drill import inputs, runs, session, trial
from tools.drill.trial import DidNotHoldError, Held, Kind


@pytest.fixture
def kinds(monkeypatch):
    """Sets what the trials of "kills" and "files" do."""

    def set_trials(**trials):
        kinds = {n: Kind(n, f'about {n}', lambda ground: 'shared', t) for n, t in trials.items()}
        monkeypatch.setattr(session, 'ALL', kinds)

    return set_trials


def call(folder, *options):
    return command.call(drill.main, ['--jobs=2', f'--folder={folder}', *options])


def test_the_kinds_take_turns_and_what_holds_leaves_nothing(tmp_path, kinds, capsys):
    seen = []

    def hold(ground, shared, folder, number):
        assert shared == 'shared'
        assert folder.is_dir()
        seen.append((ground.folder.name, number, ground.draw(number).random()))
        return Held(3, 10**6)

    kinds(kills=hold, files=hold)
    assert call(tmp_path / 'a', '--only=kills,files', '--trials=9') == 0
    table = capsys.readouterr().out
    assert not (tmp_path / 'a').exists()
    assert len(seen) == len(set(seen)) == len({draw for *_, draw in seen})
    for name in ('kills', 'files'):
        count = 3 * sum(kind == name for kind, *_ in seen)
        assert count >= 9
        assert f'{count} of {count}' in table
    first = set(seen)
    seen.clear()
    assert call(tmp_path / 'b', '--only=kills,files', '--trials=9', '--markdown') == 0
    assert first & set(seen), 'the same draws for the same seed'
    assert '| files | ' in capsys.readouterr().out


def test_what_does_not_hold_is_named_and_kept(tmp_path, kinds, capsys):
    def break_one(ground, shared, folder, number):
        (folder / 'run').write_text('evidence')
        if number == 1:
            raise DidNotHoldError(f'other bits ({folder})', 50, 49)
        return Held(50)

    kinds(files=break_one)
    assert call(tmp_path / 'a', '--jobs=1', '--only=files', '--trials=150') == 1
    printed = capsys.readouterr()
    assert 'did not hold: files 1: other bits' in printed.err
    assert '149 of 150' in printed.out
    assert [p.read_text() for p in (tmp_path / 'a').rglob('run')] == ['evidence']


def test_each_kind_may_have_its_own_number_of_trials(tmp_path, kinds, capsys):
    kinds(kills=lambda *_: Held(), files=lambda *_: Held(10))
    assert call(tmp_path / 'a', '--jobs=1', '--trials=kills=2,files=50') == 0
    table = capsys.readouterr().out
    assert '2 of 2' in table
    assert '50 of 50' in table


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--only=fires'], 'there is no kind of trial "fires"'),
        (['--trials=kill=3'], 'there is no kind of trial "kill"'),
        (['--trials=kills=x'], '"x" is not a whole number above 0'),
        (['--trials=0'], '"0" is not a whole number above 0'),
        (['--config.seed=1'], '--config.seed=1 means nothing to tools.drill'),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, options, message, capsys):
    assert call(tmp_path / 'a', *options) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_the_users_is_refused(tmp_path, capsys):
    (tmp_path / 'mine').touch()
    assert call(tmp_path) == 2
    assert 'is not empty' in capsys.readouterr().err
    assert (tmp_path / 'mine').exists()


@pytest.mark.parametrize('kind', ['configs', 'files'])
def test_inputs_are_read_or_refused(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(inputs.BATCH, kind, 25)
    inputs.read_batch(kind, 1, 100, str(tmp_path))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith('drill ')]
    assert [line.split()[1] for line in lines] == [*['tried'] * 25, 'memory']


def test_an_error_that_is_no_sentence_is_seen(tmp_path, monkeypatch, capfd):
    def fail(*_):
        raise KeyError('name')

    monkeypatch.setitem(inputs.BATCH, 'configs', 1)
    monkeypatch.setattr(inputs, '_read_config', fail)
    inputs.read_batch('configs', 0, 7, str(tmp_path))
    assert "drill odd 7: KeyError: 'name'" in capfd.readouterr().out


def test_other_bits_are_seen(tmp_path, monkeypatch):
    class Reference:
        sha256 = 'a'

    monkeypatch.setattr(runs, 'run', lambda argv, log: 0)
    (tmp_path / 'result.json').write_text(json.dumps({'params_sha256': 'b'}))
    ground = trial.Ground(tmp_path / 'kills', 0)
    with pytest.raises(DidNotHoldError, match='other bits'):
        runs._check_finished(ground, Reference, tmp_path, tmp_path / 'log')


@pytest.mark.parametrize(
    ('code', 'text', 'holds'),
    [
        (2, 'error: the disk is full.', True),
        (75, 'stopped by SIGTERM', True),
        (1, 'error: x', False),
        (-11, '', False),
        (2, 'usage', False),
        (2, 'Traceback (most recent call last):\nerror: x', False),
    ],
)
def test_a_command_that_fails_owes_a_sentence(tmp_path, code, text, holds):
    (tmp_path / 'log').write_text(text)
    if holds:
        trial.check_sentence(code, tmp_path / 'log')
    else:
        with pytest.raises(DidNotHoldError):
            trial.check_sentence(code, tmp_path / 'log')


@pytest.mark.full
def test_five_minutes_of_everything(tmp_path):
    assert call(tmp_path / 'drill', '--minutes=5') == 0
