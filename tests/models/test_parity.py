"""The networks against PyTorch's, without PyTorch: against the numbers that it left in parity.json.

The weights follow a formula of the names that the library gives them, so that reading them checks
those names too. tests/models/test_torch_parity.py compares with PyTorch itself.
"""

import json

import numpy as np
import pytest

from models.pretrained import torch_names, torch_weights
from tests.golden import parity
from tests.models import ours

# Relative to the largest value; the most that was seen, in float32, is 1.3e-6.
TOLERANCE = 1e-5
FORWARD = [
    f'{model} {layout}'
    for model in torch_names.known()
    for layout in torch_names.layouts(model)
    if layout == 'torchvision' or (model, layout) in parity.OTHER_LAYOUTS
]
# In `make test` those that are traced soonest; in `make test-slow` one of each family, and another
# layout or kind of block.
FEW_FORWARD = ('alexnet torchvision', 'resnet18 torchvision')
PLAIN_FORWARD = (
    'alexnet torchvision', 'vgg11 timm', 'vgg11_bn torchvision', 'resnet18 torchvision',
    'resnet18 huggingface', 'resnet50 torchvision', 'densenet121 torchvision',
)  # fmt: skip
PLAIN_STEP = ('alexnet', 'resnet18')


@pytest.fixture(scope='module')
def golden():
    return json.loads(parity.GOLDEN.read_text())


@pytest.mark.parametrize(
    ('model', 'layout'),
    [(model, layout) for model in torch_names.known() for layout in torch_names.layouts(model)],
)
def test_names_and_shapes_are_those_of_the_library(golden, model, layout):
    lines = []
    for tensor in torch_weights.tensors(model, layout, 1000, channels=3):
        lines.append((tensor.key, tensor.torch_shape, 'float32'))
        if tensor.key.endswith('running_var'):
            lines.append((tensor.key.replace('running_var', 'num_batches_tracked'), (), 'int64'))
    assert parity.names_digest(lines) == golden['names'][f'{model} {layout}']


@pytest.mark.parametrize('name', ours.cases(FORWARD, PLAIN_FORWARD, FEW_FORWARD))
def test_stages_and_logits_equal_pytorch(golden, name):
    model, layout = name.split()
    variables, about = torch_weights.from_torch(ours.state_dict(model, layout), model)
    assert about == {'layout': layout, 'num_classes': parity.CLASSES, 'channels': 3}
    images, _ = parity.batch(2)
    stages, logits = ours.forward(model, variables, images)
    expected = dict(golden['forward'][name])
    wanted = np.array(expected.pop('logits'))
    assert list(stages) == list(expected)
    for stage, found in stages.items():
        norm, projection = parity.summary(stage, found)
        assert norm == pytest.approx(expected[stage][0], rel=TOLERANCE), stage
        # The projection is onto numbers of size 1, so it is off by about the norm of the error.
        assert projection == pytest.approx(expected[stage][1], abs=TOLERANCE * norm), stage
    np.testing.assert_allclose(logits, wanted, atol=TOLERANCE * abs(wanted).max())


@pytest.mark.parametrize('model', ours.cases(parity.TRAINED, PLAIN_STEP, ()))
def test_one_sgd_step_equals_pytorch(golden, model):
    expected = golden['step'][model]
    tensors = torch_weights.tensors(model, 'torchvision', parity.CLASSES, channels=3)
    found, losses = ours.sgd_step(model)
    assert losses == pytest.approx(expected['loss'], rel=1e-7)
    assert sorted(t.key for t in tensors) == sorted(expected['tensors'])
    # A bias before batch norm has gradient 0, but for rounding: hence the largest norm.
    largest = max(norm for norm, _ in expected['tensors'].values())
    for tensor in tensors:
        numbers = parity.summary(tensor.key, tensor.to_torch(found[tensor.path]))
        wanted = expected['tensors'][tensor.key]
        assert numbers == pytest.approx(wanted, abs=1e-7 * wanted[0] + 1e-13 * largest), tensor.key
