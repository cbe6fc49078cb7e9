"""Grad-CAM against PyTorch's, without PyTorch: against the maps that it left in grad_cam.json.

The weights are torchvision's by a formula; PyTorch computed in float64, the code here in float32.
"""

import json

import numpy as np
import pytest

from inspection.grad_cam import combined
from models.pretrained import torch_weights
from tests.golden import grad_cams, parity
from tests.inspection.untrained import chosen, untrained
from tests.models import ours

# Relative to the sum of the channels' sizes, most of which may cancel; the most seen is 1e-6.
TOLERANCE = 1e-5


def sizes(maps, slopes):
    """The norm of the sum over the channels if none of them cancelled another."""
    weights = np.abs(slopes.mean((1, 2)))
    return np.linalg.norm(np.einsum('bhwc,bc->bhw', np.abs(maps), weights))


@pytest.mark.usefixtures('compiled_in_haste')
@pytest.mark.parametrize(
    'model', ours.cases(grad_cams.MODELS, ('resnet18', 'densenet121'), ('resnet18',))
)
def test_maps_of_every_stage_equal_pytorch(model):
    golden = json.loads(grad_cams.GOLDEN.read_text())['maps']
    variables, _ = torch_weights.from_torch(ours.state_dict(model, 'torchvision'), model)
    pixels = grad_cams.pixels()
    network = untrained(model, pixels.shape[1:], parity.CLASSES, variables=variables)
    np.testing.assert_allclose(network.inputs(pixels), grad_cams.inputs(), atol=1e-6)
    worst = 0.0
    for target in grad_cams.CLASSES:
        expected = golden[f'{model} {target}']
        found = network.gradients(pixels, chosen(network, str(target)))
        for stage, (norm, projection) in expected['stages'].items():
            heat = combined(found.stages[stage], found.slopes[stage])
            same_norm, same_projection = parity.summary(stage, heat)
            off = max(abs(same_norm - norm), abs(same_projection - projection))
            worst = max(worst, off / sizes(found.stages[stage], found.slopes[stage]))
            assert worst <= TOLERANCE, stage
        np.testing.assert_allclose(heat.ravel(), expected['last'], atol=TOLERANCE * heat.max())
    print(f'{model}: {worst:.1e}')
