"""What the options of models change, and what is refused before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from errors import UserError
from models import resnet
from tests.models.declared import PARAMETERS, abstract_variables, count, draw_variables, evaluate
from tests.support import slow

pytestmark = pytest.mark.usefixtures('compiled_in_haste')

every_model = pytest.mark.parametrize('name', models.names())


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


def test_residual_and_dense_options_change_what_they_say():
    def parameters(name, **options):
        return abstract_variables(models.create(name, num_classes=10, **options))[0]

    plain = parameters('resnet18', stem='mnist')
    grouped = parameters('resnet18', stem='mnist', normalization='group')
    assert jax.tree.map(jnp.shape, plain['params']) == jax.tree.map(jnp.shape, grouped['params'])
    assert 'batch_stats' not in grouped
    assert parameters('resnet18', stem='mnist', remat=True) == plain
    assert count(parameters('resnet50', stem='mnist', width=0.5)['params']) < 25e6 / 3.5
    assert count(parameters('densenet121', stem='mnist', width=0.5)['params']) < 8e6 / 3.5
    assert 'batch_stats' not in parameters('vgg11', stem='mnist')


@pytest.mark.parametrize('name', ['resnet18', slow('resnet50')])
def test_zero_init_makes_every_block_a_shortcut(name, monkeypatch):
    monkeypatch.setitem(resnet.BLOCKS, 18, ((2, 1, 1, 1), False))  # fewer, of both kinds
    monkeypatch.setitem(resnet.BLOCKS, 50, ((2, 1, 1, 1), True))
    model = models.create(name, num_classes=5, stem='cifar', width=0.05, zero_init=True)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    params = jax.jit(model.init)(jax.random.key(0), images)['params']
    zeros = {
        '/'.join(key.key for key in path[:-1])
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == 'scale' and not leaf.any()
    }
    last = 'norm2' if name == 'resnet18' else 'norm3'
    blocks = [block for block in params if 'block' in block]
    assert len(blocks) == 5
    assert zeros == {f'{block}/{last}' for block in blocks}


def test_stochastic_depth_drops_whole_branches_linearly_with_depth():
    rate = 0.5
    plain, dropping = (
        models.create('resnet18', num_classes=5, stem='cifar', width=0.1, stochastic_depth=r)
        for r in (0.0, rate)
    )
    images = jax.random.normal(jax.random.key(1), (64, 8, 8, 1))
    variables = draw_variables(plain, images)
    np.testing.assert_array_equal(
        evaluate(plain, variables, images), evaluate(dropping, variables, images)
    )
    with pytest.raises(Exception, match='dropout'):  # it draws, and so needs a key
        jax.eval_shape(
            lambda: dropping.apply(variables, images, train=True, mutable=['batch_stats'])
        )

    # The branch of block l of 8 is dropped with probability l / 8 x rate, or scaled up.
    bound = dropping.bind(variables, rngs={'dropout': jax.random.key(3)}, mutable=['batch_stats'])
    x = images.repeat(32, 0)[:, :, :, :1] * jnp.ones(51)
    for number, name in ((7, 'stage4_block1'), (8, 'stage4_block2')):
        block = getattr(bound, name)
        assert block.drop_rate == pytest.approx(rate * number / 8)
    kept = block.stochastic_depth(x, True)
    fraction = float((kept.reshape(len(x), -1).any(1)).mean())
    assert fraction == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / len(x)) ** 0.5)
    survivors = kept.reshape(len(x), -1).any(1)
    np.testing.assert_allclose(kept[survivors], x[survivors] / (1 - rate), rtol=1e-6)


@pytest.mark.slow
def test_recomputing_for_memory_changes_nothing(monkeypatch):
    monkeypatch.setitem(resnet.BLOCKS, 18, ((1, 1, 1, 1), False))  # seconds to compile
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    results = []
    for remat in (False, True):
        model = models.create('resnet18', num_classes=5, stem='cifar', width=0.1, remat=remat)
        variables = draw_variables(model, images)

        def loss(params, model=model, variables=variables):
            logits, updated = model.apply(
                {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
            )
            return jnp.square(logits).sum(), updated

        results.append(jax.jit(jax.grad(loss, has_aux=True))(variables['params']))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('lenett', {}, 'no model "lenett".* Did you mean "lenet"'),
        (
            'lenet',
            {'poling': 'max'},
            'takes activation, dropout_rate, initialization, pooling.* mean "pooling"',
        ),
        ('lenet', {'pooling': 'foo'}, 'pooling is "foo", and should be one of max, average'),
        ('lenet', {'dropout_rate': 1.0}, 'at least 0 and below 1'),
        ('lenet', {'dropout_rate': float('nan')}, 'at least 0 and below 1'),
        ('lenet', {'dropout_rate': '0.5'}, 'should be of type float'),
        ('fcn', {'units': 0}, 'units is 0'),
        ('fcn', {'units': True}, 'should be of type int'),
        ('fcn', {'depth': 1.5}, 'should be of type int'),
        ('strided_cnn', {'width': -1}, 'should be at least 0.01'),
        ('strided_cnn', {'downsample': 'pool'}, 'stride, max_pool'),
        ('fcn', {'num_classes': -1}, 'num_classes is -1'),
        ('fcn', {'dtype': 'int8'}, 'floating-point'),
        ('fcn', {'dtype': 'flaot32'}, 'not a number type'),
    ],
)
def test_a_mistake_is_refused_before_anything_is_compiled(name, options, message):
    with pytest.raises(UserError, match=message):
        models.create(name, **({'num_classes': 10} | options))


@pytest.mark.parametrize(
    ('name', 'size'),
    [('lenet', 8), ('deep_cnn', 3), ('vgg11', 31), ('alexnet', 62), ('densenet121', 28)],
)
def test_images_too_small_are_refused_with_the_sum(name, size):
    with pytest.raises(UserError, match=r'too small: .*\(N \+ 2P - F\) / S \+ 1 = '):
        abstract_variables(models.create(name, num_classes=10), (size, size, 3))


def test_images_that_are_not_normalized_are_refused():
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
