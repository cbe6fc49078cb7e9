"""A smoke run: short and small, otherwise the same, and the same however often it is read."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from configs import base, reading, schema, smoke
from tests.support import result, saved_steps, train_here, write_config
from training import checks, experiment
from training.records import read_metrics

ROOT = Path(train.__file__).parent
FILES = [
    path for path in sorted((ROOT / 'configs').glob('*.py'))
    if path.stem not in train.NO_EXPERIMENT
]  # fmt: skip
# What a smoke run may change.
LENGTHS = {
    'smoke', 'steps', 'batch_size', 'accumulate', 'eval_batch_size', 'log_every', 'eval_every',
    'checkpoint.every_steps', 'schedule.unit', 'schedule.warmup', 'schedule.milestones',
}  # fmt: skip


def classes(count):
    return tuple(str(number) for number in range(count))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
class TestEveryConfiguration:
    """Each file of configs/, as a fake data set of its own size would have it."""

    def shape(self, config):
        side = config.data.image_size or (32 if config.data.name == 'cifar10' else 28)
        return (side, side, len(config.data.mean))

    def test_is_sound(self, path):
        config = reading.from_arguments(str(path), [])
        if config.linear_probe or config.init_from:
            config.init_from = 'somewhere'
        checks.check(config)
        found = experiment.Experiment(config, self.shape(config), classes(1000), 1_281_167)
        found.check_lengths()
        spec = found.spec()
        if config.task == 'classification':
            assert spec.task.num_classes == 1000
        hyper = experiment.hyperparameters(config)
        assert all(hyper[name] is not None for name in hyper)

    def test_is_sound_as_a_smoke_run_on_few_pictures(self, path):
        config = reading.from_arguments(str(path), ['--config.smoke=true'])
        checks.check(config)
        checks.check_devices(config, 1)
        for examples in (160, 1_281_167):
            found = experiment.Experiment(config, self.shape(config), classes(1000), examples)
            found.check_lengths()
            assert found.steps == smoke.STEPS
        spec = found.spec()
        assert {float(spec.schedule(step)) > 0 for step in range(1, 4)} == {True}

    def test_changes_lengths_alone(self, path):
        whole = schema.flatten(reading.from_arguments(str(path), []))
        small = schema.flatten(reading.from_arguments(str(path), ['--config.smoke=true']))
        assert whole.keys() == small.keys()
        assert {name for name in whole if whole[name] != small[name]} <= LENGTHS
        assert small['batch_size'] <= 8
        assert small['accumulate'] <= 2
        assert small['eval_batch_size'] <= 16
        assert (small['schedule.warmup'] > 0) == (whole['schedule.warmup'] > 0)
        assert len(small['schedule.milestones']) == len(whole['schedule.milestones'])


def config_of(**fields):
    config = base.get_config()
    for name, value in fields.items():
        *section, leaf = name.split('__')
        with config.ignore_type():
            (config[section[0]] if section else config)[leaf] = value
    return schema.validate(config, base.fields())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9) | st.none(), st.integers(1, 8), st.integers(1, 300), st.integers(1, 3000),
    st.integers(0, 6), st.sampled_from(['epochs', 'steps']), st.just(0.0) | st.floats(1e-12, 5),
    st.floats(0.1, 9),
)  # fmt: skip
def test_twice_is_once(steps, accumulate, share, evaluated, milestones, unit, warmup, every):
    config = config_of(
        smoke=True, steps=steps, accumulate=accumulate, batch_size=share * accumulate,
        eval_batch_size=evaluated, eval_every=every, schedule__unit=unit, schedule__warmup=warmup,
        schedule__name='step' if milestones else 'cosine',
        schedule__milestones=tuple(float(n) for n in range(1, milestones + 1)),
    )  # fmt: skip
    before = schema.flatten(config)
    once = smoke.shrunk(config)
    assert schema.flatten(config) == before, 'pure'
    stored = json.loads(json.dumps(schema.plain(once)))
    again = smoke.shrunk(schema.validate(once, base.fields()))
    assert schema.flatten(again) == schema.flatten(once)
    assert schema.plain(again) == stored
    checks.check(once)
    found = experiment.Experiment(once, (28, 28, 1), classes(10), 1000)
    found.check_lengths()
    assert found.steps == min(steps or 4, 4)


@pytest.mark.parametrize(
    ('batch', 'devices', 'accumulate', 'expected'),
    [(64, 0, 1, 8), (64, 8, 1, 16), (64, 8, 4, 32), (64, 3, 1, 6), (16, 8, 1, 16), (6, 0, 1, 6)],
)
def test_a_batch_has_no_more_than_each_device_needs(batch, devices, accumulate, expected):
    config = config_of(smoke=True, batch_size=batch, devices=devices, accumulate=accumulate)
    small = smoke.shrunk(config)
    assert small.batch_size == expected
    assert small.accumulate == (min(accumulate, 2) if batch != expected else accumulate)
    small.augment.mixup = 0.2
    checks.check_devices(small, devices or 1)


def test_without_it_nothing_changes():
    config = config_of(steps=77)
    assert smoke.shrunk(config) is config


EVERYTHING = {
    'model__name': 'fcn', 'model__units': 16, 'smoke': True, 'epochs': 3.0, 'accumulate': 4,
    'augment__mixup': 0.2, 'augment__cutmix': 1.0, 'augment__erase': 0.5, 'augment__crop': 2,
    'augment__flip': 0.5, 'augment__shift': 1.0, 'loss': 'bce', 'bce_threshold': 0.2,
    'label_smoothing': 0.1, 'ema_decay': 0.9, 'schedule__warmup': 1.0,
}  # fmt: skip


def test_a_smoke_run_trains_stops_and_goes_on(tmp_path):
    """With all that the device does to images, twice from its own config.json."""
    file, workdir = write_config(tmp_path, **EVERYTHING), tmp_path / 'run'
    assert train_here(file, workdir) == 0
    first = result(workdir)
    assert (first['steps'], first['config']['batch_size'], first['config']['accumulate']) == (
        4, 8, 2,
    )  # fmt: skip
    assert first['test_examples'] == 64  # of 359
    assert saved_steps(workdir) == [2, 4]
    names = set().union(*read_metrics(workdir))
    assert {'train/loss', 'validation/accuracy'} <= names
    # Both ways of going on: from the folder alone, and from the file again.
    assert train_here(None, workdir) == 0
    assert train_here(file, workdir) == 0
    assert result(workdir)['params_sha256'] == first['params_sha256']
    assert reading.load(str(workdir / 'config.json')).steps == 4
