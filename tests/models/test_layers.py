"""Each layer's values against an independent slow version, and dropout's statistics."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from errors import UserError
from models import convolution, layers, normalization
from tests.support import QUICKLY, most_slow


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ('size', 'window', 'stride', 'padding'),
    # The last four take the way of patches: a map is smaller than the window.
    [
        (9, 5, 1, 2),
        (10, 3, 2, 1),
        (9, 3, 2, 1),
        (8, 3, 3, 0),
        (4, 3, 2, 1),
        (2, 3, 1, 1),
        (5, 5, 1, 0),
        (1, 3, 2, 1),
    ],
)
def test_convolution_equals_scipy(size, window, stride, padding):
    x = draw(2, size, size + 1, 3)
    conv = layers.Conv(4, window, stride, padding)
    params = {'kernel': draw(window, window, 3, 4, seed=1), 'bias': draw(4, seed=2)}

    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    expected = np.zeros((2, *((n + 2 * padding - window) // stride + 1 for n in x.shape[1:3]), 4))
    for b in range(2):
        for k in range(4):
            full = correlate(padded[b], params['kernel'][..., k], mode='valid')[..., 0]
            expected[b, ..., k] = full[::stride, ::stride] + params['bias'][k]
    found = conv.apply({'params': params}, x)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(('size', 'stride'), [(2, 1), (4, 2), (5, 2), (1, 1)])
def test_convolution_by_patches_has_the_gradient_of_the_other(size, stride):
    x, kernel = draw(2, size, size, 3), draw(3, 3, 3, 4, seed=1)

    def by_patches(x, kernel):
        return jnp.sin(convolution.patches(x, kernel, stride, 1)).sum()

    def by_lax(x, kernel):
        layout = ('NHWC', 'HWIO', 'NHWC')
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=layout
        )
        return jnp.sin(y).sum()

    gradients = (
        jax.jit(jax.grad(f, (0, 1)), compiler_options=QUICKLY)(x, kernel)
        for f in (by_patches, by_lax)
    )
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    'shape', most_slow([(2, 8, 8, 3), (2, 7, 9, 3), (1, 3, 4, 1)], [(2, 7, 9, 3)])
)
@pytest.mark.parametrize(
    ('kind', 'window', 'stride', 'padding'),
    [('max', 2, 2, 0), ('average', 2, 2, 0), ('max', 3, 2, 0), ('max', 3, 2, 1), ('max', 3, 1, 1)],
)
def test_pooling_equals_flax_in_value_and_gradient(kind, window, stride, padding, shape):
    # A permutation has no ties, in which the forms share the gradient differently.
    count = int(np.prod(shape))
    x = np.random.default_rng(0).permutation(count).reshape(shape).astype(np.float32) / count
    reference = nn.max_pool if kind == 'max' else nn.avg_pool

    def ours(x):
        return layers.Pool(kind, window, stride, padding).apply({}, x)

    def flax(x):
        return reference(x, (window,) * 2, (stride,) * 2, [(padding, padding)] * 2)

    def value_and_gradient(f):
        def total(x):
            y = f(x)
            return jnp.sin(3 * y).sum(), y

        return jax.jit(jax.grad(total, has_aux=True), compiler_options=QUICKLY)(x)

    (found, y), (expected, z) = map(value_and_gradient, (ours, flax))
    np.testing.assert_allclose(y, z, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_padding_never_wins():
    x = -1 - np.abs(draw(1, 4, 4, 2))  # all negative: zeros as padding would win
    found = layers.Pool('max', 3, 2, 1).apply({}, x)
    assert found.max() <= -1
    assert found.dtype == jnp.float32
    assert layers.Pool('max', 3, 2, 1).apply({}, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(('size', 'pooled'), [(7, 4), (8, 4), (1, 1), (3, 2)])
def test_max_pooling_with_ceil_keeps_the_border(size, pooled):
    x = -1 - np.abs(draw(2, size, size, 3))
    pool = layers.Pool('max', ceil=True)
    found = pool.apply({}, x)
    expected = np.full((2, pooled, pooled, 3), -np.inf)
    for i in range(size):
        for j in range(size):
            here = expected[:, i // 2, j // 2]
            np.maximum(here, x[:, i, j], out=here)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    gradient = jax.grad(lambda x: pool.apply({}, x).sum())(jnp.asarray(x))
    assert gradient.sum() == found.size


def test_what_pooling_cannot_do_is_refused():
    x = jnp.zeros((1, 6, 6, 1))
    with pytest.raises(ValueError, match='side by side'):
        layers.Pool('average', 3, 2).apply({}, x)
    for kind, window in (('average', 2), ('max', 3)):
        with pytest.raises(ValueError, match='ceil belongs to max'):
            layers.Pool(kind, window, 2, ceil=True).apply({}, x)
    with pytest.raises(ValueError, match='by average'):
        layers.AdaptivePool('max', 2).apply({}, x)
    with pytest.raises(UserError, match=r'Pool slides a window of 7 .* is below 1'):
        layers.Pool('max', 7).apply({}, x)


@pytest.mark.parametrize(('height', 'width', 'size'), [(5, 8, 3), (2, 1, 4), (6, 6, 6), (7, 9, 2)])
def test_adaptive_pooling_is_the_mean_of_each_bin(height, width, size):
    x = draw(2, height, width, 3).astype(np.float64)
    expected = np.zeros((2, size, size, 3))
    for i in range(size):
        for j in range(size):
            rows = slice(i * height // size, math.ceil((i + 1) * height / size))
            columns = slice(j * width // size, math.ceil((j + 1) * width / size))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    found = layers.AdaptivePool('average', size).apply({}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(('channels', 'groups'), [(64, 32), (48, 16), (5, 1), (7, 1)])
def test_group_norm_equals_flax(channels, groups):
    x = jnp.asarray(draw(3, 4, 5, channels)) * 3 + 7
    params = {'scale': draw(channels, seed=1), 'bias': draw(channels, seed=2)}
    found = normalization.GroupNorm().apply({'params': params}, x, True)
    reference = nn.GroupNorm(groups, epsilon=1e-5).apply({'params': params}, x)
    np.testing.assert_allclose(found, reference, atol=1e-4)


@pytest.mark.parametrize('globs', [('norm/*',), ('norm/scale', '*bias'), ('*',)])
def test_a_frozen_batch_norm_keeps_its_statistics(globs):
    class Net(nn.Module):
        frozen: tuple = ()

        @nn.compact
        def __call__(self, x, train):
            return normalization.BatchNorm(frozen=self.frozen, name='norm')(x, train)

    x = jnp.asarray(draw(6, 3))
    variables = Net().init(jax.random.key(0), x, False)
    y, updated = Net(globs).apply(variables, x, True, mutable=['batch_stats'])
    jax.tree.map(np.testing.assert_array_equal, updated['batch_stats'], variables['batch_stats'])
    np.testing.assert_array_equal(y, Net().apply(variables, x, False))
    # Half a norm is not frozen.
    _, updated = Net(('norm/scale',)).apply(variables, x, True, mutable=['batch_stats'])
    assert updated['batch_stats']['norm']['mean'].any()


@pytest.mark.parametrize('kind', ['max', 'average'])
def test_global_pooling(kind):
    x = draw(2, 3, 5, 4)
    flat = x.reshape(2, 15, 4)
    expected = flat.max(1) if kind == 'max' else flat.astype(np.float64).mean(1)
    np.testing.assert_allclose(layers.global_pool(x, kind), expected, atol=1e-6)


def test_dense_and_activations():
    factory = layers.LayerFactory(jnp.float32, jnp.float32, 0.0, None)
    x, kernel, bias = draw(3, 5), draw(5, 4, seed=1), draw(4, seed=2)
    y = factory.dense(4).apply({'params': {'kernel': kernel, 'bias': bias}}, x)
    np.testing.assert_allclose(y, x.astype(np.float64) @ kernel + bias, atol=1e-5)
    np.testing.assert_array_equal(layers.activate(x, 'relu'), np.where(x > 0, x, 0))
    np.testing.assert_allclose(layers.activate(x, 'tanh'), np.tanh(x.astype(np.float64)), atol=1e-6)


def test_weights_start_he_normal_and_biases_at_zero():
    factory = layers.LayerFactory(jnp.float32, jnp.float32, 0.0, None)
    for layer, x, fan_in in [
        (factory.conv(256, 3), jnp.ones((1, 4, 4, 32)), 288),
        (factory.dense(512), jnp.ones((1, 200)), 200),
    ]:
        params = layer.init(jax.random.key(0), x)['params']
        assert float(params['kernel'].std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
        assert abs(float(params['kernel'].mean())) < 0.02 * (2 / fan_in) ** 0.5
        assert not params['bias'].any()
    key, shape = jax.random.key(3), (3, 3, 2, 4)
    expected = nn.initializers.he_normal()(key, shape, jnp.float32)
    np.testing.assert_allclose(layers.he_normal(key, shape, jnp.float32), expected, rtol=1e-6)


def test_uniform_weights_fill_the_range_that_pytorch_takes():
    factory = layers.LayerFactory(jnp.float32, jnp.float32, initialization='uniform')
    for layer, x, fan_in in [
        (factory.conv(256, 3), jnp.ones((1, 4, 4, 32)), 288),
        (factory.dense(512), jnp.ones((1, 200)), 200),
    ]:
        kernel = layer.init(jax.random.key(0), x)['params']['kernel']
        bound = fan_in**-0.5
        assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
        assert float(kernel.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
        assert abs(float(kernel.mean())) < 0.02 * bound


def slow_batch_norm(x, scale, bias, mean, var):
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize('shape', [(6, 4, 3, 5), (6, 5)])
def test_batch_norm_counts_real_examples_only(shape):
    x = draw(*shape).astype(np.float64) * 3 + 50  # a mean far from 0: one pass would cancel
    mask = np.array([1, 0, 1, 1, 0, 1], np.float32)
    variables = {
        'params': {'scale': draw(5, seed=1), 'bias': draw(5, seed=2)},
        'batch_stats': {'mean': draw(5, seed=3), 'var': np.abs(draw(5, seed=4))},
    }
    norm = normalization.BatchNorm()
    args = variables['params'].values()

    real = x[mask > 0].reshape(-1, 5)
    mean, var = real.mean(0), real.var(0)
    y, updated = norm.apply(
        variables, jnp.asarray(x, jnp.float32), True, jnp.asarray(mask), mutable=['batch_stats']
    )
    np.testing.assert_allclose(y, slow_batch_norm(x, *args, mean, var), atol=2e-5)
    old, new = variables['batch_stats'], updated['batch_stats']
    np.testing.assert_allclose(new['mean'], 0.9 * old['mean'] + 0.1 * mean, rtol=1e-6)
    unbiased = real.var(0, ddof=1)
    np.testing.assert_allclose(new['var'], 0.9 * old['var'] + 0.1 * unbiased, rtol=1e-5)

    evaluated = norm.apply(variables, jnp.asarray(x, jnp.float32), False)
    expected = slow_batch_norm(x, *args, old['mean'], old['var'])
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4)


def test_batch_norm_of_one_and_of_no_example():
    norm, x = normalization.BatchNorm(), jnp.asarray(draw(3, 4))
    variables = norm.init(jax.random.key(0), x, True)
    assert not variables['batch_stats']['mean'].any(), 'initialization takes no step'
    one, none = jnp.array([0, 1.0, 0]), jnp.zeros(3)
    y, updated = norm.apply(variables, x, True, one, mutable=['batch_stats'])
    assert np.isfinite(y).all()
    np.testing.assert_allclose(updated['batch_stats']['mean'], 0.1 * x[1], rtol=1e-6)
    np.testing.assert_allclose(updated['batch_stats']['var'], 0.9 * np.ones(4), rtol=1e-6)
    y, updated = norm.apply(variables, x, True, none, mutable=['batch_stats'])
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, updated['batch_stats'], variables['batch_stats'])


def test_batch_norm_keeps_float32_statistics_in_bfloat16():
    x = jnp.asarray(draw(64, 8, 8, 2) + 10, jnp.bfloat16)
    norm = normalization.BatchNorm(dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x, True)
    y, updated = norm.apply(variables, x, True, mutable=['batch_stats'])
    exact = np.asarray(x, np.float64).mean((0, 1, 2))
    assert y.dtype == jnp.bfloat16
    assert updated['batch_stats']['mean'].dtype == jnp.float32
    np.testing.assert_allclose(updated['batch_stats']['mean'], 0.1 * exact, rtol=1e-5)


def drop(x, rate, seed=0, train=True):
    return layers.Dropout(rate).apply({}, x, train, rngs={'dropout': jax.random.key(seed)})


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_dropout_keeps_the_fraction_and_the_mean(rate):
    x = jnp.ones((400, 500))
    dropped, traced = drop(x, rate), jax.jit(drop)(x, rate)
    np.testing.assert_array_equal(dropped, traced)
    kept = float((dropped != 0).mean())
    assert abs(kept - (1 - rate)) < 5 * (rate * (1 - rate) / x.size) ** 0.5
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - rate)], rtol=1e-6)


def test_dropout_depends_on_the_key_and_on_nothing_else():
    x = jnp.ones((20, 20))
    np.testing.assert_array_equal(drop(x, 0.5, seed=1), drop(x, 0.5, seed=1))
    assert (drop(x, 0.5, seed=1) != drop(x, 0.5, seed=2)).mean() > 0.3


def test_dropout_of_rate_zero_and_at_evaluation_is_the_identity():
    x = jnp.asarray(draw(50, 50))
    np.testing.assert_array_equal(jax.jit(drop)(x, 0.0), x)
    gradient = jax.jit(jax.grad(lambda x, rate: drop(x, rate).sum()))(x, 0.0)
    np.testing.assert_array_equal(gradient, jnp.ones_like(x))
    np.testing.assert_array_equal(drop(x, 0.5, train=False), x)
    assert layers.Dropout(0.0).apply({}, x, True) is x, 'a static 0 needs no rng'


def test_dropout_in_bfloat16_scales_by_the_rate_in_float32():
    dropped = drop(jnp.ones((64, 64), jnp.bfloat16), 0.1)
    assert dropped.dtype == jnp.bfloat16
    assert set(np.unique(dropped.astype(jnp.float32))) == {0, float(jnp.bfloat16(1 / 0.9))}
