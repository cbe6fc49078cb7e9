"""sweep.py as its users call it: what it leaves behind, and that a kill loses nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import command
import sweep
import train
from sweeps import child, owner
from tests.conftest import ROOT
from tests.support import LONG, SPACE, Child, trials_of, write_config

FIELDS = {
    'model__name': 'fcn',  # lanes of convolutions take XLA many times as long
    'model__units': 16,
    'batch_size': 64,
    'steps': 12,
    'eval_every': 0.2,
    'optimizer__name': 'adam',
}


@pytest.fixture
def arguments(tmp_path: Path):
    """Makes sweep.py's arguments; `more` are other dimensions of the space."""

    def make(*options: str, more: str = '', workdir: str = 'sweep', **fields) -> list[str]:
        file = tmp_path / 'space.py'
        file.write_text(SPACE % more)
        config = write_config(tmp_path, **{**FIELDS, **fields})
        return [
            f'--config={config}',
            f'--sweep={file}',
            f'--workdir={tmp_path / workdir}',
            *options,
        ]

    return make


def test_a_sweep_leaves_its_trials_and_the_best_configuration(arguments, tmp_path, capsys):
    assert sweep.main(arguments('--pruner=none')) == 0
    folder = tmp_path / 'sweep'
    rows = trials_of(folder)
    assert [row['trial'] for row in rows] == [str(n) for n in range(6)]
    assert {row['state'] for row in rows} == {'complete'}
    assert {row['steps'] for row in rows} == {'12'}
    best = max(rows, key=lambda row: float(row['validation/accuracy']))
    config = json.loads((folder / 'best_config.json').read_text())
    assert config['optimizer']['learning_rate'] == float(best['optimizer.learning_rate'])
    assert config['seed'] == int(best['seed'])
    for name in ('history', 'learning_curves', 'slices'):
        assert (folder / 'pictures' / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    assert not (folder / 'pictures' / 'importances.png').exists()
    assert list((folder / 'tensorboard').rglob('events.*'))
    output = capsys.readouterr().out
    assert 'The best of 6 completed trials' in output
    assert '6 trials: 6 complete' in output
    assert '6 running; trial' in output

    # The best trial again, alone, by the command that the sweep names.
    workdir = tmp_path / 'best'
    again = [f'--config={folder / "best_config.json"}', f'--workdir={workdir}']
    assert train.main(again) == 0
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    found = max(r['validation/accuracy'] for r in lines if 'validation/accuracy' in r)
    assert found == pytest.approx(float(best['validation/accuracy']), abs=0.02)

    # A finished sweep has nothing left to do, and may get more trials.
    before = (folder / 'trials.csv').read_bytes()
    assert sweep.main(arguments('--pruner=none')) == 0
    assert (folder / 'trials.csv').read_bytes() == before
    assert sweep.main(arguments('--pruner=none', '--trials=8')) == 0
    assert trials_of(folder)[:6] == rows
    assert len(trials_of(folder)) == 8


def test_the_test_split_is_not_read(arguments, monkeypatch):
    import input_pipeline

    opened, open_split = [], input_pipeline.open_split
    monkeypatch.setattr(
        input_pipeline,
        'open_split',
        lambda config, split: opened.append(split) or open_split(config, split),
    )
    assert sweep.main(arguments('--trials=2')) == 0
    assert set(opened) == {'train', 'validation'}


@pytest.mark.slow
def test_choices_that_compile_to_other_programs_make_several_populations(
    arguments, tmp_path, capsys
):
    more = ", 'model.activation': Categorical(('relu', 'tanh'))"
    assert sweep.main(arguments('--sampler=random', '--pruner=none', more=more)) == 0
    rows = trials_of(tmp_path / 'sweep')
    assert len(rows) == 6
    assert {row['model.activation'] for row in rows} == {'relu', 'tanh'}
    assert {row['state'] for row in rows} == {'complete'}
    assert capsys.readouterr().out.count('lanes of fcn') == 2


def test_asha_stops_trials_and_their_lanes_take_others(arguments, tmp_path, capsys):
    assert sweep.main(arguments('--trials=12', '--lanes=4', '--sampler=random')) == 0
    rows = trials_of(tmp_path / 'sweep')
    assert len(rows) == 12
    stopped = [row for row in rows if row['state'] == 'pruned']
    assert stopped
    assert all(int(row['steps']) < 12 for row in stopped)
    assert capsys.readouterr().out.count('4 lanes of fcn') == 1
    assert any(row['state'] == 'complete' for row in rows)


def test_a_trial_that_diverges_is_recorded_as_failed(arguments, tmp_path):
    options = arguments('--sampler=random', '--pruner=none')
    rates = SPACE.replace('Float(1e-4, 1e-1, log=True)', 'Categorical((1e-3, 1e30))')
    (tmp_path / 'space.py').write_text(rates % '')
    assert sweep.main(options) == 0
    rows = trials_of(tmp_path / 'sweep')
    wild = [row for row in rows if row['optimizer.learning_rate'] == '1e+30']
    assert wild
    assert {row['state'] for row in wild} == {'failed'}
    assert all('not finite by step' in row['why'] for row in wild)
    assert {row['state'] for row in rows if row not in wild} == {'complete'}


@pytest.mark.slow
def test_options_of_other_optimizers_are_left_out_of_a_trial(arguments, tmp_path, capsys):
    more = ", 'optimizer.beta1': Categorical((None, 0.5))"
    more += ", 'optimizer.name': Categorical(('adam', 'sgd'))"
    more += ", 'optimizer.momentum': Float(0.5, 0.95)"
    options = arguments('--sampler=random', '--trials=6', '--pruner=none', more=more)
    assert sweep.main([*options, '--config.optimizer.nesterov=False']) == 0
    rows = trials_of(tmp_path / 'sweep')
    assert {row['state'] for row in rows} == {'complete'}
    assert {row['optimizer.name'] for row in rows} == {'adam', 'sgd'}
    for row in rows:
        assert (row['optimizer.momentum'] != '') == (row['optimizer.name'] == 'sgd')
    output = capsys.readouterr().out
    said = 'optimizer.momentum is left out of trials with optimizer.name=adam: it means nothing'
    assert output.count(said) == 1


def test_a_length_that_cannot_be_fails_its_trial_alone(arguments, tmp_path):
    more = ", 'schedule.warmup': Categorical((0.0, 100.0))"
    assert sweep.main(arguments('--sampler=random', '--pruner=none', more=more)) == 0
    rows = trials_of(tmp_path / 'sweep')
    assert {row['state'] for row in rows if row['schedule.warmup'] == '0.0'} == {'complete'}
    failed = [row for row in rows if row['schedule.warmup'] == '100.0']
    assert failed
    assert all('lies beyond the end of the run' in row['why'] for row in failed)


def test_a_grid_has_all_its_points_once(arguments, tmp_path):
    file = tmp_path / 'space.py'
    options = arguments('--sampler=grid', '--pruner=none', '--trials=100')
    file.write_text(
        SPACE.replace('1e-1, log=True', '1e-1, log=True, points=3').replace(
            'Int(0, 9)', 'Int(0, 1)'
        )
        % ''
    )
    assert sweep.main(options) == 0
    rows = trials_of(tmp_path / 'sweep')
    points = {(row['optimizer.learning_rate'], row['seed']) for row in rows}
    assert len(rows) == len(points) == 6


def test_the_local_engine_runs_train_py(arguments, tmp_path):
    cache = Path(os.environ['XDG_CACHE_HOME']) / 'functional-cnn' / 'xla'
    options = arguments('--engine=local', '--jobs=2', '--trials=3', '--pruner=none',
                        f'--config.compilation_cache={cache}')  # fmt: skip
    assert sweep.main(options) == 0
    folder = tmp_path / 'sweep'
    rows = trials_of(folder)
    assert {row['state'] for row in rows} == {'complete'}
    for row in rows:
        lines = (folder / 'trials' / f'{int(row["trial"]):04d}' / 'metrics.jsonl').read_text()
        values = [r['validation/accuracy'] for r in map(json.loads, lines.splitlines())
                  if 'validation/accuracy' in r]  # fmt: skip
        assert float(row['validation/accuracy']) == max(values)
    # The folder of compiled programs, which no file may choose, was chosen by the command line.
    assert 'compilation_cache' not in (folder / 'trials' / '0000.log').read_text()


@pytest.mark.parametrize(('name', 'package'), [('slurm', 'submitit'), ('ray', 'ray')])
def test_an_engine_says_what_has_to_be_installed(name, package, arguments, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert command.call(sweep.main, arguments(f'--engine={name}')) == 2
    sentence = f'--engine={name} needs {package}: pip install -r requirements-{name}.txt'
    assert sentence in capsys.readouterr().err
    assert (ROOT / f'requirements-{name}.txt').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--config.data.placement=host'], 'does not support config.data.placement=host'),
        (['--storage=nosuch://x'], '--storage=nosuch://x cannot be opened'),
        (['--config.model.name=lenett'], 'Did you mean "lenet"'),
        (
            ['--jobs=2'],
            '--jobs means nothing to --engine=vmap: leave it out, or choose '
            '--engine=local or --engine=slurm or --engine=ray',
        ),
        (['--engine=local', '--lanes=2'], '--lanes means nothing to --engine=local'),
        (['--engine=local', '--cpus=2'], '--cpus means nothing to --engine=local'),
        (['--engine=ray', '--slurm=partition=gpu'], '--slurm means nothing to --engine=ray'),
        (['--ray_address=auto'], '--ray_address means nothing to --engine=vmap'),
        (['--engine=slurm', '--gpus=1', '--lanes=1'], '--lanes means nothing to --engine=slurm'),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence_exit_code_2_and_no_folder(
    arguments, options, message, tmp_path, capsys
):
    assert command.call(sweep.main, arguments(*options)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
    assert not (tmp_path / 'sweep').exists()


def test_another_sweep_in_the_same_folder_is_refused(arguments, capsys):
    assert sweep.main(arguments('--trials=1')) == 0
    assert command.call(sweep.main, arguments('--trials=1', batch_size=32)) == 2
    assert 'differs in config.batch_size (64, now 32)' in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_that_is_killed_loses_and_doubles_nothing(arguments, tmp_path):
    """By SIGKILL behind a drawn number of lines of its journal; what it had finished stays.

    The journal decides when, not a clock: a quick machine would be done before it is killed.
    """
    options = arguments('--pruner=none', '--lanes=2', '--trials=14', '--sampler=random')
    journal = tmp_path / 'sweep' / 'study.journal'
    draw, seen, kills, lines = random.Random(0), {}, 0, 0
    while kills < 8:
        process = start(options, tmp_path)
        wait_for_lines(process, journal, lines + draw.randint(1, 20))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
        lines = lines_of(journal)
        seen = check_kept(tmp_path / 'sweep', seen)
    assert kills, 'it was too fast to be killed'
    process = start(options, tmp_path)
    assert process.wait(LONG) == 0, (tmp_path / 'log').read_text()
    rows = trials_of(tmp_path / 'sweep')
    assert [int(row['trial']) for row in rows] == list(range(14))
    assert {row['state'] for row in rows} == {'complete'}
    check_kept(tmp_path / 'sweep', seen)
    # Random draws are a function of the trial's number: as if nothing had happened.
    assert sweep.main(arguments('--pruner=none', '--lanes=2', '--trials=14', '--sampler=random',
                                workdir='undisturbed')) == 0  # fmt: skip
    keys = ('trial', 'state', 'optimizer.learning_rate', 'seed', 'steps')
    undisturbed = trials_of(tmp_path / 'undisturbed')
    assert [[row[k] for k in keys] for row in rows] == [
        [row[k] for k in keys] for row in undisturbed
    ]


@pytest.mark.slow
def test_a_polite_stop_saves_and_the_same_command_goes_on(arguments, tmp_path):
    options = arguments('--pruner=none', '--lanes=2', '--trials=6', steps=80)
    process = start(options, tmp_path)
    wait_for_first_word(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 75, (tmp_path / 'log').read_text()
    assert 'the same command resumes the sweep' in (tmp_path / 'log').read_text()
    rows = trials_of(tmp_path / 'sweep')
    assert any(row['state'] == 'running' for row in rows)
    assert start(options, tmp_path).wait(LONG) == 0, (tmp_path / 'log').read_text()
    again = trials_of(tmp_path / 'sweep')
    assert len(again) == 6
    assert {row['state'] for row in again} == {'complete'}
    values = [row['optimizer.learning_rate'] for row in again]
    assert values[: len(rows)] == [row['optimizer.learning_rate'] for row in rows]


@pytest.mark.slow
def test_a_local_sweep_that_is_killed_goes_on_with_its_trials(arguments, tmp_path):
    """The trainings outlive it: the next sweep waits for them, and takes what they found."""
    options = arguments('--engine=local', '--jobs=2', '--pruner=none', '--trials=3', steps=60)
    options[2] = '--workdir=' + str((tmp_path / 'sweep').relative_to(tmp_path))
    process = start(options, tmp_path, cwd=tmp_path)
    end = time.monotonic() + LONG
    while not list((tmp_path / 'sweep' / 'trials').glob('*/metrics.jsonl')):
        assert time.monotonic() < end
        assert process.poll() is None, (tmp_path / 'log').read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(options, tmp_path, cwd=tmp_path).wait(LONG) == 0, (tmp_path / 'log').read_text()
    rows = trials_of(tmp_path / 'sweep')
    assert [row['state'] for row in rows] == ['complete'] * 3


# A training that gets to its lock only when it is told to, or gives up beside another one.
TRAINING = """
import fcntl, json, pathlib, sys, time
folder = pathlib.Path(sys.argv[2].partition('=')[2])
with (folder / 'starts').open('a') as starts:
    print('started', file=starts)
while not (folder.parent / 'go').exists():
    if len((folder / 'starts').read_text().splitlines()) > 1:
        sys.exit('Another run is using this folder.')
    time.sleep(0.02)
lock = (folder / '.lock').open('a')
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
(folder / 'metrics.jsonl').write_text(json.dumps({'step': 12, 'validation/accuracy': 0.5}))
"""


@pytest.mark.slow
def test_a_training_that_has_not_locked_its_folder_yet_is_waited_for(
    arguments, tmp_path, monkeypatch
):
    """It needs seconds from its start to its lock, and a sweep may be restarted meanwhile."""
    (tmp_path / 'train.py').write_text(TRAINING)
    options = arguments('--engine=local', '--trials=1', '--pruner=none')
    script = f"""
import pathlib, sys, sweep
from sweeps import child
child.ROOT = pathlib.Path({str(tmp_path)!r})
sys.exit(sweep.main(sys.argv[1:]))
"""
    trials = tmp_path / 'sweep' / 'trials'
    with Child(options, tmp_path / 'log', script) as first:
        assert first.wait_until((trials / '0000' / 'starts').exists), first.output
        first.kill()
    said = []

    def say(text: str) -> None:
        said.append(text)
        if 'waiting for the process that is still training there' in text:
            (trials / 'go').touch()

    monkeypatch.setattr(child, 'ROOT', tmp_path)
    monkeypatch.setattr(sweep, '_say', say)
    assert sweep.main(options) == 0, said
    assert [row['state'] for row in trials_of(tmp_path / 'sweep')] == ['complete']
    assert any('waiting for the process' in text for text in said)


def test_two_sweeps_do_not_share_a_data_base(arguments, tmp_path, capsys):
    url = f'--storage=sqlite:///{tmp_path / "trials.db"}'
    assert sweep.main(arguments(url, '--trials=2', '--pruner=median')) == 0
    assert len(trials_of(tmp_path / 'sweep')) == 2
    other = arguments(url, '--trials=2', batch_size=32, workdir='other')
    assert command.call(sweep.main, other) == 2
    assert 'holds the trials of another sweep' in capsys.readouterr().err


def test_a_population_leaves_a_trial_that_another_process_has_taken(
    arguments, tmp_path, monkeypatch, capsys
):
    check = owner.Owner.check

    def taken(self, study, number):
        if number == 1:
            raise owner.TakenOverError('trial 1 is left to another')
        check(self, study, number)

    monkeypatch.setattr(owner.Owner, 'check', taken)
    url = f'--storage=sqlite:///{tmp_path / "trials.db"}'
    assert sweep.main(arguments(url, '--trials=3', '--pruner=none')) == 75
    states = [row['state'] for row in trials_of(tmp_path / 'sweep')]
    assert states == ['complete', 'running', 'complete']
    assert 'trial 1 is left to another' in capsys.readouterr().out


def test_a_training_run_is_not_taken_for_a_sweep(arguments, tmp_path, capsys):
    (tmp_path / 'sweep').mkdir()
    (tmp_path / 'sweep' / 'config.json').write_text('{}')
    assert command.call(sweep.main, arguments()) == 2
    assert 'holds a run of train.py' in capsys.readouterr().err
    assert (tmp_path / 'sweep' / 'config.json').read_text() == '{}'


def start(options: list[str], folder: Path, cwd: Path = ROOT) -> subprocess.Popen:
    with (folder / 'log').open('wb') as log:
        return subprocess.Popen(
            [sys.executable, ROOT / 'sweep.py', *options], cwd=cwd, stdout=log, stderr=log
        )


def wait_for_first_word(process: subprocess.Popen, folder: Path) -> None:
    """Until a population is under way, or all is over."""
    end = time.monotonic() + LONG
    while 'lanes of' not in (folder / 'log').read_text() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b'\n') if journal.exists() else 0


def wait_for_lines(process: subprocess.Popen, journal: Path, lines: int) -> None:
    """Until the journal has so many lines, or all is over."""
    end = time.monotonic() + LONG
    while lines_of(journal) < lines and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)


def check_kept(folder: Path, seen: dict) -> dict:
    """Finished trials, which have to contain those seen before, unchanged."""
    import optuna
    from optuna.trial import TrialState

    from sweeps import study

    found = optuna.load_study(study_name=study.NAME, storage=study.storage_of(folder, None))
    done = {t.number: (t.params, t.value) for t in found.trials if t.state == TrialState.COMPLETE}
    assert all(done[number] == kept for number, kept in seen.items())
    return done
