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
from models.trace import trace

ROOT = Path(__file__).parents[2]
MNIST, IMAGENET = (28, 28, 1), (224, 224, 3)
# Parameters at 10 classes of MNIST for the small networks; for the others at 1000 of ImageNet, as
# torchvision's table of weights has them.
PARAMETERS = {
    'alexnet': 61_100_840,
    'deep_cnn': 29_034,
    'densenet121': 7_978_856,
    'densenet161': 28_681_000,
    'densenet169': 14_149_480,
    'densenet201': 20_013_928,
    'fcn': 669_706,
    'lenet': 61_706,
    'resnet18': 11_689_512,
    'resnet34': 21_797_672,
    'resnet50': 25_557_032,
    'resnet101': 44_549_160,
    'resnet152': 60_192_808,
    'strided_cnn': 3_916_234,
    'vgg11': 132_863_336,
    'vgg11_bn': 132_868_840,
    'vgg13': 133_047_848,
    'vgg13_bn': 133_053_736,
    'vgg16': 138_357_544,
    'vgg16_bn': 138_365_992,
    'vgg19': 143_667_240,
    'vgg19_bn': 143_678_248,
}
BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)


def resnet(channels):
    sizes = zip((56, 28, 14, 7), (4, 8, 16, 32), channels, strict=True)
    stages = {f'stage{i}': ((n, n, c), s) for i, (n, s, c) in enumerate(sizes, start=1)}
    return {'stem': ((112, 112, 64), 2), **stages}


def densenet(first, *channels):
    sizes = zip((56, 28, 14, 7), (4, 8, 16, 32), channels, strict=True)
    blocks = {f'block{i}': ((n, n, c), s) for i, (n, s, c) in enumerate(sizes, start=1)}
    return {'stem': ((112, 112, first), 2), **blocks, 'norm': blocks['block4']}


VGG = {
    'block1': ((224, 224, 64), 1), 'pool1': ((112, 112, 64), 2),
    'block2': ((112, 112, 128), 2), 'pool2': ((56, 56, 128), 4),
    'block3': ((56, 56, 256), 4), 'pool3': ((28, 28, 256), 8),
    'block4': ((28, 28, 512), 8), 'pool4': ((14, 14, 512), 16),
    'block5': ((14, 14, 512), 16), 'pool5': ((7, 7, 512), 32),
    'dense1': ((4096,), None), 'dense2': ((4096,), None),
}  # fmt: skip
# name -> stage -> (shape, stride in pixels of the image).
STAGES = {
    'alexnet': {
        'conv1': ((55, 55, 64), 4),
        'pool1': ((27, 27, 64), 8),
        'conv2': ((27, 27, 192), 8),
        'pool2': ((13, 13, 192), 16),
        'conv3': ((13, 13, 384), 16),
        'conv4': ((13, 13, 256), 16),
        'conv5': ((13, 13, 256), 16),
        'pool5': ((6, 6, 256), 32),
        'dense1': ((4096,), None),
        'dense2': ((4096,), None),
    },
    'deep_cnn': {
        'conv1': ((28, 28, 16), 1),
        'pool1': ((14, 14, 16), 2),
        'conv2': ((14, 14, 32), 2),
        'pool2': ((7, 7, 32), 4),
    },
    'fcn': {'dense1': ((512,), None), 'dense2': ((512,), None)},
    'lenet': {
        'conv1': ((28, 28, 6), 1),
        'pool1': ((14, 14, 6), 2),
        'conv2': ((10, 10, 16), 2),
        'pool2': ((5, 5, 16), 4),
        'dense1': ((120,), None),
        'dense2': ((84,), None),
    },
    'strided_cnn': {
        'conv1': ((28, 28, 64), 1),
        'conv2': ((14, 14, 128), 2),
        'conv3': ((7, 7, 256), 4),
        'conv4': ((4, 4, 512), 8),
        'conv5': ((2, 2, 512), 16),
    },
    'densenet121': densenet(64, 256, 512, 1024, 1024),
    'densenet161': densenet(96, 384, 768, 2112, 2208),
    'densenet169': densenet(64, 256, 512, 1280, 1664),
    'densenet201': densenet(64, 256, 512, 1792, 1920),
    **{f'resnet{n}': resnet(BASIC) for n in (18, 34)},
    **{f'resnet{n}': resnet(BOTTLENECK) for n in (50, 101, 152)},
    **{f'vgg{n}{suffix}': VGG for n in (11, 13, 16, 19) for suffix in ('', '_bn')},
}
# The smallest of each family, small, for what has to be compiled: options and size of the image.
SMALL = {
    'alexnet': ({'stem': 'cifar', 'width': 0.05}, 12),
    'deep_cnn': ({}, 12),
    'densenet121': ({'stem': 'mnist', 'width': 0.25}, 16),
    'fcn': ({'units': 32}, 12),
    'lenet': ({}, 12),
    'resnet18': ({'stem': 'cifar', 'width': 0.1}, 12),
    'strided_cnn': ({'width': 0.05}, 12),
    'vgg11_bn': ({'stem': 'cifar', 'width': 0.05}, 16),
}
# What pools its last stage globally for its features.
POOLED = ('densenet', 'resnet', 'strided')
every_model = pytest.mark.parametrize('name', models.names())


def image_of(name):
    return MNIST if PARAMETERS[name] < 5e6 else IMAGENET


def classes_of(name):
    return 10 if image_of(name) == MNIST else 1000


def abstract_variables(model, shape=MNIST):
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images), images


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def draw_variables(model, images):
    """Weights as initialisation has them but for the numbers: compiling it takes longer."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key != 'kernel':
            return (
                jnp.ones(leaf.shape) if path[-1].key in ('scale', 'var') else jnp.zeros(leaf.shape)
            )
        return jnp.asarray(rng.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5,
                           jnp.float32)  # fmt: skip

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope='module', params=SMALL)
def small(request):
    """Model, variables and images [8, h, w, 1] for each family, compiled once."""
    return make_small(request.param)


def make_small(name):
    options, size = SMALL[name]
    model = models.create(name, num_classes=5, **options)
    images = jax.random.normal(jax.random.key(1), (8, size, size, 1))
    return model, draw_variables(model, images), images


# DenseNet-121 takes five times as long to compile as all others together.
@pytest.fixture(
    scope='module',
    params=[pytest.param(n, marks=pytest.mark.full if n == 'densenet121' else ()) for n in SMALL],
)
def quick(request):
    """As `small`; without DenseNet but in the full matrix."""
    return make_small(request.param)


@functools.partial(jax.jit, static_argnames='model')
def evaluate(model, variables, images):
    return model.apply(variables, images)


@functools.partial(jax.jit, static_argnames='model')
def train(model, variables, images, seed=0, mask=None):
    rngs = {'dropout': jax.random.key(seed)}
    return model.apply(variables, images, train=True, mask=mask, mutable=['batch_stats'], rngs=rngs)


def test_names_and_importing_start_nothing():
    assert set(models.names()) == set(PARAMETERS)
    assert models.names()[:3] == ('alexnet', 'deep_cnn', 'densenet121')
    assert models.names()[8:13] == tuple(f'resnet{n}' for n in (18, 34, 50, 101, 152))
    code = (
        'import models; from jax._src import xla_bridge;'
        'assert not xla_bridge.backends_are_initialized()'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=120)


@every_model
def test_parameters_and_stages_are_as_declared(name):
    model = models.create(name, num_classes=classes_of(name))
    variables, images = abstract_variables(model, image_of(name))
    assert count(variables['params']) == PARAMETERS[name]
    assert set(variables) <= {'params', 'batch_stats'}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method=model.stages), variables, images)
    assert isinstance(stages, OrderedDict)
    assert [(k, v.shape[1:]) for k, v in stages.items()] == [
        (stage, shape) for stage, (shape, _) in STAGES[name].items()
    ]
    traced = trace(model, image_of(name)).stages
    assert [(k, s.stride) for k, s in traced.items()] == [
        (stage, stride) for stage, (_, stride) in STAGES[name].items()
    ]


@every_model
def test_without_head_it_gives_features(name):
    headless = models.create(name, num_classes=0)
    variables, images = abstract_variables(headless, image_of(name))
    head = abstract_variables(headless.clone(num_classes=7), image_of(name))[0]['params']['head']
    assert 'head' not in variables['params']
    assert count(variables['params']) == PARAMETERS[name] - head['kernel'].shape[0] * (
        classes_of(name)
    ) - classes_of(name)
    features = jax.eval_shape(headless.apply, variables, images)
    assert features.shape == (2, head['kernel'].shape[0])


@every_model
@pytest.mark.parametrize(('stem', 'shape'), [('mnist', MNIST), ('cifar', (32, 32, 3))])
def test_small_images_have_a_stem(name, stem, shape):
    if 'stem' not in models.options(name):
        stem = None
    model = models.create(name, num_classes=10, **({'stem': stem} if stem else {}))
    first, second, *_, last = (x for x in trace(model, shape).layers if 'norm' not in x.kind)
    assert last.out_shape == (10,)
    if not stem:
        return
    # A first convolution of 3x3, and no pooling where large images have their first.
    assert (first.kind, first.window) == ('convolution', 3)
    assert first.stride == (2 if stem == 'mnist' and not name.startswith('vgg') else 1)
    assert second.kind == 'convolution'


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


@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_zero_init_makes_every_block_a_shortcut(name):
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
        dropping.apply(variables, images, train=True, mutable=['batch_stats'])

    # The branch of block l of 8 is dropped with probability l / 8 x rate, or scaled up.
    bound = dropping.bind(variables, rngs={'dropout': jax.random.key(3)}, mutable=['batch_stats'])
    x = images.repeat(32, 0)[:, :, :, :1] * jnp.ones(51)
    for number, name in ((7, 'stage4_block1'), (8, 'stage4_block2')):
        block = getattr(bound, name)
        assert block.drop_rate == pytest.approx(rate * number / 8)
    kept = block.stochastic_depth(x, True)
    share = float((kept.reshape(len(x), -1).any(1)).mean())
    assert share == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / len(x)) ** 0.5)
    survivors = kept.reshape(len(x), -1).any(1)
    np.testing.assert_allclose(kept[survivors], x[survivors] / (1 - rate), rtol=1e-6)


def test_recomputing_for_memory_changes_nothing():
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


def test_the_logits_come_from_the_last_stage(small):
    model, variables, images = small
    headless = model.clone(num_classes=0)

    @jax.jit
    def outputs(variables):
        stages = model.apply(variables, images, method=model.stages)
        features = headless.apply(variables, images)
        return list(stages.values())[-1], features, model.apply(variables, images)

    last, features, logits = outputs(variables)
    pooled = last.mean((1, 2)) if type(model).__name__.lower().startswith(POOLED) else last
    np.testing.assert_allclose(features, pooled.reshape(8, -1), atol=1e-6)
    head = variables['params']['head']
    assert logits.shape == (8, 5)
    np.testing.assert_allclose(logits, features @ head['kernel'] + head['bias'], atol=1e-5)


def test_training_differs_by_batch_norm(small):
    model, variables, images = small
    evaluated = evaluate(model, variables, images)
    trained, _ = train(model, variables, images)
    if 'batch_stats' in variables:
        assert float(abs(trained - evaluated).max()) > 1e-3
    else:
        np.testing.assert_array_equal(trained, evaluated)


def test_training_differs_by_dropout(quick):
    model, variables, images = quick
    without, _ = train(model, variables, images)
    dropping = model.clone(dropout_rate=0.5)
    np.testing.assert_array_equal(
        evaluate(dropping, variables, images), evaluate(model, variables, images)
    )
    first, again = (train(dropping, variables, images, seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert float(abs(first - without).max()) > 1e-3
    assert float(abs(first - train(dropping, variables, images, seed=2)[0]).max()) > 1e-3


def test_padding_does_not_change_real_examples(quick):
    model, variables, images = quick
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
    trained, updated = train(low, variables, images)
    assert trained.dtype == jnp.float32
    assert np.isfinite(trained).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    stages = jax.eval_shape(lambda: low.apply(variables, images, method=low.stages))
    assert all(stage.dtype == jnp.bfloat16 for stage in stages.values())
    # bfloat16 has 8 significant bits. At evaluation: eight examples' statistics of a 1x1 map
    # would magnify its rounding from layer to layer, and tell nothing of the network.
    logits, exact = evaluate(low, variables, images), evaluate(model, variables, images)
    distance = float(jnp.linalg.norm(logits - exact) / jnp.linalg.norm(exact))
    assert 0 < distance < 0.02


@pytest.mark.full
@every_model
def test_every_model_compiles_and_keeps_the_contract(name):
    """What the tests above ask of one of each family, of all: minutes each for the deepest."""
    small = {'width': 0.25, 'stem': 'cifar'} if image_of(name) == IMAGENET else {}
    model = models.create(name, num_classes=5, **small)
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    case = model, draw_variables(model, images), images
    test_training_differs_by_batch_norm(case)
    test_every_parameter_gets_a_gradient(case)
    test_bfloat16_is_finite_and_near(case)


def test_a_population_of_dropout_rates_equals_its_members(quick):
    model, variables, images = quick
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


@pytest.mark.parametrize(
    ('name', 'size'),
    [('lenet', 8), ('deep_cnn', 3), ('vgg11', 31), ('alexnet', 62), ('densenet121', 28)],
)
def test_images_too_small_are_refused_with_the_sum(name, size):
    with pytest.raises(UserError, match=r'too small: .*\(N \+ 2P - F\) / S \+ 1 = '):
        abstract_variables(models.create(name, num_classes=10), (size, size, 3))


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
