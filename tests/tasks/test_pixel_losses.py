"""Losses of segmentation against PyTorch, optax and loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tasks.pixel_losses import LOSSES
from tasks.segmentation import Segmentation

SHAPE, CLASSES = (2, 4, 5), 3
WEIGHTS = (0.5, 1.0, 2.25)
VOID = 255
# Of torch.nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=..., ignore_index=VOID) in PyTorch
# 2.13.0 for `example()`, by label smoothing.
PYTORCH = {0.0: 1.553038477897644, 0.1: 1.5907994508743286, 0.5: 1.7418432235717773}


def example():
    """Logits float32 [2, 4, 5, 3] and labels with void pixels, by formulas: the same everywhere."""
    place = np.arange(np.prod(SHAPE) * CLASSES)
    logits = ((place * 37 % 101) / 25 - 2).astype(np.float32).reshape(*SHAPE, CLASSES)
    labels = (np.arange(np.prod(SHAPE)) * 7 % 11 % CLASSES).astype(np.uint8).reshape(SHAPE)
    labels[0, 1, 2:] = labels[1, 3, 0] = VOID
    return logits, labels


def loss_and_weight(
    name, logits, labels, mask=(1.0, 1.0), weights=WEIGHTS, smoothing=0.0, gamma=2.0
):
    """A loss through the task: (sum, weight)."""
    task = Segmentation(num_classes=CLASSES, losses=(name,), class_weights=weights)
    batch = {'segmentation_mask': jnp.asarray(labels), 'mask': jnp.asarray(mask)}
    hyper = {'label_smoothing': smoothing, 'focal_gamma': gamma}
    return task.loss(jnp.asarray(logits), batch, hyper)[name], task.weights(batch)[name]


def mean(*args, **options):
    total, weight = loss_and_weight(*args, **options)
    return float(total / weight)


def pixels(logits, labels):
    """Yields (probabilities in float64, class) of each known pixel."""
    for logit, label in zip(logits.reshape(-1, CLASSES), labels.ravel(), strict=True):
        if label != VOID:
            e = np.exp(logit.astype(np.float64))
            yield e / e.sum(), int(label)


def slow_cross_entropy(logits, labels, smoothing):
    """As torch.nn.CrossEntropyLoss defines it, pixel by pixel."""
    total = weight = 0.0
    for p, label in pixels(logits, labels):
        for c in range(CLASSES):
            target = (1 - smoothing) * (c == label) + smoothing / CLASSES
            total -= WEIGHTS[c] * target * np.log(p[c])
        weight += WEIGHTS[label]
    return total / weight


@pytest.mark.parametrize('smoothing', PYTORCH)
def test_cross_entropy_is_pytorchs(smoothing):
    found = mean('cross_entropy', *example(), smoothing=smoothing)
    np.testing.assert_allclose(found, PYTORCH[smoothing], rtol=1e-6)
    np.testing.assert_allclose(found, slow_cross_entropy(*example(), smoothing), rtol=1e-6)


@pytest.mark.parametrize('smoothing', PYTORCH)
def test_cross_entropy_is_that_of_the_pytorch_installed(smoothing):
    torch = pytest.importorskip('torch', reason='PyTorch is for comparison only')
    logits, labels = example()
    loss = torch.nn.CrossEntropyLoss(
        weight=torch.tensor(WEIGHTS), label_smoothing=smoothing, ignore_index=VOID
    )
    inputs = torch.from_numpy(logits).permute(0, 3, 1, 2).requires_grad_()
    expected = loss(inputs, torch.from_numpy(labels.astype(np.int64)))
    expected.backward()
    gradient = jax.grad(
        lambda x: jnp.divide(*loss_and_weight('cross_entropy', x, labels, smoothing=smoothing))
    )(logits)
    np.testing.assert_allclose(PYTORCH[smoothing], expected.item(), rtol=1e-6)
    torch_gradient = inputs.grad.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(gradient, torch_gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0, 5.0])
def test_focal_is_lin_et_als_pixel_by_pixel(gamma):
    total = weight = 0.0
    for p, label in pixels(*example()):
        total -= WEIGHTS[label] * (1 - p[label]) ** gamma * np.log(p[label])
        weight += WEIGHTS[label]
    found = mean('focal', *example(), gamma=gamma)
    np.testing.assert_allclose(found, total / weight, rtol=1e-5)
    if gamma == 0:
        np.testing.assert_allclose(found, mean('cross_entropy', *example()), rtol=1e-6)


@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_dice_is_optaxs_where_every_pixel_is_known(weights):
    logits, labels = example()
    labels[labels == VOID] = 1
    # optax's axes are those over which a picture's sums go, and its mean is over classes alone.
    targets = jax.nn.one_hot(labels, CLASSES)
    by_class = optax.losses.dice_loss(
        jnp.asarray(logits), targets, axis=(1, 2), reduction='none', ignore_background=False
    )
    expected = np.average(by_class, axis=-1, weights=weights).mean()
    np.testing.assert_allclose(mean('dice', logits, labels, weights=weights), expected, rtol=1e-6)


def test_dice_with_void_pixels_is_that_of_the_others():
    logits, labels = example()
    expected = []
    for picture in range(SHAPE[0]):
        both, either = np.zeros(CLASSES), np.zeros(CLASSES)
        for p, label in pixels(logits[picture], labels[picture]):
            both[label] += p[label]
            either += p
            either[label] += 1
        coefficient = (2 * both + 2) / (either + 2)
        expected.append(1 - np.average(coefficient, weights=WEIGHTS))
    np.testing.assert_allclose(mean('dice', logits, labels), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize('name', LOSSES)
def test_void_pixels_and_masked_examples_add_nothing(name):
    logits, labels = example()

    def total(x, labels=labels, mask=(1.0, 1.0)):
        return loss_and_weight(name, x, labels, mask, smoothing=0.2)

    # Whatever the network says of a void pixel, nothing changes, and it has no gradient.
    wild = np.where((labels == VOID)[..., None], logits * -9 + 40, logits)
    np.testing.assert_array_equal(total(wild), total(logits))
    slope = np.asarray(jax.grad(lambda x: total(x)[0])(wild))
    assert not slope[labels == VOID].any()
    assert np.isfinite(slope).all()
    assert slope[labels != VOID].any(-1).all()
    # A masked example counts for nothing, as if it were not there.
    alone = loss_and_weight(name, logits[:1], labels[:1], (1.0,), smoothing=0.2)
    np.testing.assert_allclose(total(logits, mask=(1.0, 0.0)), alone, rtol=1e-6)
    slope = np.asarray(jax.grad(lambda x: total(x, mask=(1.0, 0.0))[0])(logits))
    assert not slope[1].any()
    # A picture without a known pixel is the same as one that is masked.
    unknown = labels.copy()
    unknown[1] = VOID
    np.testing.assert_allclose(total(logits, unknown), alone, rtol=1e-6)
    slope = np.asarray(jax.grad(lambda x: total(x, unknown)[0])(logits))
    assert not slope[1].any()
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ('name', 'gamma'), [('cross_entropy', 2.0), ('dice', 2.0), ('focal', 0.0), ('focal', 0.5)]
)
def test_a_certain_network_has_finite_losses_and_gradients(name, gamma):
    _, labels = example()
    logits = 200.0 * (jax.nn.one_hot(labels, CLASSES) - 0.5)
    for certain in (logits, -logits):  # right and wrong
        value, slope = jax.value_and_grad(
            lambda x: loss_and_weight(name, x, labels, gamma=gamma)[0]
        )(certain)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
