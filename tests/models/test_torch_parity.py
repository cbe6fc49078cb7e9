"""The networks against PyTorch's own, and weights taken there and back; needs PyTorch.

PyTorch computes in float64, the networks here in float32, as they do in use; steps of training are
in float64 on both sides. Without PyTorch these are skipped, and tests/models/test_parity.py
compares with numbers that it left.
"""

import importlib.util

import numpy as np
import pytest

from models.pretrained import torch_names, torch_weights
from tests.golden import parity
from tests.models import ours

missing = [
    name
    for name in ('torch', 'torchvision', 'timm', 'transformers')
    if not importlib.util.find_spec(name)
]
pytestmark = pytest.mark.skipif(
    bool(missing),
    reason=f'needs {", ".join(missing)}: pip install torch torchvision timm transformers',
)
# Largest difference relative to the largest value; the most that was seen is 1.3e-6 (VGG).
TOLERANCE = 1e-5
EVERY = [
    f'{model} {layout}' for model in torch_names.known() for layout in torch_names.layouts(model)
]
LARGE = ('alexnet', 'vgg16', 'resnet50', 'densenet121')
PLAIN = (
    'alexnet torchvision', 'vgg11 timm', 'vgg11_bn torchvision', 'resnet18 torchvision',
    'resnet18 huggingface', 'densenet121 torchvision',
)  # fmt: skip


def relative_error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    assert found.shape == expected.shape
    return abs(found - expected).max() / abs(expected).max()


@pytest.mark.parametrize('name', ours.cases(EVERY, PLAIN))
def test_stages_and_logits_equal_the_library(name):
    check_forward(*name.split(), parity.SIZE)


@pytest.mark.full
@pytest.mark.parametrize('model', LARGE)
def test_stages_and_logits_of_large_images_equal_torchvision(model):
    check_forward(model, 'torchvision', 224)


def check_forward(model, layout, size):
    from tests.golden import torch_reference

    state = ours.state_dict(model, layout)
    network = torch_reference.create(model, layout, parity.CLASSES)
    torch_reference.load(network, torch_reference.with_counters(network, state))
    theirs = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    variables, _ = torch_weights.from_torch(theirs, model)
    images, _ = parity.batch(2, size)
    stages, logits = ours.forward(model, variables, images)
    expected = torch_reference.stages(network.double(), model, layout, images)
    found = {**stages, 'logits': logits}
    assert list(found) == list(expected)
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    print(f'{model} {layout} {size}: {max(errors.values()):.1e}')
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize('name', ours.cases(EVERY, PLAIN))
def test_weights_taken_back_are_loaded_strictly_and_are_the_same(name):
    from tests.golden import torch_reference

    model, layout = name.split()
    state = ours.state_dict(model, layout)
    variables, _ = torch_weights.from_torch(state, model, layout)
    network = torch_reference.create(model, layout, parity.CLASSES)
    torch_reference.load(network, torch_weights.to_torch(variables, model, layout))
    loaded = network.state_dict()
    assert all(value.ndim == 0 and value == 0 for key, value in loaded.items() if key not in state)
    for key, value in state.items():
        np.testing.assert_array_equal(loaded[key].numpy(), value)


@pytest.mark.parametrize('model', ours.cases(parity.TRAINED, ('resnet18',)))
def test_gradients_and_statistics_of_a_training_step_equal_torchvision(model):
    from tests.golden import torch_reference

    network = torch_reference.create(model, 'torchvision', parity.CLASSES)
    state = ours.state_dict(model, 'torchvision')
    torch_reference.load(network, torch_reference.with_counters(network, state))
    expected, losses = torch_reference.sgd_step(network, *parity.batch(4), parity.LEARNING_RATE)
    found, found_losses = ours.sgd_step(model)
    assert found_losses == pytest.approx(losses, rel=1e-9)
    tensors = torch_weights.tensors(model, 'torchvision', parity.CLASSES, channels=3)
    # A bias before batch norm has gradient 0, but for rounding: hence the largest of all.
    largest = max(abs(array).max() for array in expected.values())
    worst = 0.0
    for tensor in tensors:
        wanted = expected[tensor.key]
        off = abs(tensor.to_torch(found[tensor.path]) - wanted).max()
        assert off <= 1e-8 * abs(wanted).max() + 1e-13 * largest, tensor.key
        worst = max(worst, off / largest)
    print(f'{model}: {worst:.1e} of the largest gradient')
