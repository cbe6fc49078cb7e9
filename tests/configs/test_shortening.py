"""A run that is shortened on the command line keeps the shape of its schedule, and says so."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import train
from configs import base, reading
from errors import UserError
from tests.conftest import ROOT
from tests.support import train_here, write_config
from training import experiment

FILES = [
    path for path in sorted((ROOT / 'configs').glob('*.py'))
    if path.stem not in train.NO_EXPERIMENT
]  # fmt: skip


def fitted(config, examples=50_000):
    return experiment.Experiment(config, (28, 28, 1), tuple('0123456789'), examples).fitted()


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize('length', ['epochs=1', 'epochs=0.1', 'steps=20', 'steps=1'])
def test_every_configuration_can_be_shortened(path, length):
    config = reading.from_arguments(str(path), [f'--config.{length}'])
    if config.batch_size > 1000:  # and an epoch that has some steps
        config.batch_size = 100
    found = fitted(config)
    found.check_lengths()


def test_epochs_scale_warm_up_and_milestones(capsys):
    config = reading.from_arguments('configs/imagenet_resnet50.py', ['--config.epochs=9'])
    assert config.schedule.warmup == pytest.approx(0.5)
    assert config.schedule.milestones == pytest.approx((3, 6, 8))
    assert capsys.readouterr().err == (
        'the run is shorter than its configuration says, so config.schedule.warmup is 0.5 epochs, '
        'not 5, and config.schedule.milestones is (3, 6, 8) epochs, not (30, 60, 80)\n'
    )


def test_what_fits_stays_and_what_was_given_stays(capsys):
    config = reading.from_arguments('configs/digits_lenet.py', ['--config.epochs=3'])
    assert config.schedule.warmup == 2
    options = ['--config.epochs=1', '--config.schedule.warmup=0.5']
    assert reading.from_arguments('configs/digits_lenet.py', options).schedule.warmup == 0.5
    options = ['--config.epochs=1', '--config.schedule.warmup=3']
    assert reading.from_arguments('configs/digits_lenet.py', options).schedule.warmup == 3
    assert capsys.readouterr().err == ''


def test_steps_scale_by_their_share_of_the_epochs():
    config = reading.from_arguments('configs/cifar10_resnet18.py', ['--config.steps=100'])
    found = fitted(config, 128 * 390)  # 200 epochs are 78,000 steps
    assert found.config.schedule.milestones == pytest.approx(
        [epochs * 100 / 78_000 for epochs in (60, 120, 160)]
    )
    assert 'config.schedule.milestones is (0.0769, 0.154, 0.205) epochs, not (60, 120' in found.note
    assert found.fitted() is found  # what is stored is not scaled again


@given(
    st.integers(1, 500), st.integers(1, 3000), st.floats(0.1, 50), st.floats(0, 1, width=32),
    st.lists(st.floats(1e-3, 0.999), max_size=3, unique=True),
)  # fmt: skip
def test_a_schedule_that_fits_its_epochs_fits_fewer_steps(
    steps, examples, epochs, warmup, milestones
):
    config = base.get_config()
    with config.ignore_type():
        config.steps, config.epochs, config.batch_size = steps, epochs, 7
    config.schedule.warmup = warmup * 0.9 * epochs
    config.schedule.milestones = tuple(sorted(milestone * epochs for milestone in milestones))
    found = fitted(config, examples)
    assert found.config.steps == steps
    if steps < epochs * examples / 7:
        found.check_lengths()


def test_a_shortened_run_is_stored_as_it_is_and_resumes(tmp_path, small, capsys):
    fields = json.loads(Path(small).read_text())
    config = write_config(tmp_path, **{name: v for name, v in fields.items() if name != 'steps'})
    values = {'epochs': 30, 'schedule.warmup': 5.0}
    config.write_text(json.dumps(json.loads(config.read_text()) | values))
    for _ in range(2):  # the same command resumes it
        assert train_here(config, tmp_path / 'run', steps=4) == 0
    assert 'the run is shorter than its configuration says' in capsys.readouterr().out
    stored = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert stored['steps'] == 4
    assert 0 < stored['schedule']['warmup'] < 0.2
    # From nothing but what was stored: the same experiment, which is not scaled again.
    assert train_here(None, tmp_path / 'run') == 0
    assert json.loads((tmp_path / 'run' / 'config.json').read_text()) == stored
    assert 'shorter' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'schedule.warmup': 30.0}, '--config.schedule.warmup=2, or raise'),
        (
            {'schedule.name': 'step', 'schedule.milestones': (5.0, 90.0)},
            r'--config.schedule.milestones="\(6.7,13,\)"',
        ),
    ],
)
def test_a_schedule_that_never_fitted_names_values_that_do(fields, words):
    config = base.get_config()
    for name, value in fields.items():
        section, _, leaf = name.rpartition('.')
        config[section][leaf] = value
    with pytest.raises(UserError, match=f'lies beyond the end .* for instance by {words}'):
        fitted(config).check_lengths()
