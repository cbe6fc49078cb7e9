"""Spaces whose fields exclude each other: what means nothing in a trial is left out of it."""

import optuna
import pytest

from configs import base
from configs.search import Categorical, Float, Int, Objective, Sweep
from errors import UserError
from sweeps import study
from sweeps.conditions import Conditions
from sweeps.engine import configuration
from tests.support import slow

OPTIMIZERS = {
    'optimizer.momentum': Categorical((None, 0.0, 0.9)),
    'optimizer.nesterov': Categorical((True, False)),
    'optimizer.name': Categorical(('sgd', 'adam', 'rmsprop')),
    'optimizer.learning_rate': Float(1e-3, 1e-1, log=True),
    'optimizer.beta1': Float(0.5, 0.9),
}
SCHEDULES = {
    'schedule.final': Float(0.01, 0.1),
    'schedule.name': Categorical(('constant', 'cosine', 'step')),
}
MODELS = {
    'model.pooling': Categorical(('max', 'average')),
    'model.name': Categorical(('lenet', 'fcn')),
    'model.units': Int(8, 32),
}
MIXING = {
    'augment.cutmix_share': Float(0.1, 0.9),
    'augment.mix_probability': Float(0.1, 0.9),
    'augment.mixup': Categorical((0.0, 0.2)),
    'augment.cutmix': Categorical((0.0, 1.0)),
}
POLICIES = {
    'augment.magnitude': Float(1.0, 9.5),
    'augment.policy': Categorical(('none', 'randaugment', 'trivialaugment')),
}
ERASING = {
    'augment.erase_mode': Categorical(('noise', 'zero')),
    'augment.erase': Categorical((0.0, 0.5)),
}


def config_of(**fields):
    config = base.get_config()
    for name, value in fields.items():
        section, _, leaf = name.partition('__')
        with config.ignore_type():
            if leaf:
                config[section][leaf] = value
            else:
                config[section] = value
    return config


def opened(folder, space, config, sampler='random', trials=24) -> study.Study:
    sweep = Sweep(space, Objective('validation/loss', 'minimize'), seed=5)
    about = study.describe(sweep, config, sampler, None)
    storage = optuna.storages.InMemoryStorage()
    known = Conditions(sweep, config)
    return study.Study(sweep, folder, trials, sampler, 'none', storage, about, True, known)


def drawn(trials: study.Study) -> list[dict]:
    found = []
    while (trial := trials.ask()) is not None:
        found.append(trial.parameters)
        trial.report(1.0, 1)
        trial.complete()
    return found


@pytest.mark.parametrize(
    ('space', 'fields', 'field', 'where'),
    [
        (OPTIMIZERS, {'optimizer__momentum': 0.5}, 'optimizer.momentum',
         lambda p: p['optimizer.name'] != 'adam'),
        slow(OPTIMIZERS, {}, 'optimizer.beta1', lambda p: p['optimizer.name'] == 'adam'),
        (OPTIMIZERS, {}, 'optimizer.nesterov',
         lambda p: p['optimizer.name'] == 'sgd' and p['optimizer.momentum'] != 0.0),
        (SCHEDULES, {'schedule__milestones': (3.0, 5.0)}, 'schedule.final',
         lambda p: p['schedule.name'] == 'cosine'),
        (MODELS, {'model__pooling': 'max'}, 'model.pooling',
         lambda p: p['model.name'] == 'lenet'),
        slow(MODELS, {}, 'model.units', lambda p: p['model.name'] == 'fcn'),
        (MIXING, {}, 'augment.cutmix_share', lambda p: p['augment.mixup'] and p['augment.cutmix']),
        slow(MIXING, {}, 'augment.mix_probability',
         lambda p: p['augment.mixup'] or p['augment.cutmix']),
        slow(POLICIES, {'data__image_size': 32}, 'augment.magnitude',
         lambda p: p['augment.policy'] == 'randaugment'),
        slow(ERASING, {}, 'augment.erase_mode', lambda p: p['augment.erase'] > 0),
    ],
)  # fmt: skip
def test_a_field_is_drawn_where_it_means_something(space, fields, field, where, tmp_path):
    config = config_of(**fields)
    points = drawn(opened(tmp_path, space, config))
    assert {field in point for point in points} == {True, False}
    for point in points:
        assert (field in point) == bool(where(point))
        configuration(config, point)  # none is spent on a contradiction


def test_values_do_not_depend_on_what_else_is_drawn(tmp_path):
    folders = [tmp_path / 'whole', tmp_path / 'part']
    for folder in folders:
        folder.mkdir()
    whole = drawn(opened(folders[0], OPTIMIZERS, base.get_config()))
    names = ('optimizer.name', 'optimizer.learning_rate')
    part = drawn(opened(folders[1], {name: OPTIMIZERS[name] for name in names}, base.get_config()))
    assert [{name: point[name] for name in names} for point in whole] == part


def test_points_of_a_grid_that_differ_in_nothing_are_one(tmp_path):
    space = {name: OPTIMIZERS[name] for name in ('optimizer.name', 'optimizer.momentum')}
    points = drawn(opened(tmp_path, space, base.get_config(), 'grid'))
    assert len(points) == 3 + 3 + 1  # sgd, rmsprop, adam
    assert len({tuple(sorted(point.items(), key=str)) for point in points}) == 7


def test_a_factor_is_drawn_where_there_are_milestones(tmp_path):
    space = {'schedule.name': Categorical(('cosine', 'step')), 'schedule.factor': Float(0.1, 0.5)}
    config = config_of(schedule__milestones=(2.0,), schedule__name='step')
    for parameters in drawn(opened(tmp_path, space, config)):
        assert ('schedule.factor' in parameters) == (parameters['schedule.name'] == 'step')


@pytest.mark.parametrize(
    ('space', 'reason'),
    [
        ({'optimizer.beta1': Float(0.5, 0.9)}, 'optimizer.beta1 means nothing to sgd'),
        ({'augment.layers': Int(1, 3)}, 'augment.layers belongs to augment.policy=randaugment'),
        ({'schedule.name': Categorical(('constant', 'step')), 'schedule.final': Float(0.1, 0.2)},
         'schedule.final belongs to schedule.name=cosine'),
        ({'schedule.name': Categorical(('constant', 'cosine')), 'schedule.factor': Float(0.1, 0.5)},
         'schedule.factor counts at milestones'),
        ({'steps': Int(10, 20), 'epochs': Float(1.0, 9.0)}, 'steps replaces it'),
        ({'checkpoint.every_steps': Int(4, 8), 'checkpoint.every': Float(0.5, 1.0)},
         'checkpoint.every_steps replaces it'),
    ],
)  # fmt: skip
def test_a_field_that_means_nothing_in_any_trial_is_refused(space, reason):
    message = rf'^The sweep varies config\.{list(space)[-1]} in vain: config\.{reason}'
    with pytest.raises(UserError, match=message):
        Conditions(Sweep(space), base.get_config())


def test_a_sentence_says_what_is_left_out():
    assert Conditions(Sweep(MIXING), base.get_config()).sentences() == [
        'augment.mix_probability is left out of trials with augment.mixup=0.0 and '
        'augment.cutmix=0.0: it means nothing there',
        'augment.cutmix_share is left out of trials with augment.mixup=0.0 or augment.cutmix=0.0: '
        'it means nothing there',
    ]
    assert Conditions(Sweep(ERASING), base.get_config()).sentences() == [
        'augment.erase_mode is left out of trials with augment.erase=0.0: it means nothing there'
    ]
    alone = Sweep({'optimizer.learning_rate': Float(1e-3, 1e-1)})
    assert Conditions(alone, base.get_config()).sentences() == []


def test_what_the_configuration_says_of_one_choice_is_no_contradiction_of_another():
    space = {'optimizer.name': Categorical(('sgd', 'adam'))}
    config = config_of(optimizer__name='adam', optimizer__momentum=0.5)
    Conditions(Sweep(space), config).checked()
    assert configuration(config, {'optimizer.name': 'sgd'}).optimizer.momentum == 0.5
    assert configuration(config, {'optimizer.name': 'adam'}).optimizer.momentum is None
