"""Preflight: each check finds what it is for, and the others are made all the same.

How fast anything is decides nothing here.
"""

import json
from contextlib import ExitStack
from pathlib import Path

import jax
import pytest

import command
from tests.support import Child, free_port, saved_steps, write_config
from tests.test_streams import spoil, spoil_split
from tools import preflight
from tools.preflight import speed, texts
from training.records import read_metrics

CHECKS = ['config', 'devices', 'collective', 'batch', 'data', 'model', 'compile', 'memory', 'disk',
          'records', 'overfit', 'speed', 'time']  # fmt: skip
SHORT = 0.1  # seconds of each measurement


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Short measurements, on this process's one device: JAX has started, and takes no others."""
    jax.devices()
    monkeypatch.setattr(speed, 'SECONDS', SHORT)


class Said:
    """What the command said, as JSON."""

    def __init__(self, capsys, config: Path, *more: str, **fields):
        given = [f'--config.{name.replace("__", ".")}={value}' for name, value in fields.items()]
        self.code = command.call(preflight.main, [f'--config={config}', '--json', *more, *given])
        out, self.error = capsys.readouterr()
        self.all = json.loads(out)
        self.checks = {check['name']: check for check in self.all['checks']}

    def verdicts(self, verdict: str) -> list[str]:
        """The checks that have it."""
        return [name for name, check in self.checks.items() if check['verdict'] == verdict]


def test_a_sound_run_is_go_and_its_figures_are_the_runs(small, small_run, tmp_path, capsys):
    said = Said(capsys, small, f'--workdir={tmp_path}')
    assert (said.code, said.error, said.all['no_go']) == (0, '', [])
    assert said.verdicts('ok') == CHECKS
    assert all(check['ok'] is True for check in said.checks.values())
    figures = {name: check['figures'] for name, check in said.checks.items()}
    assert (figures['data']['train'], figures['data']['classes']) == (1295, 10)
    fit = figures['overfit']
    assert fit['last_loss'] < 0.5 * fit['first_loss']
    assert fit['last_accuracy'] > fit['first_accuracy']
    assert fit['learns_at'] == 0.02
    first = next(record for record in read_metrics(small_run) if 'train/loss' in record)
    assert fit['first_loss'] == pytest.approx(first['train/loss'], rel=0.5)
    rates = figures['speed']
    assert rates['bound'] == min(('pipeline', 'step'), key=rates.get)
    assert 0 < rates['together'] <= 1.5 * rates[rates['bound']]
    # The estimate counts what the run has done.
    parts = figures['time']['parts']
    validations = [record for record in read_metrics(small_run) if 'validation/loss' in record]
    saves = saved_steps(small_run)
    assert {'12 steps', f'{len(validations)} validations', f'{len(saves)} saves'} < set(parts)
    assert figures['time']['seconds'] == pytest.approx(sum(parts.values()))
    assert parts['12 steps'] == pytest.approx(12 * 64 / rates['together'])
    assert list(tmp_path.iterdir()) == []


def test_each_check_has_a_line_and_the_last_is_the_verdict(small, capsys):
    assert preflight.main([f'--config={small}']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[: len(CHECKS)]] == [['ok', n] for n in CHECKS]
    assert 'fcn on digits, 1 device(s)' in '\n'.join(lines)
    assert lines[-1] == 'go'


def test_a_no_go_does_not_keep_others_from_being_found(small, tmp_path, capsys):
    argv = [f'--config={small}', '--config.batch_size=63', '--config.data.name=mnist']
    argv += ['--devices=2', f'--config.data.dir={tmp_path}']
    assert command.call(preflight.main, argv) == 2
    out, error = capsys.readouterr()
    verdicts = dict(reversed(line.split()[:2]) for line in out.splitlines()[: len(CHECKS)])
    assert list(verdicts) == CHECKS
    assert [name for name, verdict in verdicts.items() if verdict == 'NO-GO'] == ['batch', 'data']
    assert [name for name, verdict in verdicts.items() if verdict == 'ok'] == CHECKS[:3]
    assert out.splitlines()[-1] == 'no-go'
    assert error.startswith('error: no-go. config.batch_size=63 is not divisible by 2 devices')
    assert 'python -m tools.prepare_data mnist' in error
    assert len(error.splitlines()) == 1


def test_a_mistake_in_the_configuration_ends_it(small, capsys):
    said = Said(capsys, small, batch_size=0)
    assert (said.code, list(said.checks)) == (2, ['config'])
    assert 'config.batch_size must be at least 1' in said.checks['config']['text']
    assert said.all['no_go'][0] in said.error


def test_what_does_not_fit_is_not_run(small, monkeypatch, capsys):
    memory = texts.memory_problems
    monkeypatch.setattr(texts, 'memory_problems', lambda found, _: memory(found, 10**6))
    said = Said(capsys, small)
    assert said.code == 2
    assert 'of memory and 1.0 MB are free' in said.error
    assert said.verdicts('skipped') == ['overfit', 'speed', 'time']
    assert said.checks['speed']['ok'] is None
    assert said.checks['disk']['ok'] is True


# --- more devices than here ---------------------------------------------------------------------


def test_a_part_of_the_run_stands_for_devices_that_are_elsewhere(small, capsys):
    fields = {'epochs': 2.0, 'batch_size': 128, 'eval_every': 1.0, 'checkpoint__every': 1.0}
    fields |= {'steps': None, 'checkpoint__every_steps': None}
    there = Said(capsys, small, '--hosts=2', '--devices=4', **fields)
    assert there.code == 0
    assert there.verdicts('note') == ['batch']
    text = '128 = 2 hosts x 4 devices x 16; the rest checks a part of it, 16 images on 1 device'
    assert there.checks['batch']['text'] == text
    # The length of the whole run, and the work of a device in each of its steps.
    assert there.all['steps'] == round(2 * 1295 / 128)
    parts = there.checks['time']['figures']['parts']
    assert {'20 steps', '2 validations', '2 saves'} < set(parts)
    assert there.all['model_flops'] == 16 * 6 * (784 * 16 + 16 * 10)
    assert 'if nothing is lost between its devices' in there.checks['speed']['text']
    wrong = Said(capsys, small, '--hosts=3', '--devices=4', **fields)
    assert wrong.verdicts('NO-GO') == ['batch']
    assert 'is not divisible by 12 devices: choose 120 or 132' in wrong.error


# --- data ---------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def streamed(digit_set, tmp_path_factory) -> Path:
    return write_config(
        tmp_path_factory.mktemp('streamed'),
        data__name='pictures',
        data__dir=str(digit_set),
        data__image_size=28,
        data__mean=[0.13],
        data__std=[0.31],
        model__name='fcn',
        model__units=16,
        model__depth=1,
        optimizer__name='adam',
        optimizer__learning_rate=0.01,
        batch_size=32,
        steps=6,
    )


def test_records_of_every_split_are_read(streamed, capsys):
    said = Said(capsys, streamed)
    assert (said.code, said.verdicts('ok')) == (0, CHECKS)
    records, sizes = said.checks['records'], said.checks['data']['figures']
    assert records['figures']['sampled'] == {
        name: min(sizes[name], 100) for name in ('train', 'validation', 'test')
    }
    assert f'100 of {sizes["train"]} train' in records['text']
    assert '40 to 96 pixels a side' in records['text']


def test_a_record_that_does_not_decode_is_named(streamed, digit_set, tmp_path, capsys):
    folder = spoil(digit_set, tmp_path, 'train')
    spoil_split(folder, 'test')
    said = Said(capsys, streamed, data__dir=folder)
    assert said.code == 2
    assert 'records' in said.verdicts('NO-GO')
    for text in ('Record 5 of split "train" in', 'Record 4 of split "test" in', 'on_bad_record='):
        assert text in said.checks['records']['text']

    said = Said(capsys, streamed, data__dir=folder, data__on_bad_record='skip')
    assert (said.code, said.verdicts('note')) == (0, ['records'])
    assert said.checks['records']['figures']['bad'] == {'train': 1, 'validation': 0, 'test': 3}
    assert 'will be skipped, the first train record 5' in said.checks['records']['text']


def test_a_set_of_which_nothing_decodes_is_refused(streamed, digit_set, tmp_path, capsys):
    folder = spoil(digit_set, tmp_path, 'test')
    spoil_split(folder, 'test', 1000, first=0)
    said = Said(capsys, streamed, data__dir=folder, data__on_bad_record='skip')
    assert said.code == 2
    assert 'Not one of' in said.checks['records']['text']


# --- one batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('rate', 'verdict', 'words'),
    [
        (2.0, 'note', '; it is learned at 0.02 and not at 2, the learning rate'),
        (1e-12, 'NO-GO', 'does not learn one batch: loss '),
        (1e30, 'NO-GO', 'is not finite at step'),
    ],
)
def test_a_batch_that_is_not_learned(small, capsys, rate, verdict, words):
    said = Said(capsys, small, optimizer__learning_rate=rate)
    assert said.checks['overfit']['verdict'] == verdict, said.checks['overfit']['text']
    assert words in said.checks['overfit']['text']
    assert said.code == (2 if verdict == 'NO-GO' else 0)


@pytest.mark.slow
def test_regularisation_and_warm_up_do_not_hide_that_a_batch_is_learned(small, capsys):
    fields = {
        'augment__mixup': 0.4,
        'label_smoothing': 0.3,
        'model__dropout_rate': 0.8,
        'optimizer__weight_decay': 10.0,
        'optimizer__name': 'adamw',
        'schedule__unit': 'steps',
        'schedule__warmup': 1000,
        'steps': 2000,
    }
    said = Said(capsys, small, **fields)
    figures = said.checks['overfit']['figures']
    assert said.checks['overfit']['verdict'] == 'ok'
    assert figures['last_loss'] < 0.4 * figures['first_loss']


# --- several processes --------------------------------------------------------------------------

QUICK = f"""
from tools import preflight
import command
from tools.preflight import speed

speed.SECONDS = {SHORT}
command.run(preflight.main)
"""
# A sum that leaves out what the other device has.
DEAF = f"""
import jax

jax.lax.psum = lambda x, axis: x
{QUICK}
"""
# One of them has too little memory for a step that both make.
FULL = f"""
import jax
from training import runner

original, calls = runner.Runner.fetch, []

def fetch(tree):
    calls.append(tree)
    if jax.process_index() == 1 and len(calls) == 3:
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
    return original(tree)

runner.Runner.fetch = staticmethod(fetch)
{QUICK}
"""


def pair(config, logs: Path, script: str, second: tuple[str, ...] = ()) -> list[Child]:
    """Runs preflight as two processes, one device each; `second` are arguments of rank 1 only."""
    address = f'127.0.0.1:{free_port()}'
    shared = [f'--config={config}', '--config.devices=1']
    with ExitStack() as stack:
        children = []
        for rank, more in enumerate(((), second)):
            argv = [*shared, f'--config.distributed={address},2,{rank}', *more]
            children.append(stack.enter_context(Child(argv, logs / f'log{rank}', script)))
        for child in children:
            child.wait()
    return children


def spoken(child: Child) -> list[str]:
    """The lines that are ours, not Gloo's."""
    return [line for line in child.output.splitlines() if not line.startswith('[Gloo]')]


@pytest.mark.slow
def test_two_processes_agree_and_the_first_speaks(small, tmp_path):
    first, second = pair(small, tmp_path, QUICK)
    assert first.process.returncode == second.process.returncode == 0, first.output + second.output
    lines = spoken(first)
    assert [line.split()[:2] for line in lines[: len(CHECKS)]] == [['ok', n] for n in CHECKS]
    assert '64 = 2 hosts x 1 device x 32' in first.output
    assert 'the sum over 2 devices is right' in first.output
    assert spoken(second) == []


@pytest.mark.slow
def test_what_is_wrong_on_one_process_is_named_and_ends_all(small, tmp_path):
    other = ('--config.data.dir=elsewhere', '--config.data.name=mnist')
    small = write_config(tmp_path, **json.loads(small.read_text()), data__name='mnist')
    first, second = pair(small, tmp_path, DEAF, other)
    assert first.process.returncode == second.process.returncode == 2, first.output + second.output
    error = first.output.splitlines()[-1]
    assert 'Process 0 of 2: Data set "mnist" is not prepared in data' in error
    assert 'Process 1 of 2: Data set "mnist" is not prepared in elsewhere' in error
    assert 'The sum of the numbers of 2 devices is' in error
    assert spoken(second) == []


@pytest.mark.slow
def test_too_little_memory_on_one_process_ends_all_and_is_said_by_all(small, tmp_path):
    children = pair(small, tmp_path, FULL)
    for child in children:
        assert child.process.returncode == 2, child.output
        assert 'error: Process 1: A device has too little memory to train: lower' in child.output
        assert 'Traceback' not in child.output


@pytest.mark.slow
def test_a_process_that_does_not_come_is_named(small, tmp_path):
    given = [f'--config={small}', '--config.devices=1', '--config.distributed_timeout=2']
    given.append(f'--config.distributed=127.0.0.1:{free_port()},3,0')
    with Child(given, tmp_path / 'log', QUICK) as child:
        assert child.wait() == 69
    assert 'NO-GO    devices    Processes 1, 2 of 3 did not start within 2 s' in child.output
    assert 'Traceback' not in child.output
