"""The journal of a sweep after full disks, kills and power cuts: the sweep goes on as before."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import command
import sweep
from configs import base
from configs.search import Categorical, Float, Objective, Sweep
from errors import UserError
from sweeps import child, room, study
from tests.support import SPACE, files_of_at_most, slow, trials_of, write_config

SWEEP = Sweep(
    {
        'optimizer.learning_rate': Float(1e-4, 1e-1, log=True, points=3),
        'model.activation': Categorical(('relu', 'tanh')),
    },
    Objective('validation/loss', 'minimize'),
    seed=3,
)
TRIALS = 5


def opened(folder: Path, sampler: str, said: list[str] | None = None) -> study.Study:
    about = study.describe(SWEEP, base.get_config(), sampler, None)
    say = ([] if said is None else said).append
    storage = study.storage_of(folder, None, True, 'minimize', say)
    return study.Study(SWEEP, folder, TRIALS, sampler, 'none', storage, about, True)


def run(trials: study.Study) -> list[tuple]:
    """Runs all trials, the second of which fails; returns what they are."""
    while (trial := trials.ask()) is not None:
        if trial.number == 1:
            trial.fail('it cannot be')
            continue
        for step in (1, 2):
            trial.report(trial.parameters['optimizer.learning_rate'] / step, step)
        trial.complete()
    return [(t.number, t.params, t.state.name, t.value) for t in trials.optuna.get_trials()]


@pytest.fixture(scope='module', params=['random', slow('grid')])
def undisturbed(request, tmp_path_factory) -> tuple[str, bytes, list[tuple]]:
    folder = tmp_path_factory.mktemp('undisturbed')
    trials = run(opened(folder, request.param))
    assert len(trials) == TRIALS
    return request.param, (folder / 'study.journal').read_bytes(), trials


def damaged(content: bytes, kind: str, first: int, second: int) -> bytes:
    a, b = sorted((first % len(content), second % len(content)))
    return {
        'cut': content[:a],
        'cut and zeros': content[:a] + bytes(b - a),
        'hole of zeros': content[:a] + bytes(b - a) + content[b:],
        'zeros behind': content + bytes(a),
    }[kind]


KINDS = ('cut', 'cut and zeros', 'hole of zeros', 'zeros behind')


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**20), st.integers(0, 2**20))
def test_a_damaged_journal_is_mended_and_the_sweep_ends_as_without_damage(
    undisturbed, tmp_path_factory, kind, first, second
):
    sampler, content, trials = undisturbed
    folder = tmp_path_factory.mktemp('damaged')
    file = folder / 'study.journal'
    file.write_bytes(torn := damaged(content, kind, first, second))
    said = []
    assert run(opened(folder, sampler, said)) == trials
    copies = list(folder.glob('study.journal.damaged.*'))
    assert [copy.read_bytes() for copy in copies] == [torn] * len(said)
    for sentence, copy in zip(said, copies, strict=True):
        assert sentence.startswith(f'{file} was damaged in ')
        assert sentence.endswith(f'kept as {copy.name}.')
    # It is sound now.
    assert run(opened(folder, sampler, said)) == trials
    assert len(said) == len(copies)


def test_the_line_that_began_a_trial_is_lost(undisturbed, tmp_path):
    """A point of a grid then waits again, with the evaluations that it reported."""
    sampler, content, trials = undisturbed
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines):
        record = json.loads(line)
        if record['op_code'] != 6 or record['state'] != 0:  # SET_STATE to RUNNING
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        torn = [*lines[:number], bytes(len(line) - 1) + b'\n', *lines[number + 1 :]]
        (folder / 'study.journal').write_bytes(b''.join(torn))
        assert run(opened(folder, sampler, said := [])) == trials
        assert len(said) == 1


def test_half_a_line_and_a_whole_one_behind_it(undisturbed, tmp_path):
    """As a sweep left it that was resumed once more, before journals were mended."""
    sampler, content, trials = undisturbed
    lines = content.splitlines(keepends=True)
    torn = b''.join([*lines[:9], lines[9][:30], *lines[9:]])
    (tmp_path / 'study.journal').write_bytes(torn)
    said = []
    assert run(opened(tmp_path, sampler, said)) == trials
    assert len(said) == 1


def test_a_sound_journal_is_left_alone(undisturbed, tmp_path):
    sampler, content, trials = undisturbed
    (tmp_path / 'study.journal').write_bytes(content)
    said = []
    assert run(opened(tmp_path, sampler, said)) == trials
    assert said == []
    assert (tmp_path / 'study.journal').read_bytes().startswith(content)


def fill(trials: study.Study) -> None:
    while True:
        trials.optuna.set_user_attr('long', 'x' * 100)


def test_what_a_full_disk_cuts_is_taken_back(tmp_path):
    trials = opened(tmp_path, 'random')
    file = tmp_path / 'study.journal'
    for more in range(1, 400, 37):
        before = file.read_bytes()
        with files_of_at_most(len(before) + more), pytest.raises(room.NoRoomError) as caught:
            fill(trials)
        after = file.read_bytes()
        assert after.startswith(before)
        assert after.endswith(b'\n')
        assert all(json.loads(line) for line in after.splitlines())
        assert f'{file} could not be written: File too large' in str(caught.value)
    assert len(run(trials)) == TRIALS


def test_half_a_line_of_a_process_that_was_killed_spoils_no_other_line(tmp_path):
    alive = opened(tmp_path, 'random')
    with (tmp_path / 'study.journal').open('ab') as file:
        file.write(b'{"op_code":4,"worker_id":"of another')
    assert len(run(alive)) == TRIALS


def test_an_operation_that_optuna_does_not_understand_is_left_out(undisturbed, tmp_path):
    sampler, content, trials = undisturbed
    lines = content.splitlines(keepends=True)
    odd = {'op_code': 0, 'worker_id': 'x', 'study_name': 'another', 'directions': ['up']}
    lines.insert(5, json.dumps(odd).encode() + b'\n')
    (tmp_path / 'study.journal').write_bytes(b''.join(lines))
    said = []
    assert run(opened(tmp_path, sampler, said)) == trials
    assert len(said) == 1


def test_a_folder_that_is_removed_is_named(tmp_path):
    folder = tmp_path / 'sweep'
    folder.mkdir()
    trials = opened(folder, 'random')
    trial = trials.ask()
    shutil.rmtree(folder)
    for say in (trials.ask, lambda: trial.report(0.5, 1), trial.complete):
        removed = f'^{folder} was removed while the sweep was running'
        with pytest.raises(UserError, match=removed), room.explaining(folder):
            say()


@pytest.fixture
def options(tmp_path) -> list[str]:
    (tmp_path / 'space.py').write_text(SPACE % '')
    fields = {'model__name': 'fcn', 'model__units': 8, 'batch_size': 64, 'steps': 4}
    config = write_config(tmp_path, **fields, optimizer__name='adam')
    files = [f'--config={config}', f'--sweep={tmp_path / "space.py"}']
    return [*files, f'--workdir={tmp_path / "sweep"}', '--pruner=none', '--trials=2']


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:Error writing persistent compilation cache')
def test_a_sweep_without_room_stops_and_goes_on_when_there_is_room(options, tmp_path, capsys):
    with files_of_at_most(5000):
        assert command.call(sweep.main, options) == 2
    error = capsys.readouterr().err
    assert 'study.journal could not be written: File too large. The sweep has stopped and ' in error
    assert 'make room, and the same command resumes it' in error
    assert 'Traceback' not in error
    assert sweep.main(options) == 0
    assert [row['state'] for row in trials_of(tmp_path / 'sweep')] == ['complete'] * 2


# A training that finds no room the first time.
TRAINING = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[2].partition('=')[2])
if not (folder.parent / 'room').exists():
    sys.exit(%r)
(folder / 'metrics.jsonl').write_text(json.dumps({'step': 4, 'validation/accuracy': 0.5}))
"""


@pytest.mark.parametrize('says', ['error: Cannot write x: No space left on device.', slow('')])
def test_lack_of_room_is_not_the_fault_of_a_trial(says, options, tmp_path, monkeypatch, capsys):
    """Not even where its process finds no room to say so: then the disk has none for others."""
    (tmp_path / 'train.py').write_text(TRAINING % (says or 1))
    monkeypatch.setattr(child, 'ROOT', tmp_path)
    options = [*options, '--engine=local']
    with contextlib.nullcontext() if says else files_of_at_most(room.LEAST - 1):
        assert command.call(sweep.main, options) == 2
    assert 'make room, and the same command resumes it' in capsys.readouterr().err
    (tmp_path / 'sweep' / 'trials' / 'room').touch()
    assert sweep.main(options) == 0
    assert [row['state'] for row in trials_of(tmp_path / 'sweep')] == ['complete'] * 2
