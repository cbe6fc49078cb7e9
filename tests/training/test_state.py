"""The state's names and its hash."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from training import optimizers, state


def tree():
    return {
        'b': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)},
        'a': {'bias': np.float32(0.5), 'kernel': jnp.ones((2,), jnp.bfloat16)},
    }


def test_leaves_are_named_by_path_and_sorted():
    names = [name for name, _ in state.named_leaves(tree())]
    assert names == ['a/bias', 'a/kernel', 'b/kernel']
    first = state.TrainState(jnp.int32(0), tree(), {}, (), None)
    names = [name for name, _ in state.named_leaves(first)]
    assert names == ['params/a/bias', 'params/a/kernel', 'params/b/kernel', 'step']


def test_hash_is_what_its_docstring_says():
    """A change here makes the params_sha256 of earlier runs worthless."""
    expected = hashlib.sha256(
        b'a/bias <f4 ()\n' + np.float32(0.5).tobytes()
        + b'a/kernel <V2 (2,)\n' + b'\x80?' * 2
        + b'b/kernel <f4 (2, 3)\n' + np.arange(6, dtype='<f4').tobytes()
    ).hexdigest()  # fmt: skip
    assert state.sha256(tree()) == expected


def test_hash_ignores_where_the_bytes_lie():
    kernel = tree()['b']['kernel']
    for same in (jnp.asarray(kernel), np.asfortranarray(kernel), kernel[::-1][::-1]):
        assert state.sha256({'b': same}) == state.sha256({'b': kernel})
    reverse = dict(reversed(tree().items()))
    assert state.sha256(reverse) == state.sha256(tree())


@pytest.mark.parametrize(
    'other',
    [
        {'b': np.zeros((2, 3), np.float32)},
        {'c': np.ones((2, 3), np.float32)},
        {'a': {'b': np.ones((2, 3), np.float32)}},
        {'a': np.ones((3, 2), np.float32)},
        {'a': np.ones(6, np.float32)},
        {'a': np.ones((2, 3), np.int32)},
        {'a': np.ones((2, 3), '>f4')},
        {'a': np.nextafter(np.ones((2, 3), np.float32), 2)},
        {'a': np.ones((2, 3), np.float32), 'b': np.zeros(0, np.float32)},
    ],
)
def test_hash_sees_every_change(other):
    assert state.sha256(other) != state.sha256({'a': np.ones((2, 3), np.float32)})


def test_hash_tells_a_scalar_from_a_vector_of_one():
    assert state.sha256({'a': np.float32(1)}) != state.sha256({'a': np.ones(1, np.float32)})
    assert state.sha256({'a': np.float32(0)}) != state.sha256({'a': np.float32(-0.0)})


@pytest.mark.parametrize('use_ema', [False, True])
def test_create_is_a_pure_function_of_the_seed(use_ema):
    model = models.create('deep_cnn', num_classes=10)
    optimizer = optimizers.make('sgd', {'weight_decay': 0.0, 'momentum': 0.9})

    @jax.jit
    def create(seed):
        return state.create(model, optimizer, (8, 8, 1), seed, use_ema)

    first, again, other = create(np.uint32(1)), create(np.uint32(1)), create(np.uint32(2))
    assert state.sha256(first) == state.sha256(again)
    assert state.sha256(first.params) != state.sha256(other.params)
    assert int(first.step) == 0
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(first.params))
    variables = first.variables()
    assert variables.keys() == {'params', 'batch_stats'}
    assert state.sha256(variables['params']) == state.sha256(first.params)
    assert (first.ema is None) is (not use_ema)


def test_evaluation_uses_the_averaged_weights():
    ema = {'params': {'w': np.ones(1)}, 'batch_stats': {}}
    first = state.TrainState(0, {'w': np.zeros(1)}, {}, (), ema)
    assert first.variables() is ema
