"""Optimisers against optax's own, schedules and averages against slow plain formulas."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from configs import base
from errors import UserError
from sweeps import study
from sweeps.space import Int, Objective, Sweep
from tests.models.declared import FEW
from tests.support import most_slow
from training import experiment, optimizers, workdir

DECAY = 0.03
RATE = 0.02


def mask(params):
    """What decays, written out for the tree below."""
    del params
    return {'conv': {'kernel': True, 'bias': False}, 'norm': {'scale': False, 'bias': False}}


def example(seed):
    shapes = {'conv': {'kernel': (3, 3, 2, 4), 'bias': (4,)}, 'norm': {'scale': (4,), 'bias': (4,)}}
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: draw.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def adam_l2():
    """Classic L2 with adam, which optax has no alias for: decay first, then adam."""
    return optax.chain(optax.add_decayed_weights(DECAY, mask), optax.adam(RATE, 0.8, 0.95, 1e-5))


def l2(alias):
    return optax.chain(optax.add_decayed_weights(DECAY, mask), alias)


def lamb():
    """optax.lamb, but for the trust ratio of biases and norms, which the authors leave at 1."""
    return optax.chain(
        optax.scale_by_adam(0.8, 0.95, 1e-5),
        optax.add_decayed_weights(DECAY, mask),
        optax.masked(optax.scale_by_trust_ratio(), mask),
        optax.scale(-RATE),
    )


BETAS = {'beta1': 0.8, 'beta2': 0.95, 'epsilon': 1e-5}
# name -> (our name, our options, nesterov, the same by optax)
CASES = {
    'sgd': ('sgd', {'momentum': 0.8}, False, l2(optax.sgd(RATE, 0.8))),
    'sgd without momentum': ('sgd', {'momentum': 0.0}, False, l2(optax.sgd(RATE))),
    'nesterov': ('sgd', {'momentum': 0.8}, True, l2(optax.sgd(RATE, 0.8, nesterov=True))),
    'adam': ('adam', BETAS, False, adam_l2()),
    'adamw': (
        'adamw', BETAS, False,
        optax.adamw(RATE, 0.8, 0.95, 1e-5, weight_decay=DECAY, mask=mask),
    ),
    'lamb': (
        'lamb', BETAS, False,
        lamb(),
    ),
    'lars': (
        'lars', {'momentum': 0.8, 'trust_coefficient': 0.01}, False,
        optax.lars(RATE, DECAY, mask, 0.01, 0.0, mask, 0.8, False),
    ),
    'lars with nesterov': (
        'lars', {'momentum': 0.8, 'trust_coefficient': 0.01}, True,
        optax.lars(RATE, DECAY, mask, 0.01, 0.0, mask, 0.8, True),
    ),
    'rmsprop': (
        'rmsprop', {'decay': 0.8, 'momentum': 0.7, 'epsilon': 1e-5}, False,
        l2(optax.rmsprop(RATE, 0.8, 1e-5, momentum=0.7, eps_in_sqrt=False)),
    ),
}  # fmt: skip


def descend(name, hyper, nesterov, clip=False, steps=10):
    """Ten updates with our optimiser, as the step applies it; also the update and its traces."""
    params, traces = example(0), []
    opt_state = optimizers.make(name, hyper, nesterov, clip).init(params)

    @jax.jit
    def update(params, opt_state, grads, hyper):
        traces.append(name)
        optimizer = optimizers.make(name, hyper, nesterov, clip)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return jax.tree.map(lambda p, u: p - RATE * u, params, updates), opt_state

    for step in range(steps):
        params, opt_state = update(params, opt_state, example(step + 1), hyper)
    return params, update, traces


def assert_close(found, expected, rtol=1e-5):
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        other = dict(jax.tree_util.tree_leaves_with_path(found))[path]
        np.testing.assert_allclose(other, leaf, rtol=rtol, atol=1e-6, err_msg=str(path))


@pytest.mark.parametrize('case', CASES)
def test_ten_steps_equal_optax(case):
    name, options, nesterov, reference = CASES[case]
    found, *_ = descend(name, {'weight_decay': DECAY, **options}, nesterov)

    update = jax.jit(reference.update)
    params = example(0)
    opt_state = reference.init(params)
    for step in range(10):
        updates, opt_state = update(example(step + 1), opt_state, params)
        params = optax.apply_updates(params, updates)
    assert_close(found, params)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_traced_hyperparameters_are_compiled_once(name):
    names = ('weight_decay', 'clip_norm', *CASES[name][1])
    sets = [dict.fromkeys(names, 0.1), dict.fromkeys(names, 0.6)]
    # In `descend` the numbers are arguments of the jitted function, here constants of it.
    for hyper in sets:
        params = example(0)
        optimizer = optimizers.make(name, hyper, clip=True)
        opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
        for step in range(3):
            updates, opt_state = update(example(step + 1), opt_state, params)
            params = jax.tree.map(lambda p, u: p - RATE * u, params, updates)
        traced = {k: np.float32(v) for k, v in hyper.items()}
        found, compiled, traces = descend(name, traced, False, clip=True, steps=3)
        assert_close(found, params)
        other = {k: np.float32(0.3) for k in hyper}
        compiled(example(0), opt_state, example(1), other)
        assert len(traces) == 1


@pytest.mark.parametrize('limit', [0.5, 1e4])
def test_clipping_scales_the_whole_gradient(limit):
    grads = example(1)
    hyper = {'weight_decay': 0.0, 'momentum': 0.0, 'clip_norm': limit}
    optimizer = optimizers.make('sgd', hyper, clip=True)
    found, _ = optimizer.update(grads, optimizer.init(grads), example(0))
    norm = math.sqrt(sum(np.square(g.astype(np.float64)).sum() for g in jax.tree.leaves(grads)))
    assert_close(found, jax.tree.map(lambda g: g * min(1, limit / norm), grads))


def test_clipping_comes_before_weight_decay():
    grads, params = example(1), example(0)
    hyper = {'weight_decay': 2.0, 'momentum': 0.0, 'clip_norm': 1e-6}
    optimizer = optimizers.make('sgd', hyper, clip=True)
    found, _ = optimizer.update(grads, optimizer.init(grads), params)
    decayed = found['conv']['kernel'] / params['conv']['kernel']
    np.testing.assert_allclose(decayed, 2.0, rtol=1e-2)
    assert np.abs(found['norm']['scale']).max() <= 1e-6


@pytest.mark.parametrize('name', most_slow(models.names(), FEW))
def test_only_weights_decay(name):
    """Kernels are what has more than one axis; biases and norms have one."""
    model = models.create(name, num_classes=10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))['params']
    decays = optimizers.is_kernel(params)
    assert decays == jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    assert any(jax.tree.leaves(decays))


def test_options_fill_in_the_defaults():
    config = base.get_config().optimizer
    assert optimizers.options(config) == {'momentum': 0.9, 'nesterov': True}
    with config.ignore_type():
        config.momentum = 0.0
        config.nesterov = False
    assert optimizers.options(config) == {'momentum': 0.0, 'nesterov': False}
    config.name = 'adamw'
    assert optimizers.options(config) == {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8}


# Gradients around epsilon, and the weight after each update with learning rate 0.1 in PyTorch 2.13,
# float64; with RMSprop(alpha=0.9).
SMALL_GRADIENTS = (1e-2, 3e-5, -1e-7, 0.0, 2e-9, 1e-4)
IN_PYTORCH = {
    'adam': (
        {'beta1': 0.9, 'beta2': 0.999},
        [-0.0999999, -0.16722868, -0.219196066, -0.261764575, -0.297744675, -0.329276697],
    ),
    'adamw': (
        {'beta1': 0.9, 'beta2': 0.999, 'weight_decay': 0.01},
        [-0.0999999, -0.16712868, -0.218928938, -0.261278518, -0.296997339, -0.328232363],
    ),
    'rmsprop': (
        {'decay': 0.9, 'momentum': 0.0},
        [-0.316226766, -0.317226758, -0.317223244, -0.317223244, -0.317223322, -0.321338163],
    ),
    'rmsprop with momentum': (
        {'decay': 0.9, 'momentum': 0.5, 'epsilon': 1e-6},
        [-0.316127798, -0.475191358, -0.554719626, -0.59448376, -0.614365905, -0.628420142],
    ),
}


@pytest.mark.parametrize('case', IN_PYTORCH)
def test_epsilon_stands_where_pytorch_has_it(case):
    options, expected = IN_PYTORCH[case]
    name = case.partition(' ')[0]
    hyper = {'weight_decay': 0.0, 'epsilon': 1e-8} | options
    optimizer = optimizers.make(name, hyper)
    params, found = {'kernel': jnp.zeros(1)}, []
    opt_state = optimizer.init(params)
    for gradient in SMALL_GRADIENTS:
        updates, opt_state = optimizer.update({'kernel': jnp.full(1, gradient)}, opt_state, params)
        params = {'kernel': params['kernel'] - 0.1 * updates['kernel']}
        found.append(params['kernel'].item())
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_a_run_from_before_keeps_epsilon_in_the_root(tmp_path):
    config = base.get_config()
    config.optimizer.name = 'rmsprop'
    workdir.store(tmp_path, config)
    values = json.loads((tmp_path / 'config.json').read_text())
    assert values['optimizer'].pop('epsilon_in_root') is None
    (tmp_path / 'config.json').write_text(json.dumps(values))
    old = workdir.load_config(tmp_path)
    assert old.optimizer.epsilon_in_root is True
    with pytest.raises(UserError, match=r'optimizer.epsilon_in_root \(True there, not set now\)'):
        workdir.compare(tmp_path, config, extend=False)
    with pytest.raises(UserError, match=r'config.optimizer.epsilon_in_root \(True, now None\)'):
        check_stored_sweep(tmp_path / 'sweep', values, config)
    for chosen, inside in ((old, True), (config, False)):
        opened, _ = experiment.open_train(chosen)
        assert opened.spec().epsilon_in_root is inside
        assert 'epsilon_in_root' not in experiment.hyperparameters(chosen)


def check_stored_sweep(folder, values, config):
    sweep = Sweep({'seed': Int(0, 9)}, Objective(of='best'), trials=2)
    settings = study.describe(sweep, config, 'random', None)
    folder.mkdir()
    study.check_settings(folder, settings)
    study.check_settings(folder, settings)
    (folder / study.SETTINGS).write_text(json.dumps(settings | {'config': values}))
    study.check_settings(folder, settings)


def test_epsilon_in_the_root_is_that_of_optax():
    hyper = {'weight_decay': 0.0, 'decay': 0.9, 'momentum': 0.0, 'epsilon': 1e-8}
    ours = optimizers.make('rmsprop', hyper, epsilon_in_root=True)
    theirs = optax.scale_by_rms(0.9, 1e-8)
    grads = {'kernel': jnp.float32([1e-2, 1e-5, 0.0])}
    found, expected = (o.update(grads, o.init(grads), grads)[0]['kernel'] for o in (ours, theirs))
    np.testing.assert_array_equal(found, expected)
    assert abs(found[1]) < 0.2  # outside of the root it is 3.2


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match='adagrad'):
        optimizers.make('adagrad', {'weight_decay': 0.0})


def schedule_config(**values):
    config = base.get_config().schedule
    with config.ignore_type():
        for name, value in values.items():
            config[name] = value
    return config


def slow_shape(config, steps, steps_per_epoch, step):
    """The share of the peak for one update, in plain Python."""
    unit = steps_per_epoch if config.unit == 'epochs' else 1
    warmup = round(config.warmup * unit)
    if step < warmup:
        return (step + 1) / warmup
    if config.name == 'constant':
        return 1.0
    if config.name == 'step':
        return config.factor ** len([m for m in config.milestones if round(m * unit) <= step])
    done = min((step - warmup) / max(steps - warmup, 1), 1)
    return config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(['cosine', 'step', 'constant']),
    unit=st.sampled_from(['epochs', 'steps']),
    warmup=st.floats(0, 5),
    milestones=st.lists(st.floats(0.5, 9), max_size=3),
    factor=st.floats(0.01, 1),
    final=st.floats(0, 1),
    steps=st.integers(6, 300),
    steps_per_epoch=st.floats(0.3, 30),
)
def test_schedules_equal_the_plain_formula(steps, steps_per_epoch, **values):
    values['milestones'] = tuple(sorted(values['milestones']))
    config = schedule_config(**values)
    shape = optimizers.schedule(config, steps, steps_per_epoch)
    found = jax.vmap(shape)(np.arange(steps + 3))
    expected = [slow_shape(config, steps, steps_per_epoch, step) for step in range(steps + 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize('name', ['cosine', 'step', 'constant'])
def test_a_warm_up_rises_in_equal_steps_to_the_peak(name):
    milestones = (50.0,) if name == 'step' else ()
    config = schedule_config(name=name, unit='steps', warmup=8.0, milestones=milestones)
    shape = optimizers.schedule(config, 100, 10.0)
    shares = jax.vmap(shape)(np.arange(100))
    np.testing.assert_allclose(shares[:8], np.arange(1, 9) / 8, rtol=1e-6)
    assert shares.max() <= 1


def test_epochs_and_steps_are_the_same_schedule():
    epochs = schedule_config(name='step', unit='epochs', warmup=1.0, milestones=(2.0, 3.0))
    steps = schedule_config(name='step', unit='steps', warmup=12.0, milestones=(25.0, 38.0))
    shapes = [optimizers.schedule(config, 50, 12.5) for config in (epochs, steps)]
    values = [np.asarray(jax.vmap(shape)(np.arange(50))) for shape in shapes]
    np.testing.assert_array_equal(*values)
    np.testing.assert_allclose(values[0][[24, 25, 37, 38]], [1, 0.1, 0.1, 0.01], rtol=1e-6)


@pytest.mark.parametrize('warmup', [0, 10])
def test_cosine_equals_optax_after_the_warm_up(warmup):
    """optax's warm-up starts from a rate of 0, which would waste an update; ours does not."""
    config = schedule_config(name='cosine', unit='steps', warmup=float(warmup), final=0.05)
    shape = optimizers.schedule(config, 90, 7.0)
    other = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, 90, 0.05)
    steps = np.arange(warmup, 95)
    np.testing.assert_allclose(shape(steps), other(steps), rtol=1e-5)
    assert float(shape(90)) == pytest.approx(0.05)
    assert float(shape(89)) > 0.05


def test_a_schedule_takes_the_steps_of_a_population():
    config = schedule_config(name='step', unit='steps', warmup=2.0, milestones=(5.0,))
    shape = optimizers.schedule(config, 20, 1.0)
    found = jax.jit(jax.vmap(shape))(jnp.array([0, 3, 5], jnp.int32))
    np.testing.assert_allclose(found, [0.5, 1, 0.1])


def test_average_equals_the_recursion():
    values = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    found, expected = {'w': values[0]}, values[0].astype(np.float64)
    for step, value in enumerate(values):
        found = optimizers.average(np.float32(0.7), step, found, {'w': value})
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(found['w'], expected, rtol=1e-5)
