"""Loss and metrics of classification against SciPy and scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix

from training.tasks import Classification

CLASSES = 6
TASK = Classification(CLASSES)


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
    np.testing.assert_allclose(
        TASK.losses(logits, labels, smoothing), expected, rtol=1e-5, atol=1e-6
    )
    loss, weight = TASK.loss(logits, {'label': labels, 'mask': mask}, smoothing)
    assert float(loss) == pytest.approx((mask * expected).sum(), rel=1e-5)
    assert float(weight) == mask.sum()


def test_a_traced_smoothing_is_the_same():
    logits, labels, _ = example()
    traced = jax.jit(TASK.losses)(logits, labels, np.float32(0.1))
    np.testing.assert_allclose(traced, TASK.losses(logits, labels, 0.1), rtol=1e-6)


def test_metrics_equal_scikit_learn():
    logits, labels, mask = example()
    batch = {'label': labels, 'mask': mask}
    sums = jax.jit(functools.partial(TASK.metrics, detailed=True))(logits, batch)
    real = mask > 0
    expected = confusion_matrix(labels[real], logits.argmax(-1)[real], labels=range(CLASSES))
    np.testing.assert_array_equal(sums['confusion'], expected)
    assert int(sums['correct']) == np.trace(expected)
    assert int(sums['count']) == real.sum()
    losses = -log_softmax(logits.astype(np.float64), -1)[np.arange(50), labels]
    assert float(sums['loss']) == pytest.approx(losses[real].sum(), rel=1e-5)
    assert all(sums[name].dtype == jnp.int32 for name in ('correct', 'count', 'confusion'))
    assert 'confusion' not in TASK.metrics(logits, {'label': labels, 'mask': mask})


def test_masked_examples_add_nothing_and_have_no_gradient():
    logits, labels, mask = example()
    real, batch = mask > 0, {'label': labels, 'mask': mask}
    wild = np.where(real[:, None], logits, 1000 * logits[:, ::-1])
    some = {'label': labels[real], 'mask': mask[real]}
    metrics = jax.jit(functools.partial(TASK.metrics, detailed=True))
    alone = metrics(logits[real], some)
    for name, value in metrics(wild, batch).items():
        np.testing.assert_allclose(value, alone[name], rtol=1e-6, err_msg=name)
    gradient = jax.jit(jax.grad(lambda x: TASK.loss(x, batch, 0.1)[0]))(wild)
    assert not np.asarray(gradient)[~real].any()
    expected = jax.jit(jax.grad(lambda x: TASK.loss(x, some, 0.1)[0]))(logits[real])
    np.testing.assert_allclose(np.asarray(gradient)[real], expected, atol=1e-6)


def test_a_batch_of_padding_counts_as_nothing():
    logits, labels, mask = example()
    sums = TASK.metrics(logits, {'label': labels, 'mask': 0 * mask}, detailed=True)
    assert not any(np.asarray(value).any() for value in sums.values())
    assert TASK.summarise(sums) == {'loss': 0.0, 'accuracy': 0.0}


def test_the_loss_is_float32_and_finite_for_large_bfloat16_logits():
    logits = jnp.array([[3e4, -3e4, 0.0]], jnp.bfloat16)
    losses = Classification(3).losses(logits, jnp.array([1]), 0.1)
    assert losses.dtype == jnp.float32
    assert np.isfinite(losses).all()


def test_summary_divides_by_the_count():
    sums = {'loss': np.float64(6.0), 'correct': np.int64(3), 'count': np.int64(4)}
    assert TASK.summarise(sums) == {'loss': 1.5, 'accuracy': 0.75}
