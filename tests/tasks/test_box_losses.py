"""Losses of boxes against torchvision and slow, obvious versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import box_losses

# torchvision 0.28.0 for `boxes(6)` and `boxes(6, 5)`: 1 - generalized_box_iou_loss, and for
# `logits()`: sigmoid_focal_loss.
GIOU = [-0.34289563, -0.17238414, -0.25959921, -0.22688651, -0.0069355965, -0.28682947]
FOCAL = [
    1.2349803,
    0.0082906922,
    1.5677743,
    0.96872675,
    0.075294957,
    2.41101,
    0.69157016,
    0.36940861,
    3.2293689,
    0.41251957,
    1.001501,
    5.5166794e-07,
]
number = st.sampled_from([0.0, 32.0, 33.5, 640.0]) | st.floats(0, 640, width=32)
compiled_giou = jax.jit(box_losses.giou)
giou_slopes = jax.jit(jax.grad(lambda b, t: box_losses.giou(b, t).sum(), argnums=(0, 1)))
pairs_iou = {np: box_losses.iou, jnp: jax.jit(lambda b, o: box_losses.iou(b, o, jnp))}


@st.composite
def some_boxes(draw, count=4):
    """Boxes [count, 4], some without area."""
    edges = draw(st.lists(st.tuples(*[number] * 4), min_size=count, max_size=count))
    y, x, other_y, other_x = np.array(edges, np.float32).T
    ends = [np.minimum(y, other_y), np.minimum(x, other_x)]
    return np.stack([*ends, np.maximum(y, other_y), np.maximum(x, other_x)], -1)


def boxes(count, start=0):
    """Boxes by a formula: the same everywhere."""
    place = np.arange(start * 4, (start + count) * 4).reshape(count, 4)
    edges = (place * 37 % 101 / 4).astype(np.float32)
    return np.concatenate([edges[:, :2], edges[:, :2] + 8 + edges[:, 2:]], -1)


def examples():
    """Logits and targets by a formula: the same everywhere."""
    place = np.arange(12)
    return ((place * 37 % 101) / 10 - 5).astype(np.float32), (place % 3 == 0).astype(np.float32)


def slow_iou(box, other):
    """(IoU, GIoU) of two boxes in float64."""
    box, other = box.astype(np.float64), other.astype(np.float64)
    high = min(box[2], other[2]) - max(box[0], other[0])
    wide = min(box[3], other[3]) - max(box[1], other[1])
    both = max(high, 0) * max(wide, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    union = sum(areas) - both
    around = (max(box[2], other[2]) - min(box[0], other[0])) * (
        max(box[3], other[3]) - min(box[1], other[1])
    )
    iou = both / union if union else 0.0
    return iou, iou - ((around - union) / around if around else 0.0)


def slow_focal(logit, target, alpha, gamma):
    p, q = 1 / (1 + np.exp([-np.float64(logit), np.float64(logit)]))
    if target:
        return alpha * q**gamma * np.log1p(np.exp(-np.float64(logit)))
    return (1 - alpha) * p**gamma * np.log1p(np.exp(np.float64(logit)))


def substantial(*some):
    """Whether areas are none, or such that float32 and the least divisor do not matter."""
    sides = [b[..., 2:] - b[..., :2] for b in some]
    return all(((s == 0) | (s > 0.1)).all() for s in sides)


# --- focal loss -------------------------------------------------------------------------------


@pytest.mark.parametrize(('alpha', 'gamma'), [(0.25, 2.0), (0.5, 0.0), (0.9, 0.5), (0.25, 3.7)])
def test_the_focal_loss_is_the_definition(alpha, gamma):
    logits = np.linspace(-30, 30, 121, dtype=np.float32)
    for target in (0.0, 1.0):
        expected = [slow_focal(x, target, alpha, gamma) for x in logits]
        found = box_losses.focal(logits, np.full_like(logits, target), alpha, gamma)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-30)


def test_the_focal_loss_is_that_of_torchvision():
    logits, targets = examples()
    np.testing.assert_allclose(box_losses.focal(logits, targets), FOCAL, rtol=1e-5)
    torch = pytest.importorskip('torch', reason='PyTorch is for comparison only')
    ops = pytest.importorskip('torchvision.ops', reason='torchvision is for comparison only')
    theirs = ops.sigmoid_focal_loss(torch.tensor(logits), torch.tensor(targets)).numpy()
    np.testing.assert_allclose(theirs, FOCAL, rtol=1e-6)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_the_focal_loss_and_its_gradient_are_finite_for_sure_and_wrong_logits(gamma):
    logits = jnp.array([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    for target in (0.0, 1.0):
        values, gradients = jax.vmap(
            jax.value_and_grad(lambda x, t=target: box_losses.focal(x, t, 0.25, gamma))
        )(logits)
        assert jnp.isfinite(values).all()
        assert jnp.isfinite(gradients).all()
        wrong = logits[-2] if target == 0 else logits[1]
        slope = jax.grad(lambda x, t=target: box_losses.focal(x, t, 0.25, gamma))(wrong)
        assert float(slope) == pytest.approx(0.75 if target == 0 else -0.25, rel=1e-5)


# --- boxes ------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(some_boxes(), some_boxes(), st.sampled_from([np, jnp]))
def test_iou_is_that_of_each_pair(some, others, xp):
    if not substantial(some, others):
        return
    found = np.asarray(pairs_iou[xp](some, others))
    assert found.shape == (len(some), len(others))
    for i, box in enumerate(some):
        for j, other in enumerate(others):
            expected, _ = slow_iou(box, other)
            assert float(found[i, j]) == pytest.approx(expected, abs=2e-5)


def test_iou_of_batches_is_that_of_each_example():
    some, others = np.stack([boxes(4), boxes(4, 9)]), np.stack([boxes(3, 20), boxes(3, 30)])
    found = box_losses.iou(some, others)
    expected = [box_losses.iou(*pair) for pair in zip(some, others, strict=True)]
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=50)
@given(some_boxes())
def test_giou_is_that_of_each_pair(some):
    for others in (some, some[::-1], np.roll(some, 1, axis=0)):
        if not substantial(some):
            return
        found = compiled_giou(some, others)
        expected = [slow_iou(*pair)[1] for pair in zip(some, others, strict=True)]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_giou_is_that_of_torchvision():
    found = box_losses.giou(boxes(6), boxes(6, 5))
    np.testing.assert_allclose(found, GIOU, atol=1e-6)
    torch = pytest.importorskip('torch', reason='PyTorch is for comparison only')
    ops = pytest.importorskip('torchvision.ops', reason='torchvision is for comparison only')
    theirs = 1 - ops.generalized_box_iou_loss(torch.tensor(boxes(6)), torch.tensor(boxes(6, 5)))
    np.testing.assert_allclose(theirs.numpy(), GIOU, atol=1e-6)


def test_the_gradient_of_giou_is_the_slope():
    some, truth = jnp.asarray(boxes(6)), jnp.asarray(boxes(6, 5))
    gradient = jax.grad(lambda b: box_losses.giou(b, truth).sum())(some)
    for edge in range(4):
        step = jnp.zeros(4).at[edge].set(0.05)
        slope = (box_losses.giou(some + step, truth) - box_losses.giou(some - step, truth)) / 0.1
        np.testing.assert_allclose(gradient[:, edge], slope, atol=2e-4)


@settings(max_examples=100)
@given(some_boxes())
def test_the_gradient_of_giou_is_finite_whatever_the_boxes(some):
    for others in (some, some[::-1], some * 0, some + 1e3, some * np.array([1, 0, 1, 0])):
        pair = some, others.astype(np.float32)
        assert np.isfinite(giou_slopes(*pair)).all()
        assert (abs(compiled_giou(*pair)) <= 1.00001).all()


# --- centerness -------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.tuples(*[st.floats(-50, 300, width=32)] * 4))
def test_centerness_is_equation_3_inside_and_0_outside(distances):
    top, left, bottom, right = distances
    expected = 0.0
    if min(distances) > 1e-3:
        ratios = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
        expected = np.sqrt(ratios[0] * ratios[1])
    elif min(distances) > 0:
        return
    found = float(box_losses.centerness(jnp.array(distances, jnp.float32)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_centerness_has_no_gradient():
    distances = jnp.array([[1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 0.0, 1.0]])
    gradient = jax.grad(lambda d: box_losses.centerness(d).sum())(distances)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(distances))
