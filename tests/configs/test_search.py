"""Sweep files: what they say, and what is refused before anything is trained."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import base, search
from configs.search import Categorical, Float, Int, Objective, Sweep
from errors import UserError
from sweeps.engine import configuration
from tests.conftest import ROOT

RATE = {'optimizer.learning_rate': Float(1e-3, 1e-1, log=True)}


@pytest.mark.parametrize('file', sorted((ROOT / 'configs' / 'sweeps').glob('[a-z]*.py')), ids=str)
def test_every_sweep_file_is_sound(file):
    assert search.load(str(file)).space


@pytest.mark.parametrize(
    ('sweep', 'message'),
    [
        ('nothing', r'must return a configs.search.Sweep'),
        (Sweep({}), 'the space is empty'),
        (Sweep({'optimizer.learning_rat': Float(0, 1)}), 'Did you mean "config.optimizer.learning'),
        (Sweep({'data.dir': Categorical(('a', 'b'))}), 'does not change what is learned'),
        (Sweep({'seed': [1, 2]}), 'must vary by a Float, Int or Categorical'),
        (Sweep({'optimizer.learning_rate': Float(-1.0, 1.0)}), 'must be greater than 0'),
        (Sweep({'augment.rotate': Float(0.0, 200.0)}), 'must be at most 180'),
        (Sweep({'augment.rotate': Float(10.0, 5.0)}), r'low=10.0 must be below high=5.0'),
        (Sweep({'augment.shift': Float(0.0, 5.0, log=True)}), 'log needs a low above 0'),
        (Sweep({'batch_size': Int(1, 9, step=2, log=True)}), 'log and step cannot both'),
        (Sweep({'batch_size': Float(1.5, 9.0)}), 'config.batch_size must be of type int'),
        (Sweep({'optimizer.name': Categorical(('sgd', 'adm'))}), 'Did you mean "adam"'),
        (Sweep({'optimizer.name': Categorical(())}), 'has no choices'),
        (Sweep({'schedule.milestones': Categorical(((1.0,), (2.0,)))}), 'a choice is a number'),
        (Sweep({'seed': Int(0, 9, step=0)}), 'a step of at least 1'),
        (Sweep({'augment.rotate': Int(0.5, 3)}), 'needs whole numbers'),
        (Sweep(RATE, objective='accuracy'), 'objective an Objective'),
        (Sweep(RATE, Objective(direction='max')), 'objective.direction must be one of'),
        (Sweep(RATE, trials=0), 'trials must be a whole number of at least 1'),
        (Sweep(RATE, reduction=1), 'reduction must be a whole number of at least 2'),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(sweep, message):
    with pytest.raises(UserError, match=re.compile(message)):
        search.check(sweep)


def test_a_file_without_the_function_is_named(tmp_path: Path):
    file = tmp_path / 'mine.py'
    file.write_text('def get_swep():\n    return 1\n')
    with pytest.raises(UserError, match=r'mine.py has no function get_sweep\(\)'):
        search.load(str(file))
    with pytest.raises(UserError, match=r'There is no file .*other.py'):
        search.load(str(tmp_path / 'other.py'))


@given(
    low=st.floats(1e-6, 1.0),
    factor=st.floats(1.001, 1e6),
    points=st.integers(1, 20),
    log=st.booleans(),
)
def test_a_grid_stays_within_its_ends_and_increases(low, factor, points, log):
    values = Float(low, low * factor, log=log, points=points).grid()
    assert len(values) == points
    assert all(low <= value <= low * factor for value in values)
    assert values == sorted(values)
    if points > 1:
        assert values[0] == pytest.approx(low)
        assert values[-1] == pytest.approx(low * factor)


def test_a_trial_is_the_configuration_with_its_values():
    config = base.get_config()
    found = configuration(config, {'optimizer.name': 'adam', 'seed': 7, 'augment.shift': 1})
    assert (found.optimizer.name, found.seed, found.augment.shift) == ('adam', 7, 1.0)
    assert config.seed == 0
    with pytest.raises(UserError, match='means nothing to sgd'):
        configuration(config, {'optimizer.beta1': 0.5})


@pytest.mark.parametrize(('of', 'expected'), [('last', 2.0), ('best', 3.0)])
def test_the_figure_of_a_trial(of, expected):
    assert Objective(direction='maximize', of=of).value([1.0, 3.0, 2.0]) == expected
    assert Objective(direction='minimize', of='best').value([1.0, 3.0, 2.0]) == 1.0


def test_an_objective_takes_what_it_leaves_out_from_the_task():
    config = base.get_config()
    assert Objective().resolved(config) == Objective('validation/accuracy', 'maximize')
    assert Objective('validation/loss').resolved(config).direction == 'minimize'
    assert Objective('validation/loss', 'maximize').resolved(config).direction == 'maximize'
    with pytest.raises(UserError, match=r'objective.metric must be one of .* not .accuracy.'):
        Objective('accuracy').resolved(config)
