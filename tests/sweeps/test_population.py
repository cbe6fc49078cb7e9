"""Lanes of a population are the runs that train.py makes, and do not disturb each other."""

import functools
import json

import jax
import numpy as np
import pytest

import input_pipeline
from configs import base
from errors import UserError
from sweeps import population
from sweeps.engine import configuration
from sweeps.population import Population
from tests.support import result, train_here, write_config
from training.experiment import from_split, hyperparameters
from training.runner import Runner

FIELDS = {
    'model.name': 'lenet',
    'model.dropout_rate': 0.2,
    'batch_size': 64,
    'steps': 60,
    'eval_every': 1.0,
    'optimizer.name': 'adamw',
    'optimizer.weight_decay': 0.01,
    'augment.shift': 1.0,
    'label_smoothing': 0.1,
    'ema_decay': 0.9,
}
LANES = [
    {'optimizer.learning_rate': 1e-3, 'seed': 0},
    {'optimizer.learning_rate': 3e-3, 'seed': 1, 'model.dropout_rate': 0.4},
    {'optimizer.learning_rate': 1e-2, 'seed': 1, 'optimizer.beta1': 0.8, 'ema_decay': 0.8},
    {'optimizer.learning_rate': 2e-3, 'seed': 5, 'augment.shift': 3.0, 'label_smoothing': 0.01},
]


@pytest.fixture(scope='module')
def config():
    return configuration(base.get_config(), FIELDS)


@pytest.fixture(scope='module')
def dense():
    """Without convolutions, which XLA compiles slowly where each lane has kernels of its own."""
    return configuration(base.get_config(), FIELDS | {'model.name': 'fcn'})


@pytest.fixture(scope='module')
def narrow():
    """The same, to be done with in a second: for what lanes do, whatever their network."""
    fields = {'model.name': 'fcn', 'model.units': 16}
    return configuration(base.get_config(), FIELDS | fields)


@pytest.fixture(scope='module')
def splits(config):
    return [input_pipeline.open_split(config, name) for name in ('train', 'validation')]


def populated(config, splits, lanes, size=None, devices=None) -> Population:
    devices = devices or jax.devices()[:1]
    made = Population(config, *splits, size or len(lanes), devices)
    for place, values in enumerate(lanes):
        made.start(place, configuration(config, values), place)
    return made


@functools.cache
def runner_alone(values: str) -> Runner:
    """train.py's own runner of a lane; to be compiled once."""
    config = configuration(base.get_config(), FIELDS | json.loads(values))
    experiment = from_split(config, input_pipeline.open_split(config, 'train'))
    return Runner(experiment.spec(), 'pmap', jax.devices()[:1])


def step_alone(values: dict, config, split, state):
    """The state after train.py's next update."""
    runner = runner_alone(json.dumps(values))
    dataset = runner.replicate(split.arrays)
    hyper = runner.replicate(hyperparameters(config))
    batch = next(input_pipeline.train_batches(config, split.size, int(state.step)))
    return runner.fetch(
        runner.train(runner.replicate(state), hyper, runner.split(batch), dataset)[0]
    )


def assert_near(found, expected, relative):
    """Each array within so much of its norm: Adam divides, and makes rounding of a gradient that is
    almost 0 as large as a step."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert np.linalg.norm(a - b) <= relative * np.linalg.norm(b), path


@pytest.mark.slow
@pytest.mark.parametrize('width', [1, 4])
def test_a_lane_takes_the_steps_of_the_run_alone(config, splits, monkeypatch, width):
    monkeypatch.setattr(population, 'WIDTH', {'cpu': width})
    lanes = populated(config, splits, LANES)
    for at in (0, 10, 50):
        for lane in lanes.lanes:
            lane.target = at
        if at:
            lanes.advance()
        before = [lanes.state(place) for place in range(len(LANES))]
        for lane in lanes.lanes:
            lane.target = at + 1
        lanes.advance()
        for place, lane in enumerate(lanes.lanes):
            alone = step_alone(LANES[place], lane.config, splits[0], before[place])
            assert alone.step == lanes.state(place).step == at + 1
            assert_near(lanes.state(place).params, alone.params, 1e-5)
            assert_near(lanes.state(place).ema, alone.ema, 1e-5)


def test_lanes_start_from_the_states_of_the_runs_alone(narrow, splits):
    lanes = populated(narrow, splits, LANES)
    for place, lane in enumerate(lanes.lanes):
        experiment = from_split(lane.config, splits[0])
        first = experiment.initial_state(experiment.spec())
        jax.tree.map(np.testing.assert_array_equal, lanes.state(place), first)


@pytest.mark.slow
@pytest.mark.parametrize('width', [1, 3])
def test_a_lane_that_diverges_leaves_its_neighbours_as_they_were(
    narrow, splits, monkeypatch, width
):
    monkeypatch.setattr(population, 'WIDTH', {'cpu': width})
    wild = {**LANES[1], 'optimizer.learning_rate': 1e30}
    sound, mixed = (populated(narrow, splits, chosen) for chosen in
                    ([LANES[0], LANES[1], LANES[2]], [LANES[0], wild, LANES[2]]))  # fmt: skip
    found, expected = mixed.advance(), sound.advance()
    assert found[1] is None
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    jax.tree.map(np.testing.assert_array_equal, mixed.state(2), sound.state(2))


@pytest.mark.slow
def test_a_freed_lane_takes_another_run_from_its_start(narrow, splits):
    """Without a compilation, and beside lanes that are further on."""
    reused, fresh = populated(narrow, splits, LANES[:2]), populated(narrow, splits, LANES[2:])
    reused.advance()
    compiled = reused._train._cache_size()
    reused.drop(1)
    reused.start(1, configuration(narrow, LANES[3]), 'new')
    assert not reused.finished(0)
    found, expected = reused.advance(), fresh.advance()
    assert found[1] == expected[1]
    assert reused._train._cache_size() == compiled == 1


@pytest.mark.slow
@pytest.mark.parametrize('width', [2, pytest.param(4, marks=pytest.mark.full)])
def test_lanes_side_by_side_are_lanes_that_take_turns(config, splits, monkeypatch, width):
    turns = populated(config, splits, LANES)
    monkeypatch.setattr(population, 'WIDTH', {'cpu': width})
    beside = populated(config, splits, LANES[:3], size=4)
    assert len(beside.lanes) == 4
    found, expected = beside.advance(), turns.advance()
    assert sorted(found) == [0, 1, 2]
    for place in found:
        assert found[place]['loss'] == pytest.approx(expected[place]['loss'], rel=1e-3)


@pytest.mark.slow
def test_a_block_is_as_wide_as_the_memory_allows(dense, splits, monkeypatch):
    monkeypatch.setattr(population, 'WIDTH', {'cpu': 4})
    whole = populated(dense, splits, LANES)
    need = whole._step_bytes(4)
    assert whole._step_bytes(2) < need
    monkeypatch.setattr(population, 'memory_limit', lambda device: int(0.9 * need))
    assert population.most_lanes(dense, splits[0], jax.devices()[0]) < 40
    halved = populated(dense, splits, LANES)
    assert (whole._width, halved._width, len(halved.lanes)) == (4, 2, 4)
    found, expected = halved.advance(), whole.advance()
    for place in expected:
        assert found[place]['loss'] == pytest.approx(expected[place]['loss'], rel=1e-3)


@pytest.mark.slow
def test_final_accuracies_are_those_of_train_py(config, splits, tmp_path):
    rates = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 8e-3, 1e-2)
    lanes = [{'optimizer.learning_rate': rate, 'seed': i} for i, rate in enumerate(rates)]
    trained = populated(config, splits, lanes)
    done = [False]
    while not all(done):
        found = trained.advance()
        done = [trained.finished(place) for place in range(len(lanes))]
    accuracies = []
    for place, values in enumerate(lanes):
        workdir = tmp_path / str(place)
        fields = {name.replace('.', '__'): value for name, value in {**FIELDS, **values}.items()}
        assert train_here(write_config(tmp_path, **fields), workdir) == 0
        lines = (workdir / 'metrics.jsonl').read_text().splitlines()
        last = [r for r in map(json.loads, lines) if 'validation/accuracy' in r][-1]
        assert last['step'] == result(workdir)['steps'] == trained.lanes[place].step
        accuracies.append((found[place]['accuracy'], last['validation/accuracy']))
    ours, alone = np.mean(accuracies, axis=0)
    assert abs(ours - alone) < 0.005, accuracies


@pytest.mark.parametrize(
    ('a', 'b', 'expected'),
    [
        ({'seed': 1}, {'seed': 2, 'optimizer.learning_rate': 1.0}, True),
        ({}, {'batch_size': 32}, False),
        ({}, {'model.activation': 'tanh'}, False),
        ({'augment.shift': 1.0}, {'augment.shift': 2.0}, True),
        ({'augment.shift': 0.0}, {'augment.shift': 2.0}, False),
        ({'model.dropout_rate': 0.1}, {'model.dropout_rate': 0.5}, True),
        ({'model.dropout_rate': 0.0}, {'model.dropout_rate': 0.5}, False),
        ({'optimizer.clip_norm': None}, {'optimizer.clip_norm': 1.0}, False),
        ({'data.train_per_class': 5, 'seed': 1}, {'data.train_per_class': 5, 'seed': 2}, False),
    ],
    ids=str,
)
def test_only_values_may_differ_in_a_population(config, a, b, expected):
    kinds = [population.alike(configuration(config, values)) for values in (a, b)]
    assert (kinds[0] == kinds[1]) == expected


def test_what_lanes_cannot_do_is_refused(config):
    streamed = configuration(config, {'data.name': 'x', 'data.image_size': 32})
    with pytest.raises(UserError, match='--engine=local'):
        population.check(streamed)
