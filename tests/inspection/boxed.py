"""A detector that has learned two pictures by heart, for tests that look into it."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inspection import opened
from tests.inspection.untrained import untrained

NAMES = ('light', 'dark')
SHAPE = (48, 64)
# (top, left, side, class) of each picture's squares.
SQUARES = (((4, 6, 14, 0), (24, 40, 16, 1)), ((26, 8, 16, 1), (6, 40, 14, 0)))
ROWS, STEPS = 3, 120


def picture(squares, factor=1):
    """Returns (image uint8 [h, w, 1], objects float32 [ROWS, 6]) of a picture."""
    image = np.full((factor * SHAPE[0], factor * SHAPE[1], 1), 90, np.uint8)
    objects = np.zeros((ROWS, 6), np.float32)
    for row, (*place, label) in enumerate(squares):
        top, left, side = (factor * number for number in place)
        image[top : top + side, left : left + side] = (230, 10)[label]
        objects[row] = (top, left, top + side, left + side, label, 0)
    return image, objects


@functools.cache
def learned():
    """Returns the detector, as training.trained gives one."""
    fields = {'head__channels': 8, 'head__depth': 1, 'head__strides': (4,), 'data__max_boxes': ROWS}
    network = untrained('deep_cnn', (*SHAPE, 1), 2, task='detection', **fields)
    experiment = dataclasses.replace(network.experiment, class_names=NAMES)
    images, objects = (np.stack(arrays) for arrays in zip(*map(picture, SQUARES), strict=True))
    inputs = jnp.asarray(network.inputs(images))
    batch = {'inputs': inputs, 'objects': objects, 'mask': np.ones(len(images), np.float32)}
    task, optimizer = network.task, optax.adam(1e-2)

    def loss(params):
        outputs = network.model.apply({**network.variables, 'params': params}, inputs, train=False)
        sums = task.loss(outputs, batch, {'alpha': 0.25, 'focusing': 2.0})
        weights = task.weights(batch)
        return sum(sums[term] / jnp.maximum(weights[term], 1) for term in sums)

    @jax.jit
    def train(params, state):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), None, length=STEPS)[0][0]

    params = network.variables['params']
    jax.config.update('jax_disable_most_optimizations', True)  # compiled in half the time
    try:
        variables = {**network.variables, 'params': train(params, optimizer.init(params))}
    finally:
        jax.config.update('jax_disable_most_optimizations', False)
    return types.SimpleNamespace(
        experiment=experiment, spec=network.spec, variables=variables, step=STEPS
    )


@functools.cache
def network():
    """Returns the detector, opened."""
    return opened.of(learned())
