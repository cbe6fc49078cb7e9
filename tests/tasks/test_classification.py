"""Loss and metrics of classification against SciPy, scikit-learn and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix

from tasks.classification import Classification

CLASSES = 6
TASK = Classification(CLASSES)


def loss_of(task, logits, batch, smoothing=0.0):
    """The sum of the loss's only term, and its weight."""
    (loss,) = task.loss(logits, batch, {'label_smoothing': smoothing}).values()
    (weight,) = task.weights(batch).values()
    return loss, weight


def example(count=50, seed=0):
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=4, size=(count, CLASSES)).astype(np.float32)
    labels = draw.integers(0, CLASSES, count).astype(np.int32)
    return logits, labels, (draw.random(count) < 0.7).astype(np.float32)


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.9])
def test_losses_equal_cross_entropy_with_smoothed_targets(smoothing):
    logits, labels, mask = example()
    targets = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    expected = -(targets * log_softmax(logits.astype(np.float64), -1)).sum(-1)
    batch = {'label': labels, 'mask': mask}
    found = TASK.losses(logits, batch, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    loss, weight = loss_of(TASK, logits, batch, smoothing)
    assert float(loss) == pytest.approx((mask * expected).sum(), rel=1e-5)
    assert float(weight) == mask.sum()


def test_a_traced_smoothing_is_the_same():
    logits, labels, _ = example()
    batch = {'label': labels}
    traced = jax.jit(TASK.losses)(logits, batch, np.float32(0.1))
    np.testing.assert_allclose(traced, TASK.losses(logits, batch, 0.1), rtol=1e-6)


def test_metrics_equal_scikit_learn():
    logits, labels, mask = example()
    batch = {'label': labels, 'mask': mask}
    sums = jax.jit(functools.partial(TASK.sums, detailed=True))(logits, batch)
    real = mask > 0
    expected = confusion_matrix(labels[real], logits.argmax(-1)[real], labels=range(CLASSES))
    np.testing.assert_array_equal(sums['confusion'], expected)
    assert int(sums['correct']) == np.trace(expected)
    assert int(sums['count']) == real.sum()
    losses = -log_softmax(logits.astype(np.float64), -1)[np.arange(50), labels]
    assert float(sums['loss']) == pytest.approx(losses[real].sum(), rel=1e-5)
    assert all(sums[name].dtype == jnp.int32 for name in ('correct', 'count', 'confusion'))
    assert 'confusion' not in TASK.sums(logits, {'label': labels, 'mask': mask})


def test_masked_examples_add_nothing_and_have_no_gradient():
    logits, labels, mask = example()
    real, batch = mask > 0, {'label': labels, 'mask': mask}
    wild = np.where(real[:, None], logits, 1000 * logits[:, ::-1])
    some = {'label': labels[real], 'mask': mask[real]}
    metrics = jax.jit(functools.partial(TASK.sums, detailed=True))
    alone = metrics(logits[real], some)
    for name, value in metrics(wild, batch).items():
        np.testing.assert_allclose(value, alone[name], rtol=1e-6, err_msg=name)
    gradient = jax.jit(jax.grad(lambda x: loss_of(TASK, x, batch, 0.1)[0]))(wild)
    assert not np.asarray(gradient)[~real].any()
    expected = jax.jit(jax.grad(lambda x: loss_of(TASK, x, some, 0.1)[0]))(logits[real])
    np.testing.assert_allclose(np.asarray(gradient)[real], expected, atol=1e-6)


def test_a_batch_of_padding_counts_as_nothing():
    logits, labels, mask = example()
    sums = TASK.sums(logits, {'label': labels, 'mask': 0 * mask}, detailed=True)
    assert not any(np.asarray(value).any() for value in sums.values())
    assert TASK.summarize(sums) == {'loss': 0.0, 'accuracy': 0.0}


def test_the_loss_is_float32_and_finite_for_large_bfloat16_logits():
    logits = jnp.array([[3e4, -3e4, 0.0]], jnp.bfloat16)
    for kind in ('softmax', 'bce'):
        losses = Classification(3, kind).losses(logits, {'label': jnp.array([1])}, 0.1)
        assert losses.dtype == jnp.float32
        assert np.isfinite(losses).all()


def test_summary_divides_by_the_count():
    sums = {'loss': np.float64(6.0), 'correct': np.int64(3), 'count': np.int64(4)}
    assert TASK.summarize(sums) == {'loss': 1.5, 'accuracy': 0.75}


def mixture(count=50, seed=0):
    """A batch of mixed examples, and its targets in float64 before smoothing."""
    draw = np.random.default_rng(seed)
    logits, labels, mask = example(count, seed)
    others = draw.integers(0, CLASSES, count).astype(np.int32)
    others[:3] = labels[:3]
    share = draw.random(count).astype(np.float32)
    share[3:6] = 0.5, 1.0, 0.0
    batch = {'label': labels, 'other_label': others, 'share': share, 'mask': mask}
    wide = share.astype(np.float64)[:, None]
    return logits, batch, wide * np.eye(CLASSES)[labels] + (1 - wide) * np.eye(CLASSES)[others]


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_mixed_losses_equal_cross_entropy_with_mixed_targets(smoothing):
    logits, batch, targets = mixture()
    targets = (1 - smoothing) * targets + smoothing / CLASSES
    expected = -(targets * log_softmax(logits.astype(np.float64), -1)).sum(-1)
    found = TASK.losses(logits, batch, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    loss, weight = loss_of(TASK, logits, batch, smoothing)
    assert float(loss) == pytest.approx((batch['mask'] * expected).sum(), rel=1e-5)
    assert float(weight) == batch['mask'].sum()


@pytest.mark.parametrize('threshold', [None, 0.0, 0.2])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('mixes', [True, False])
def test_binary_losses_equal_the_formula(threshold, smoothing, mixes):
    """-(t log p + (1 - t) log(1 - p)), averaged over the classes; the threshold comes last."""
    logits, batch, targets = mixture()
    if not mixes:
        batch = {'label': batch['label'], 'mask': batch['mask']}
        targets = np.eye(CLASSES)[batch['label']]
    targets = (1 - smoothing) * targets + smoothing / CLASSES
    if threshold is not None:
        targets = np.where(targets > threshold, 1.0, 0.0)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(-1)
    task = Classification(CLASSES, 'bce', threshold)
    found = jax.jit(task.losses)(logits, batch, np.float32(smoothing))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_losses_equal_pytorch():
    torch = pytest.importorskip('torch', reason='PyTorch is for comparison only')
    logits, batch, targets = mixture()
    x, targets = torch.tensor(logits), torch.tensor(targets, dtype=torch.float32)
    for smoothing in (0.0, 0.1):
        expected = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(x, targets)
        found = TASK.losses(logits, batch, smoothing).mean()
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
    found = Classification(CLASSES, 'bce').losses(logits, batch).mean()
    expected = torch.nn.BCEWithLogitsLoss()(x, targets)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    found = Classification(CLASSES, 'bce', 0.2).losses(logits, batch).mean()
    expected = torch.nn.BCEWithLogitsLoss()(x, (targets > 0.2).float())
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_mixed_example_counts_as_its_larger_part():
    batch = {
        'label': np.array([0, 0, 0, 0, 0], np.int32),
        'other_label': np.array([1, 1, 1, 1, 0], np.int32),
        'share': np.array([0.7, 0.7, 0.2, 0.5, 0.1], np.float32),
        'mask': np.ones(5, np.float32),
    }
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 0]]
    assert int(Classification(3).sums(logits, batch)['correct']) == 4


@pytest.mark.parametrize('kind', ['softmax', 'bce'])
def test_the_reported_loss_is_of_the_same_kind_without_smoothing(kind):
    logits, batch, _ = mixture()
    task = Classification(CLASSES, kind)
    loss, _ = loss_of(task, logits, batch)
    assert float(task.sums(logits, batch)['loss']) == pytest.approx(float(loss), rel=1e-6)
    evaluated = {'label': batch['label'], 'mask': batch['mask']}
    loss, _ = loss_of(task, logits, evaluated)
    assert float(task.sums(logits, evaluated)['loss']) == pytest.approx(float(loss), rel=1e-6)
