"""Every form of a layer gives the numbers of XLA's own, in value and gradient."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import models
from configs import base
from models import convolution, normalization, reduction, winograd
from models.layers import Pool, activate
from models.lowering import Lowering
from tests.support import QUICKLY, on_eight_devices
from training.experiment import Experiment

FORMS = {
    'auto': Lowering().convolve,
    'patches': Lowering('patches').convolve,
    'by_parts': convolution.by_parts,
}
EVERY_FORM = FORMS | {'winograd': winograd.winograd}
CHILD = Path(__file__).with_name('forms_child.py')


def draw(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def value_and_gradients(convolve, x, kernel, weight, stride, padding):
    def total(x, kernel):
        y = convolve(x, kernel, stride, padding)
        return (y * weight).sum(), y

    gradients, y = jax.grad(total, (0, 1), has_aux=True)(x, kernel)
    return y, *gradients


# One program compiles sooner than its many operations.
quickly = functools.partial(jax.jit, compiler_options=QUICKLY)
compiled = quickly(value_and_gradients, static_argnums=(0, 4, 5))


def assert_close(found, expected):
    for array, other in zip(found, expected, strict=True):
        assert array.shape == other.shape
        np.testing.assert_allclose(array, other, atol=1e-5 * max(1, np.abs(other).max()))


def assert_equals_xlas_own(convolve, *arguments):
    assert_close(compiled(convolve, *arguments), compiled(convolution.native, *arguments))


@st.composite
def cases(draw_from, windows=(1, 2, 3, 5), strides=(1, 2, 3)):
    """(batch, height, width, channels, features, window, stride, padding) that fit."""
    window = draw_from(st.sampled_from(windows))
    padding = draw_from(st.integers(0, window // 2))
    sides = st.integers(max(1, window - 2 * padding), 12)
    channels = draw_from(st.sampled_from((1, 3, 8, 9, 20)))
    features = draw_from(st.sampled_from((1, 6, 16, 17)))
    batch = draw_from(st.sampled_from((1, 3, 17, 40)))
    stride = draw_from(st.sampled_from(strides))
    return batch, draw_from(sides), draw_from(sides), channels, features, window, stride, padding


def arguments_of(batch, height, width, channels, features, window, stride, padding):
    """The results of value_and_gradients."""
    # There XLA's own gradient ends the process (jax 0.10.1, a failed check of its algebraic
    # simplifier): the only one of 144 small maps that were looked at. 'auto' does without it.
    assume((window, stride, padding) != (2, 2, 1) or min(height, width) > 1)
    x = draw(batch, height, width, channels, seed=0)
    kernel = draw(window, window, channels, features, seed=1)
    shape = jax.eval_shape(lambda x: convolution.native(x, kernel, stride, padding), x).shape
    return x, kernel, draw(*shape, seed=2), stride, padding


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(sorted(FORMS)))
def test_convolutions_equal_xlas_own(case, form):
    assert_equals_xlas_own(FORMS[form], *arguments_of(*case))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(cases(windows=(3,), strides=(1,)))
def test_winograds_convolution_equals_xlas_own(case):
    assert_equals_xlas_own(winograd.winograd, *arguments_of(*case))


def test_winograds_convolution_is_exact_to_1e_5_with_many_channels():
    x, kernel = draw(4, 7, 7, 512, seed=0), draw(3, 3, 512, 256, seed=1)
    weight = draw(4, 7, 7, 256, seed=2)
    assert_equals_xlas_own(Lowering().convolve, x, kernel, weight, 1, 1)


def test_winograds_convolution_refuses_what_it_is_not_for():
    x = draw(1, 8, 8, 2, seed=0)
    for window, stride in ((5, 1), (3, 2)):
        with pytest.raises(ValueError, match='3x3 kernel and stride 1'):
            winograd.winograd(x, draw(window, window, 2, 2, seed=1), stride, 1)


def test_gradients_are_summed_over_devices():
    for name, runners in json.loads(on_eight_devices(str(CHILD))).items():
        for runner, distance in runners.items():
            assert distance < 1e-5, (name, runner)


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from((10, 60, 400)))
def test_a_kernels_gradient_may_be_summed_over_any_parts(case, enough):
    arguments = arguments_of(*case)
    expected = compiled(convolution.native, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, 'ENOUGH_POSITIONS', enough)
        # Of no function that was compiled before: the number of parts is read when it is traced.
        by_parts = quickly(lambda *arrays: value_and_gradients(
            convolution.by_parts, *arrays, *arguments[3:]))  # fmt: skip
        assert_close(by_parts(*arguments[:3]), expected)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 230), st.integers(1, 230), st.data())
def test_parts_cover_a_batch_once(batch, height, width, data):
    rows = data.draw(st.integers(1, height))
    covered = np.zeros((batch, rows), int)
    parts = list(convolution.parts(batch, height, width, rows))
    for part in parts:
        covered[part] += 1
    assert (covered == 1).all()
    assert len(parts) <= convolution.MOST_PARTS
    if batch * height * width <= convolution.ENOUGH_POSITIONS:
        assert len(parts) == 1


@settings(max_examples=15, deadline=None)
@given(cases(), st.tuples(st.integers(1, 4), st.integers(1, 5)))
def test_a_patch_may_serve_a_tile_of_outputs(case, tile):
    form = functools.partial(convolution.patches, tile=tile)
    assert_equals_xlas_own(form, *arguments_of(*case))


@pytest.mark.parametrize('features', [6, 16, 20])
def test_a_bias_is_added_wherever_it_joins(features):
    x, kernel = draw(9, 8, 7, 3, seed=0), draw(5, 5, 3, features, seed=1)
    weight, bias = draw(9, 8, 7, features, seed=2), draw(features, seed=3)

    def found(convolve):
        def total(x, kernel, bias):
            y = convolve(x, kernel, bias)
            return (y * weight).sum(), y

        gradients, y = quickly(jax.grad(total, (0, 1, 2), has_aux=True))(x, kernel, bias)
        return y, *gradients

    ours = found(lambda x, kernel, bias: Lowering().convolve(x, kernel, 1, 2, bias))
    assert_close(ours, found(lambda x, kernel, bias: convolution.native(x, kernel, 1, 2) + bias))


@pytest.mark.parametrize('form', sorted(EVERY_FORM))
def test_forms_work_in_lanes_and_loops(form):
    xs, kernels = draw(3, 20, 6, 6, 4, seed=0), draw(3, 3, 3, 4, 5, seed=1)
    weight = draw(20, 6, 6, 5, seed=2)

    def one(x, kernel):
        return value_and_gradients(EVERY_FORM[form], x, kernel, weight, 1, 1)

    expected = [
        compiled(convolution.native, *pair, weight, 1, 1) for pair in zip(xs, kernels, strict=True)
    ]
    expected = [np.stack(arrays) for arrays in zip(*expected, strict=True)]
    assert_close(quickly(jax.vmap(one))(xs, kernels), expected)
    loop = quickly(lambda *pairs: jax.lax.map(lambda pair: one(*pair), pairs))
    assert_close(loop(xs, kernels), expected)


def convolutions(lowering, backend, monkeypatch):
    """How many of XLA's convolutions there are in the forward pass of LeNet."""
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    model = models.create('lenet', num_classes=10, lowering=lowering)
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    return str(jax.make_jaxpr(model.apply)(variables, images)).count('conv_general_dilated[')


def test_the_platform_chooses_and_the_user_overrides(monkeypatch):
    assert convolutions(Lowering(), 'cpu', monkeypatch) == 0
    assert convolutions(Lowering(), 'gpu', monkeypatch) == 2
    assert convolutions(Lowering('native'), 'cpu', monkeypatch) == 2
    assert convolutions(Lowering('patches'), 'gpu', monkeypatch) == 0


def test_a_1x1_convolution_is_a_matrix_product_on_cpus():
    """However many the channels: XLA's own takes twice as long in a training step of ResNet-50."""
    arguments = draw(2, 7, 7, 64, seed=0), draw(1, 1, 64, 256, seed=1)
    text = str(jax.make_jaxpr(lambda *pair: Lowering().convolve(*pair, 1, 0))(*arguments))
    assert 'dot_general' in text
    assert 'conv_general_dilated' not in text


@pytest.mark.parametrize(
    ('channels', 'features', 'stride', 'dtype', 'wanted'),
    [
        (256, 256, 1, 'float32', True),
        (128, 256, 1, 'float32', False),
        (256, 128, 1, 'float32', False),
        (256, 256, 2, 'float32', False),
        (256, 256, 1, 'bfloat16', False),
    ],
)
def test_winograds_convolution_is_for_many_channels(channels, features, stride, dtype, wanted):
    x, kernel = jnp.zeros((1, 8, 8, channels), dtype), jnp.zeros((3, 3, channels, features), dtype)
    text = str(jax.make_jaxpr(lambda *pair: Lowering().convolve(*pair, stride, 1))(x, kernel))
    assert text.count('dot_general[') == (16 if wanted else 0)


def test_the_configuration_reaches_the_layers():
    config = base.get_config()
    config.lowering.convolution, config.lowering.pooling = 'native', 'window'
    experiment = Experiment(config, (28, 28, 1), ('a', 'b'), 100)
    assert experiment.spec().model.lowering == Lowering('native', 'window')


@functools.partial(quickly, static_argnums=(1, 2, 3, 4), static_argnames='activation')
def pooled(x, form, *arguments, activation=None):
    """The gradient of something uneven of the maxima, and the maxima."""
    pool = Pool('max', *arguments, lowering=Lowering(pooling=form))

    def total(x):
        before = x if activation else None
        y = pool.apply({}, activate(x, activation) if activation else x, activation, before)
        return jnp.sin(y).sum(), y

    return jax.grad(total, has_aux=True)(x)


@pytest.mark.parametrize('form', ['place', 'pairs'])
@pytest.mark.parametrize('channels', [3, 8])
@pytest.mark.parametrize(
    ('window', 'stride', 'padding'), [(2, 2, 0), (3, 3, 0), (3, 2, 1), (3, 1, 0)]
)
def test_forms_of_pooling(form, channels, window, stride, padding):
    x = np.random.default_rng(0).permutation(2 * 7 * 8 * channels).reshape(2, 7, 8, channels)
    x = x.astype(np.float32) / 100
    found, expected = (pooled(x, name, window, stride, padding) for name in (form, 'window'))
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    lanes = quickly(jax.vmap(lambda x: pooled.__wrapped__(x, form, window, stride, padding)))
    for lane, alone in zip(lanes(np.stack([x, -x])), found, strict=True):
        np.testing.assert_allclose(lane[0], alone, atol=1e-6)


@pytest.mark.parametrize('channels', [3, 8])
@pytest.mark.parametrize('form', ['place', 'pairs', 'window'])
def test_of_equal_maxima_the_first_gets_the_gradient(form, channels):
    x = jnp.ones((1, 4, 4, channels)).at[0, 0, 0].set(0)
    pool = Pool('max', lowering=Lowering(pooling=form))
    gradient = quickly(jax.grad(lambda x: pool.apply({}, x).sum()))(x)
    first = np.tile([[1, 0], [0, 0]], (2, 2))
    # Row by row it is the one to the right; column by column, as the pairs go, the one below.
    first[:2, :2] = [[0, 0], [1, 0]] if form == 'pairs' else [[0, 1], [0, 0]]
    for channel in range(channels):
        np.testing.assert_array_equal(gradient[0, :, :, channel], first)


@pytest.mark.parametrize('channels', [3, 8])
def test_a_nan_spoils_its_window_alone(channels):
    x = np.random.default_rng(0).normal(size=(1, 4, 4, channels)).astype(np.float32)
    x[0, 0, 1] = x[0, 3, 2] = np.nan
    for form in ('place', 'pairs'):
        _, y = pooled(x, form)
        assert np.array_equal(np.isnan(y[0, :, :, 0]), [[True, False], [False, True]])


@pytest.mark.parametrize('form', ['place', 'pairs'])
@pytest.mark.parametrize('channels', [3, 8])
@pytest.mark.parametrize('activation', ['relu', 'tanh'])
def test_pooling_of_what_is_activated_in_either_order(form, channels, activation):
    x = np.random.default_rng(0).normal(size=(2, 7, 8, channels)).astype(np.float32)
    x[0, :4, :4] = -1  # where a whole window is cut off
    expected = quickly(jax.grad(lambda x: jnp.sin(activate(x, activation)[:, :6].reshape(
        2, 3, 2, 4, 2, channels).max((2, 4))).sum()))(x)  # fmt: skip
    found, y = pooled(x, form, activation=activation)
    reference = np.asarray(activate(x, activation))[:, :6].reshape(2, 3, 2, 4, 2, channels)
    np.testing.assert_array_equal(y, reference.max((2, 4)))
    if activation == 'tanh':  # which leaves ties, over which the reference shares the gradient
        found, expected = (np.where(x == -1, 0, array) for array in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('shape', [(6, 5, 7, 3), (130, 4, 4, 70), (2, 8, 8, 600), (3, 2), (40, 2)])
def test_batch_norm_sums_in_two_forms(shape):
    x, weight = draw(*shape, seed=0) + 3, draw(*shape, seed=1)
    mask = jnp.asarray(np.arange(shape[0]) % 3 > 0, jnp.float32)

    def total(x, params, form):
        norm = normalization.BatchNorm(lowering=Lowering(reduction=form))
        variables = {'params': params, 'batch_stats': stats}
        y, new = norm.apply(variables, x, True, mask, mutable=['batch_stats'])
        return (y * weight).sum(), (y, new)

    variables = normalization.BatchNorm().init(jax.random.key(0), x, True)
    params, stats = variables['params'], variables['batch_stats']
    gradient = quickly(jax.grad(total, (0, 1), has_aux=True), static_argnums=2)
    found, expected = (jax.tree.leaves(gradient(x, params, form)) for form in ('wide', 'native'))
    assert_close(found, expected)


def test_norms_sum_wide_rows_on_a_cpu(monkeypatch):
    assert Lowering().sums_wide()
    assert not Lowering(reduction='native').sums_wide()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert not Lowering().sums_wide()
    assert Lowering(reduction='wide').sums_wide()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 24), min_size=2, max_size=4))
def test_positions_stand_side_by_side(shape):
    beside, positions = reduction.side_by_side(shape), int(np.prod(shape[:-1]))
    assert positions % beside == 0
    values = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)
    mask = np.arange(shape[0]) % 3 > 0

    @quickly
    def both(values, mask, row):
        summed = reduction.masked_sum(values, mask, wide=True)
        return summed, reduction.spread(row, tuple(shape))

    found, spread = both(values, mask.astype(np.float32), np.arange(shape[-1]))
    np.testing.assert_array_equal(found, values[mask].reshape(-1, shape[-1]).sum(0))
    np.testing.assert_array_equal(spread, np.broadcast_to(np.arange(shape[-1]), shape))


@pytest.mark.parametrize('wide', [False, True])
def test_a_sum_of_many_is_rounded_little(wide):
    values = draw(100, 60, 60, 2, seed=0) ** 2
    found = reduction.masked_sum(jnp.asarray(values), jnp.ones(100), wide)
    np.testing.assert_allclose(found, values.astype(np.float64).sum((0, 1, 2)), rtol=5e-6)


@pytest.mark.parametrize('wide', [False, True])
def test_padding_is_not_summed(wide):
    values, mask = draw(6, 4, 4, 3, seed=1), np.array([1, 0, 1, 1, 0, 1], np.float32)
    found = reduction.masked_sum(jnp.asarray(values), jnp.asarray(mask), wide)
    expected = values[mask > 0].astype(np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
