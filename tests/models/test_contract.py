"""What every registered model promises, whatever its architecture."""

import functools
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from errors import UserError

ROOT = Path(__file__).parents[2]
PARAMETERS = {'deep_cnn': 29_034, 'fcn': 669_706, 'lenet': 61_706, 'strided_cnn': 3_916_234}
STRIDED_STAGES = {
    'conv1': (28, 28, 64),
    'conv2': (14, 14, 128),
    'conv3': (7, 7, 256),
    'conv4': (4, 4, 512),
    'conv5': (2, 2, 512),
}
STAGES = {
    'deep_cnn': {
        'conv1': (28, 28, 16),
        'pool1': (14, 14, 16),
        'conv2': (14, 14, 32),
        'pool2': (7, 7, 32),
    },
    'fcn': {'dense1': (512,), 'dense2': (512,)},
    'lenet': {
        'conv1': (28, 28, 6),
        'pool1': (14, 14, 6),
        'conv2': (10, 10, 16),
        'pool2': (5, 5, 16),
        'dense1': (120,),
        'dense2': (84,),
    },
    'strided_cnn': STRIDED_STAGES,
}
# The smallest of each family, for what has to be compiled.
SMALL = {'strided_cnn': {'width': 0.05}, 'fcn': {'units': 32}}
every_model = pytest.mark.parametrize('name', models.names())


def abstract_variables(model, size=28):
    images = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images), images


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope='module', params=models.names())
def small(request):
    """Model, variables and images [8, 12, 12, 1], compiled once for each family."""
    model = models.create(request.param, num_classes=5, **SMALL.get(request.param, {}))
    images = jax.random.normal(jax.random.key(1), (8, 12, 12, 1))
    return model, jax.jit(model.init)(jax.random.key(0), images), images


@functools.partial(jax.jit, static_argnames='model')
def evaluate(model, variables, images):
    return model.apply(variables, images)


@functools.partial(jax.jit, static_argnames='model')
def train(model, variables, images, seed=0, mask=None):
    rngs = {'dropout': jax.random.key(seed)}
    return model.apply(variables, images, train=True, mask=mask, mutable=['batch_stats'], rngs=rngs)


def test_names_and_importing_start_nothing():
    assert models.names() == tuple(sorted(PARAMETERS))
    code = (
        'import models; from jax._src import xla_bridge;'
        'assert not xla_bridge.backends_are_initialized()'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=120)


@every_model
def test_parameters_and_stages_are_as_declared(name):
    model = models.create(name, num_classes=10)
    variables, images = abstract_variables(model)
    assert count(variables['params']) == PARAMETERS[name]
    assert set(variables) <= {'params', 'batch_stats'}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method=model.stages), variables, images)
    assert isinstance(stages, OrderedDict)
    assert [(k, v.shape[1:]) for k, v in stages.items()] == list(STAGES[name].items())


def test_the_pooled_twin_has_the_same_stages_and_parameters():
    shapes = []
    for downsample in ('stride', 'max_pool'):
        model = models.create('strided_cnn', num_classes=10, downsample=downsample)
        variables, images = abstract_variables(model)
        stages = jax.eval_shape(
            lambda v, x, m=model: m.apply(v, x, method=m.stages), variables, images
        )
        shapes.append((jax.tree.map(jnp.shape, variables), jax.tree.map(jnp.shape, stages)))
    assert shapes[0] == shapes[1]


def test_options_change_what_they_say():
    def parameters(name, **options):
        return count(
            abstract_variables(models.create(name, num_classes=10, **options))[0]['params']
        )

    assert parameters('fcn', units=16, depth=1) == 784 * 16 + 16 + 160 + 10
    assert parameters('fcn', units=16, depth=3) == 784 * 16 + 16 + 2 * (256 + 16) + 160 + 10
    # Without batch norm: a bias in place of scale and bias.
    assert parameters('strided_cnn', normalization='none') == PARAMETERS['strided_cnn'] - 1472
    assert parameters('strided_cnn', width=0.5) < PARAMETERS['strided_cnn'] / 3.9


def test_the_logits_come_from_the_last_stage(small):
    model, variables, images = small
    headless = model.clone(num_classes=0)
    assert 'head' not in jax.eval_shape(headless.init, jax.random.key(0), images)['params']
    features = headless.apply(variables, images)
    last = list(model.apply(variables, images, method=model.stages).values())[-1]
    pooled = (
        last.mean((1, 2)) if 'pooling' in models.options(_name(model)) and last.ndim == 4 else last
    )
    np.testing.assert_allclose(features, pooled.reshape(8, -1), atol=1e-6)
    head = variables['params']['head']
    logits = model.apply(variables, images)
    assert logits.shape == (8, 5)
    np.testing.assert_allclose(logits, features @ head['kernel'] + head['bias'], atol=1e-5)


def _name(model):
    return next(n for n in models.names() if type(models.create(n, num_classes=1)) is type(model))


def test_training_differs_only_by_dropout_and_batch_norm(small):
    model, variables, images = small
    evaluated = evaluate(model, variables, images)
    without, _ = train(model, variables, images)
    if 'batch_stats' in variables:
        assert float(abs(without - evaluated).max()) > 1e-3
    else:
        np.testing.assert_array_equal(without, evaluated)

    dropping = model.clone(dropout_rate=0.5)
    np.testing.assert_array_equal(evaluate(dropping, variables, images), evaluated)
    first, again = (train(dropping, variables, images, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert float(abs(first - without).max()) > 1e-3
    assert float(abs(first - train(dropping, variables, images, seed=2)[0]).max()) > 1e-3


def test_padding_does_not_change_real_examples(small):
    model, variables, images = small
    mask = jnp.array([1, 1, 1, 0, 1, 0, 1, 1.0])
    padded = jnp.where(mask[:, None, None, None] > 0, images, 1e3)
    logits, updated = train(model, variables, padded, mask=mask)
    alone, updated_alone = train(model, variables, images[mask > 0])
    np.testing.assert_allclose(logits[mask > 0], alone, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), updated, updated_alone)


def test_every_parameter_gets_a_gradient(small):
    model, variables, images = small
    labels = jnp.arange(8) % 5

    # At evaluation: in training batch norm subtracts the bias of the convolution before it.
    @jax.jit
    @jax.grad
    def gradient(params):
        log_p = jax.nn.log_softmax(model.apply(variables | {'params': params}, images))
        return -log_p[jnp.arange(8), labels].mean()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables['params'])):
        assert np.isfinite(leaf).all(), path
        assert float(abs(leaf).max()) > 1e-6, path


def test_bfloat16_is_finite_and_near(small):
    model, variables, images = small
    low = model.clone(dtype=jnp.bfloat16)
    logits, updated = train(low, variables, images)
    exact, _ = train(model, variables, images)
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    stages = jax.eval_shape(lambda: low.apply(variables, images, method=low.stages))
    assert all(stage.dtype == jnp.bfloat16 for stage in stages.values())
    # bfloat16 has 8 significant bits.
    distance = float(jnp.linalg.norm(logits - exact) / jnp.linalg.norm(exact))
    assert 0 < distance < 0.05


def test_a_population_of_dropout_rates_equals_its_members(small):
    model, variables, images = small
    rates, seeds = jnp.array([0.0, 0.25, 0.5]), jnp.arange(3)

    def lane(rate, seed):
        return train.__wrapped__(model.clone(dropout_rate=rate), variables, images, seed)

    logits, _ = jax.jit(jax.vmap(lane))(rates, seeds)
    np.testing.assert_allclose(logits[0], train(model, variables, images)[0], atol=1e-5)
    one = jax.jit(lane)
    for i in (1, 2):
        alone, _ = one(rates[i], i)
        np.testing.assert_allclose(logits[i], alone, atol=2e-5)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('lenett', {}, 'no model "lenett".* Did you mean "lenet"'),
        ('lenet', {'poling': 'max'}, 'takes activation, dropout_rate, pooling.* mean "pooling"'),
        ('lenet', {'pooling': 'foo'}, 'pooling is "foo", and should be one of max, average'),
        ('lenet', {'dropout_rate': 1.0}, 'at least 0 and below 1'),
        ('lenet', {'dropout_rate': float('nan')}, 'at least 0 and below 1'),
        ('lenet', {'dropout_rate': '0.5'}, 'should be of type float'),
        ('fcn', {'units': 0}, 'units is 0'),
        ('fcn', {'units': True}, 'should be of type int'),
        ('fcn', {'depth': 1.5}, 'should be of type int'),
        ('strided_cnn', {'width': -1}, 'should be above 0'),
        ('strided_cnn', {'downsample': 'pool'}, 'stride, max_pool'),
        ('fcn', {'num_classes': -1}, 'num_classes is -1'),
        ('fcn', {'dtype': 'int8'}, 'floating-point'),
        ('fcn', {'dtype': 'flaot32'}, 'no number type'),
    ],
)
def test_a_mistake_is_refused_before_anything_is_compiled(name, options, message):
    with pytest.raises(UserError, match=message):
        models.create(name, **({'num_classes': 10} | options))


@pytest.mark.parametrize(('name', 'size'), [('lenet', 8), ('deep_cnn', 3)])
def test_images_too_small_are_refused_with_the_sum(name, size):
    with pytest.raises(UserError, match=r'too small: .*\(N \+ 2P - F\) / S \+ 1 = '):
        abstract_variables(models.create(name, num_classes=10), size)


def test_images_that_are_not_normalised_are_refused():
    model = models.create('fcn', num_classes=10)
    with pytest.raises(TypeError, match='uint8'):
        model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1), jnp.uint8))


@every_model
def test_options_are_readable_and_their_defaults_valid(name):
    options = models.options(name)
    assert 'dropout_rate' in options
    assert not {'num_classes', 'dtype', 'param_dtype', 'axis_name', 'parent'} & set(options)
    defaults = {key: option.default for key, option in options.items()}
    assert models.create(name, num_classes=3, **defaults) == models.create(name, num_classes=3)
    for option in options.values():
        assert isinstance(option.default, option.type)
