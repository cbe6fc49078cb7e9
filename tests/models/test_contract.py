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
from models import densenet, resnet
from models.trace import trace
from tests.models.declared import (
    FEW,
    IMAGENET,
    MNIST,
    PARAMETERS,
    POOLED,
    SMALL,
    STAGES,
    abstract_variables,
    classes_of,
    count,
    draw_variables,
    evaluate,
    image_of,
    make_small,
    train,
)
from tests.support import most_slow

pytestmark = pytest.mark.usefixtures('compiled_in_haste')

ROOT = Path(__file__).parents[2]
every_model = pytest.mark.parametrize('name', most_slow(models.names(), FEW))


@pytest.fixture(params=most_slow(SMALL, ('deep_cnn', 'fcn', 'lenet')))
def small(request, monkeypatch):
    """Model, variables and images [8, h, w, 1] for each family; what is compiled is kept by JAX."""
    # Fewer of the same blocks, which compile in seconds; the whole networks: see below.
    monkeypatch.setitem(densenet.BLOCKS, 121, ((2, 2, 2, 2), 32))
    monkeypatch.setitem(resnet.BLOCKS, 18, ((1, 1, 1, 1), False))
    return make_small(request.param)


def test_names_and_importing_start_nothing():
    assert set(models.names()) == set(PARAMETERS)
    assert models.names()[:3] == ('alexnet', 'deep_cnn', 'densenet121')
    assert models.names()[8:13] == tuple(f'resnet{n}' for n in (18, 34, 50, 101, 152))
    code = (
        'import models; from jax._src import xla_bridge;'
        'assert not xla_bridge.backends_are_initialized()'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=120)


@functools.cache
def whole(name):
    """The network as declared, its variables without numbers, and two images."""
    model = models.create(name, num_classes=classes_of(name))
    return model, *abstract_variables(model, image_of(name))


@every_model
def test_parameters_and_stages_are_as_declared(name):
    model, variables, images = whole(name)
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
    head = whole(name)[1]['params']['head']
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


def test_training_differs_by_dropout(small):
    model, variables, images = small
    without, _ = train(model, variables, images)
    dropping = model.clone(dropout_rate=0.5)
    np.testing.assert_array_equal(
        evaluate(dropping, variables, images), evaluate(model, variables, images)
    )
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


@pytest.mark.full
def test_the_whole_densenet_keeps_the_contract():
    """Besides what is asked of every model above.

    In float64: over 120 layers of batch norm two programs in float32 come apart by more than a
    short network's rounding (up to 4e-5 on some machines).
    """
    with jax.enable_x64(True):
        model, *arrays = make_small('densenet121')
        variables, images = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arrays)
        case = model.clone(dtype=jnp.float64, param_dtype=jnp.float64), variables, images
        test_training_differs_by_dropout(case)
        test_padding_does_not_change_real_examples(case)
        test_a_population_of_dropout_rates_equals_its_members(case)


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
