"""The step on one device: against PyTorch, accumulation, averaged weights, bfloat16, inputs.

What needs several devices is in test_runners.py.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.special import log_softmax

import models
from tasks.classification import Classification
from tests.golden import make_lenet_step
from tests.support import QUICKLY, slow
from tests.training import probe
from training import optimizers, state, step
from training.spec import StepSpec

HYPER = {
    'seed': np.uint32(1),
    'learning_rate': np.float32(0.1),
    'weight_decay': np.float32(0.0),
    'label_smoothing': np.float32(0.0),
    'momentum': np.float32(0.9),
}
SIZE, CLASSES = 8, 5


def constant(step):
    return 1.0


@functools.cache
def spec_of(network, dtype=jnp.float32, **options):
    small = {'units': 24} if network == 'fcn' else {}
    model = models.create(network, num_classes=CLASSES, dtype=dtype, **small)
    task = Classification(CLASSES)
    return StepSpec(model, task, 'sgd', constant, (0.5,), (0.3,), **options)


def start_of(spec, shape=(SIZE, SIZE, 1)):
    return create(spec.model, spec.clip, shape, spec.ema)


@functools.cache
def create(model, clip, shape, ema):
    optimizer = optimizers.make('sgd', HYPER | {'clip_norm': 1.0}, clip=clip)
    return jax.jit(lambda seed: state.create(model, optimizer, shape, seed, ema))(np.uint32(0))


def batch_of(count, seed=0):
    """A batch that brings its own images, which have no ties under max pooling."""
    draw = np.random.default_rng(seed)
    return {
        'index': np.arange(count, dtype=np.int32),
        'epoch': np.zeros(count, np.int32),
        'mask': np.ones(count, np.float32),
        'image': draw.integers(0, 256, (count, SIZE, SIZE, 1)).astype(np.uint8),
        'label': draw.integers(0, CLASSES, count).astype(np.int32),
    }


STEPS = []  # (spec, its compiled step): one that has a dict cannot be a key


def compiled(spec):
    for other, call in STEPS:
        if other == spec:
            return call
    STEPS.append(
        (spec, jax.jit(functools.partial(step.train_step, spec), compiler_options=QUICKLY))
    )
    return STEPS[-1][1]


def run(spec, batch, hyper=HYPER, dataset=None, steps=1, first=None):
    now = first or start_of(spec)
    history = []
    for _ in range(steps):
        now, metrics = compiled(spec)(now, hyper, batch, dataset or {})
        history.append(now)
    return now, metrics, history


def gradient(after):
    """Momentum's first trace is the gradient."""
    return next(part.trace for part in after.opt_state if hasattr(part, 'trace'))


def assert_close(found, expected, tolerance):
    """Every array within `tolerance` of the largest number of its tree."""
    found, expected = (flatten_dict(jax.device_get(tree), sep='/') for tree in (found, expected))
    assert found.keys() == expected.keys()
    scale = max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= tolerance * scale, name


GOLDEN = json.loads(Path(make_lenet_step.__file__).with_name('lenet_step.json').read_text())


@pytest.fixture(scope='module')
def golden_outcome():
    images, labels = make_lenet_step.batch()
    model = models.create('lenet', num_classes=10)
    # Standardisation divides by 255 and then by this: the images come through unchanged.
    spec = StepSpec(model, Classification(10), 'sgd', lambda _: 1.0, (0.0,), (1 / 255,))
    params = {k: v.astype(np.float32) for k, v in make_lenet_step.parameters().items()}
    hyper = HYPER | {'learning_rate': np.float32(GOLDEN['learning_rate'])}
    first = start_of(spec, (28, 28, 1)).replace(params=unflatten_dict(params, sep='/'))
    batch = batch_of(8) | {'image': images.astype(np.float32), 'label': labels.astype(np.int32)}
    after, metrics, _ = run(spec, batch, hyper, first=first)
    compiled_loss = jax.jit(lambda v: step.eval_step(spec, v, batch, {})[0]['loss'])
    return params, after, metrics, compiled_loss(after.variables())


class TestGolden:
    """One step of LeNet against PyTorch's, in float64 (tests/golden/make_lenet_step.py).

    Make lenet_step.json anew only when the formulas in that file change, or LeNet is meant to
    become another network. If this fails for any other reason, the step is wrong, not the file.
    """

    def test_loss(self, golden_outcome):
        _, _, metrics, later = golden_outcome
        assert float(metrics['loss']) / 8 == pytest.approx(GOLDEN['loss_before'], rel=1e-6)
        assert float(later) / 8 == pytest.approx(GOLDEN['loss_after'], rel=1e-6)

    def test_gradient_and_updated_parameters(self, golden_outcome):
        before, after, metrics, _ = golden_outcome
        found = flatten_dict(jax.device_get(gradient(after)), sep='/')
        updated = flatten_dict(jax.device_get(after.params), sep='/')
        assert found.keys() == updated.keys() == GOLDEN['gradients'].keys()
        for name, expected in GOLDEN['gradients'].items():
            summary = make_lenet_step.summary(found[name].astype(np.float64))
            assert summary == pytest.approx(expected, abs=2e-5 * expected['norm']), name
            total = updated[name].sum(dtype=np.float64)
            # Rounding each weight to float32 moves the sum by a few parts in ten million.
            room = 1e-7 * float(np.abs(before[name]).sum()) + 1e-7
            assert total == pytest.approx(GOLDEN['updated_sums'][name], abs=room), name
        norm = math.sqrt(sum(g['norm'] ** 2 for g in GOLDEN['gradients'].values()))
        assert float(metrics['grad_norm']) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize(
    ('parts', 'unroll'), [(2, True), slow(2, False), slow(4, True), (4, False)]
)
def test_micro_batches_add_up_to_the_batch(parts, unroll):
    batch = batch_of(16)
    batch['mask'][[1, 2, 3, 9]] = 0
    hyper = HYPER | {'label_smoothing': np.float32(0.1)}
    whole, expected, _ = run(spec_of('fcn'), batch, hyper)
    spec = spec_of('fcn', accumulate=parts, unroll=unroll)
    after, metrics, _ = run(spec, batch, hyper)
    assert_close(gradient(after), gradient(whole), 1e-6)
    assert_close(after.params, whole.params, 1e-6)
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-6
    )


@pytest.mark.parametrize('unroll', [slow(True), False])
def test_running_statistics_are_updated_by_each_micro_batch(unroll):
    batch = batch_of(8)
    spec = spec_of('deep_cnn', accumulate=2, unroll=unroll)
    first = start_of(spec)
    after, _, _ = run(spec, batch)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def forward(stats, images):
        variables = {'params': first.params, 'batch_stats': stats}
        standard = (images / jnp.float32(255) - 0.5) / 0.3
        _, new = spec.model.apply(variables, standard, train=True, mutable=['batch_stats'])
        return new['batch_stats']

    stats = first.batch_stats
    for part in np.split(batch['image'], 2):
        stats = forward(stats, part)
    assert_close(after.batch_stats, stats, 1e-5)
    once = forward(first.batch_stats, batch['image'])
    moved = np.abs(after.batch_stats['norm1']['mean'] - once['norm1']['mean']).max()
    assert moved > 1e-3, 'twice is not once'


def test_dropout_differs_between_micro_batches_and_is_off_at_evaluation():
    count, shape = 8, (8, 8, 1)
    white = {'image': np.full((count, *shape), 255, np.uint8), 'label': np.arange(count)}
    batch = batch_of(count)
    batch = {name: batch[name] for name in ('index', 'epoch', 'mask')}
    spec, hyper = probe.spec(count, accumulate=4), probe.hyper(3, dropout_rate=0.5)
    first = probe.start(shape)
    _, metrics, _ = run(spec, batch, hyper, white, first=first)
    parts = np.asarray(metrics['seen']).reshape(4, -1) > 0
    for i, part in enumerate(parts):
        assert abs(part.mean() - 0.5) < 0.2
        for other in parts[:i]:
            assert 0.3 < (part == other).mean() < 0.7
    evaluated = dataclasses.replace(spec, model=spec.model.clone(dropout_rate=0.5))
    sums, _ = step.eval_step(evaluated, first.variables(), batch, white)
    np.testing.assert_array_equal(sums['seen'], 1)


def test_label_smoothing_enters_the_gradient_but_not_the_reported_loss():
    batch, spec = batch_of(6), spec_of('fcn')
    first = start_of(spec)
    images = (batch['image'] / np.float32(255) - 0.5) / np.float32(0.3)

    def smoothed(params, smoothing):
        log_p = jax.nn.log_softmax(spec.model.apply({'params': params}, images))
        target = (1 - smoothing) * jax.nn.one_hot(batch['label'], CLASSES) + smoothing / CLASSES
        return -(target * log_p).sum(-1).mean()

    hyper = HYPER | {'label_smoothing': np.float32(0.3)}
    after, metrics, _ = run(spec, batch, hyper)
    expected, plain = (jax.jit(jax.grad(smoothed))(first.params, s) for s in (0.3, 0.0))
    assert_close(gradient(after), expected, 1e-6)
    assert np.abs(expected['head']['bias'] - plain['head']['bias']).max() > 0.01
    log_p = log_softmax(np.asarray(spec.model.apply({'params': first.params}, images)), -1)
    loss = -log_p[np.arange(6), batch['label']].sum()
    assert float(metrics['loss']) == pytest.approx(loss, rel=1e-5)


def test_averaged_weights_and_statistics_equal_the_recursion():
    spec = spec_of('deep_cnn', ema=True)
    hyper = HYPER | {'ema_decay': np.float32(0.15)}
    after, _, history = run(spec, batch_of(8), hyper, steps=4)
    first = start_of(spec)
    expected = {'params': first.params, 'batch_stats': first.batch_stats}
    for number, now in enumerate(history):
        decay = min(0.15, (1 + number) / (10 + number))
        new = {'params': now.params, 'batch_stats': now.batch_stats}
        expected = jax.tree.map(lambda o, n, d=decay: d * o + (1 - d) * n, expected, new)
    assert after.variables().keys() == {'params', 'batch_stats'}
    assert_close(after.variables(), expected, 1e-6)
    assert np.abs(after.ema['params']['head']['kernel'] - after.params['head']['kernel']).max() > 0


def test_bfloat16_computes_near_float32_and_keeps_float32():
    batch = batch_of(16)
    exact, expected, _ = run(spec_of('deep_cnn'), batch)
    after, metrics, _ = run(spec_of('deep_cnn', jnp.bfloat16), batch)
    for leaf in jax.tree.leaves((after.params, after.batch_stats, after.opt_state)):
        assert leaf.dtype == jnp.float32
    assert metrics['loss'].dtype == jnp.float32
    model = spec_of('deep_cnn', jnp.bfloat16).model
    images = jnp.zeros((1, SIZE, SIZE, 1))
    assert jax.eval_shape(model.apply, exact.variables(), images).dtype == jnp.float32
    assert float(metrics['loss']) == pytest.approx(float(expected['loss']), rel=0.02)
    assert float(metrics['loss']) != float(expected['loss'])
    found, truth = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient(s))])
                    for s in (after, exact))  # fmt: skip
    assert np.isfinite(found).all()
    cosine = found @ truth / np.linalg.norm(found) / np.linalg.norm(truth)
    assert cosine > 0.99


def test_own_images_and_a_resident_data_set_give_the_same():
    batch = batch_of(6)
    dataset = {name: batch.pop(name)[::-1].copy() for name in ('image', 'label')}
    batch['index'] = batch['index'][::-1].copy()
    resident, _, _ = run(spec_of('fcn'), batch, dataset=dataset)
    own, _, _ = run(spec_of('fcn'), batch_of(6))
    assert state.sha256(resident.params) == state.sha256(own.params)


def test_a_batch_of_padding_changes_nothing():
    batch = batch_of(16)
    batch['mask'][:] = 0
    spec = spec_of('deep_cnn')
    first = start_of(spec)
    after, metrics, _ = run(spec, batch, first=first)
    assert state.sha256(after.params) == state.sha256(first.params)
    assert state.sha256(after.batch_stats) == state.sha256(first.batch_stats)
    assert float(metrics['loss']) == int(metrics['count']) == 0


def test_clipping_and_the_schedule_reach_the_update():
    spec = dataclasses.replace(
        spec_of('fcn', clip=True), schedule=lambda number: 1.0 / (1.0 + number)
    )
    hyper = HYPER | {'clip_norm': np.float32(0.01)}
    first = start_of(spec).replace(step=np.int32(3))
    after, metrics, _ = run(spec, batch_of(6), hyper, first=first)
    moved = jax.tree.map(lambda a, b: a - b, after.params, first.params)
    length = math.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(moved)))
    assert float(metrics['learning_rate']) == pytest.approx(0.1 / 4)
    assert length == pytest.approx(0.01 * 0.1 / 4, rel=1e-3)
    assert float(metrics['grad_norm']) > 0.01, 'reported before clipping'
    assert int(after.step) == 4
