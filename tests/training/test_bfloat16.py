"""config.dtype=bfloat16: products in bfloat16, and all that is summed up or kept in float32.

Read off the traced step, so that nothing is compiled; test_step.py looks at the numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from tasks.classification import Classification
from training import optimizers, state, step
from training.spec import StepSpec

PRODUCTS = ('conv_general_dilated', 'dot_general')
HYPER = {
    'seed': np.uint32(1),
    'learning_rate': np.float32(0.1),
    'weight_decay': np.float32(0.01),
    'label_smoothing': np.float32(0.1),
    'momentum': np.float32(0.9),
    'ema_decay': np.float32(0.9),
    'clip_norm': np.float32(1.0),
    'dropout_rate': np.float32(0.1),
}
# All kinds of layers: name, options, side, channels.
NETWORKS = [
    ('fcn', {'units': 16}, 12, 1),
    ('lenet', {}, 28, 1),
    ('deep_cnn', {}, 28, 1),
    ('strided_cnn', {'width': 0.125}, 28, 1),
    ('alexnet', {'width': 0.125}, 64, 3),
    ('vgg11_bn', {'width': 0.125, 'stem': 'cifar'}, 32, 3),
    ('resnet18', {'width': 0.125, 'stem': 'cifar'}, 32, 3),
    ('resnet18', {'width': 0.125, 'normalization': 'group', 'remat': True}, 32, 3),
]


def equations(jaxpr):
    """All of a trace, those of its parts as well."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')
        ):
            inner = getattr(value, 'jaxpr', value)
            if hasattr(inner, 'eqns'):
                yield from equations(inner)


@pytest.mark.parametrize(('name', 'options', 'side', 'channels'), NETWORKS)
def test_products_are_of_bfloat16_and_what_is_kept_is_float32(
    name, options, side, channels, monkeypatch
):
    model = models.create(name, num_classes=10, dtype=jnp.bfloat16, **options)
    on = {'ema': True, 'clip': True}
    spec = StepSpec(model, Classification(10), 'sgd', lambda n: 1.0, (0.5,), (0.3,), **on)
    shape, size = (side, side, channels), 4
    optimizer = optimizers.make('sgd', HYPER, clip=True)
    first = jax.eval_shape(lambda: state.create(spec.model, optimizer, shape, np.uint32(0), True))
    batch = {
        'index': np.arange(size, dtype=np.int32),
        'epoch': np.zeros(size, np.int32),
        'mask': np.ones(size, np.float32),
        'image': np.zeros((size, *shape), np.uint8),
        'label': np.zeros(size, np.int32),
    }
    gradients, outputs = [], []
    make, loss = step.optimizers.make, Classification.loss

    def noting_make(*given):
        rule = make(*given)

        def update(grads, *rest):
            gradients.extend(jax.tree.leaves(grads))
            return rule.update(grads, *rest)

        return rule._replace(update=update)

    def noting_loss(self, logits, *rest):
        outputs.append(logits)
        return loss(self, logits, *rest)

    monkeypatch.setattr(step.optimizers, 'make', noting_make)
    monkeypatch.setattr(Classification, 'loss', noting_loss)
    traced = jax.make_jaxpr(functools.partial(step.train_step, spec), return_shape=True)
    jaxpr, (after, metrics) = traced(first, HYPER, batch, {})

    products = [e for e in equations(jaxpr.jaxpr) if e.primitive.name in PRODUCTS]
    assert len(products) >= 3 * len([p for p in jax.tree.leaves(first.params) if p.ndim > 1]) - 1
    for equation in products:
        assert [v.aval.dtype for v in equation.invars] == [jnp.bfloat16] * 2, equation
    assert gradients
    assert {g.dtype for g in gradients} == {jnp.dtype(jnp.float32)}
    assert {logits.dtype for logits in outputs} == {jnp.dtype(jnp.float32)}
    for tree in (after.params, after.batch_stats, after.opt_state, after.ema):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} <= {jnp.dtype(jnp.float32)}
    for name in ('loss', 'grad_norm', 'learning_rate'):
        assert metrics[name].dtype == jnp.float32, name
