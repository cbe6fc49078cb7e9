"""The train step lowers for every kind of accelerator, on a machine that has none."""

import dataclasses
import functools
import re

import jax
import pytest
from jax import export

from models.lowering import NATIVE
from tests.abstract import Abstract, abstract
from training.step import train_step

PLATFORMS = ('cuda', 'rocm', 'tpu')
FORMS = {f'lowering__{form}': value for form, value in dataclasses.asdict(NATIVE).items()}
# The second has everything on that a streamed set can have, in the step and around it.
RECIPE = {'model__name': 'resnet18', 'dtype': 'bfloat16', 'augment__erase': 0.25}
STEPS = [('configs/digits_lenet.py', {}), ('configs/imagenet_resnet50_rsb_a3.py', RECIPE)]
TYPES = {'float32': 'f32', 'bfloat16': 'bf16'}
# JAX's own generator of random numbers, where its plugin for a GPU is installed.
CUSTOM_CALLS = {'cu_threefry2x32_ffi', 'hip_threefry2x32_ffi'}

each_step = pytest.mark.parametrize(('path', 'fields'), STEPS, ids=('lenet', 'resnet18'))


def jitted(found: Abstract):
    """The step, and its arguments without numbers."""
    arguments = (found.state, found.hyper, found.batch, found.dataset)
    return jax.jit(functools.partial(train_step, found.spec)), arguments


@each_step
def test_the_train_step_lowers_for_every_accelerator(path, fields):
    found = abstract(path, **fields, **FORMS)
    step, arguments = jitted(found)
    exported = export.export(step, platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    text = exported.mlir_module()
    assert set(re.findall(r'custom_call @([\w.]+)', text)) <= CUSTOM_CALLS
    # The text has a convolution once for each platform: the layer's own, the gradient by its kernel
    # and, but for the first layer, that by its input.
    layers = sum(x.ndim == 4 for x in jax.tree.leaves(found.state.params))
    types = re.findall(r'stablehlo\.convolution\(.* : \(tensor<\d+x\d+x\d+x\d+x(\w+)>', text)
    assert set(types) == {TYPES[found.experiment.config.dtype]}
    assert len(types) == (3 * layers - 1) * len(PLATFORMS)


@each_step
def test_what_is_chosen_on_an_accelerator_are_the_native_forms(path, fields, monkeypatch):
    # The forms ask jax.default_backend; JAX itself does not ask by this name.
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    traces = []
    for forms in ({}, FORMS):
        step, arguments = jitted(abstract(path, **fields, **forms))
        traces.append(str(step.trace(*arguments).jaxpr))
    same = traces[0] == traces[1]  # by itself: pytest would compare a megabyte line by line
    assert same
