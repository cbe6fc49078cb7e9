"""What preflight says before a run beside what the run then takes."""

import dataclasses

import pytest

import command as train_command
from benchmarks import growth
from configs import reading
from tests.conftest import SMALL
from tools import preflight
from tools.preflight import texts
from tools.preflight.footprint import Footprint
from training import checkpoints

# Large enough for its state to count beside Python and the libraries.
WIDE = ['model.name=fcn', 'model.units=1500', 'model.depth=2']
WIDE_PARAMETERS = 784 * 1500 + 1500 + 1500 * 1500 + 1500 + 1500 * 10 + 10


@pytest.fixture(scope='module')
def small_report(small, tmp_path_factory) -> dict:
    """What preflight says of the run of the other tests, as JSON."""
    folder = tmp_path_factory.mktemp('preflight')
    run = folder / 'runs' / 'run'
    given = [f'--config={small}', f'--workdir={run}']
    found = growth.estimate(given)
    assert not run.parent.exists()
    return found


def test_the_numbers_are_those_of_the_network(small_report):
    units = SMALL['model__units']
    parameters = 784 * units + units + units * 10 + 10
    assert small_report['parameters'] == parameters
    # Adam's two moments, and the counters of the state and of Adam.
    assert 0 <= small_report['state_bytes'] - 3 * 4 * parameters <= 16
    assert small_report['model_flops'] == 6 * (784 * units + units * 10) * SMALL['batch_size']
    assert small_report['compiled_flops'] == pytest.approx(small_report['model_flops'], rel=0.5)
    assert small_report['steps'] == SMALL['steps']
    assert small_report['no_go'] == []


@pytest.mark.slow
def test_memory_and_disk_are_about_those_of_a_run(tmp_path):
    given = growth.short('configs/digits_lenet.py', *WIDE)
    said, taken = growth.estimate(given), growth.peak(given, tmp_path, 'run')
    assert said['host_peak'] == pytest.approx(taken, rel=0.3)
    assert said['parameters'] == WIDE_PARAMETERS
    # Beside Python there is the state, and its copies: that is no small part here.
    assert taken - said['host']['Python and libraries'] > 2 * said['state_bytes']

    folder = tmp_path / 'run' / checkpoints.FOLDER
    steps = checkpoints.steps_in(folder)
    assert 1 <= len(steps) <= said['checkpoints']
    for step in steps:
        files = [path for path in (folder / str(step)).rglob('*') if path.is_file()]
        on_disk = sum(path.stat().st_size for path in files)
        assert 0.75 * said['checkpoint_bytes'] < on_disk < said['checkpoint_bytes']


FOOTPRINT = Footprint(
    examples=1,
    steps=1,
    devices='2 cards',
    device_count=2,
    parameters=1,
    state_bytes=1,
    model_flops=1,
    compiled_flops=None,
    host={'one': 2 * 10**6, 'other': 10**6},
    compiling=0,
    device={'one': 2 * 10**6, 'other': 10**6},
    device_limit=4 * 10**6,
    checkpoint_bytes=10**6,
    checkpoints=4,
)


@pytest.mark.parametrize(
    ('changed', 'memory', 'disk', 'sentence'),
    [
        ({}, 2_900_000, 10**9, 'about 3.0 MB of memory and 2.9 MB are free: lower'),
        ({'compiling': 5 * 10**6}, 4 * 10**6, 10**9, 'about 5.0 MB of memory and 4.0 MB are free'),
        ({}, 10**9, 3_900_000, 'up to 4.0 MB and 3.9 MB of the disk are free: make room'),
        ({'device_limit': 2_900_000}, 10**9, 10**9, 'about 3.0 MB of each device, which has 2.9'),
        ({'device_limit': None}, 10**9, 10**9, None),
        ({}, 3_000_000, 4_000_000, None),
    ],
)
def test_what_is_short_is_said(changed, memory, disk, sentence):
    found = dataclasses.replace(FOOTPRINT, **changed)
    problems = texts.memory_problems(found, memory) + texts.disk_problems(found, disk)
    assert len(problems) == (sentence is not None)
    assert sentence is None or sentence in problems[0]


def test_no_go_is_two_and_a_sentence(small, tmp_path, capsys):
    for argument, sentence in (
        ('--config.data.name=mnist', 'is not prepared'),
        ('--config.batch_size=0', 'config.batch_size'),
        ('--config.optimizer.trust_coefficient=1', 'means nothing to adam'),
    ):
        argv = [f'--config={small}', f'--config.data.dir={tmp_path}', argument]
        assert train_command.call(preflight.main, argv) == 2
        assert sentence in capsys.readouterr().err


def test_text_names_what_the_memory_is_for(small):
    config = reading.from_arguments(str(small), [])
    text = texts.as_text(FOOTPRINT, config, 5 * 10**9, 10**12)
    for line in (
        'fcn on digits, 2 device(s) of 2 cards',
        'memory           3.0 MB at most; 5.0 GB are free',
        '     2.0 MB  one',
        'disk             1.0 MB a checkpoint, 4.0 MB for 4; 1000.0 GB are free',
        'on each device   3.0 MB at most, of 4.0 MB',
    ):
        assert line in text.splitlines()
