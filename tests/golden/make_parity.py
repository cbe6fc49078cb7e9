"""Makes parity.json: what torchvision's networks compute from weights that a formula gives.

    python -m tests.golden.make_parity

It needs torch_reference.py's libraries (made with torch 2.13.0 and torchvision 0.28.0, in float64
on the CPU). Make it anew only when the formulas in parity.py or the set of models change; a test
that disagrees with it is wrong about the network.
"""

import json
from typing import Any

import torch

from tests.golden import torch_reference
from tests.golden.parity import (
    CLASSES,
    GOLDEN,
    LEARNING_RATE,
    OTHER_LAYOUTS,
    TRAINED,
    batch,
    names_digest,
    rounded,
    summary,
    value,
)


def _names(model: str, layout: str) -> str:
    with torch.device('meta'):
        state = torch_reference.create(model, layout).state_dict()
    return names_digest((k, tuple(v.shape), str(v.dtype).split('.')[1]) for k, v in state.items())


def _network(model: str, layout: str) -> torch.nn.Module:
    """Returns the library's network with the formula's weights, in float64."""
    network = torch_reference.create(model, layout, CLASSES)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(value(key, tuple(tensor.shape))))
    return network.double()


def _forward(model: str, layout: str) -> dict[str, list]:
    images, _ = batch(2)
    found = torch_reference.stages(_network(model, layout), model, layout, images)
    logits = found.pop('logits')
    stages = {name: rounded(summary(name, stage)) for name, stage in found.items()}
    return {**stages, 'logits': [rounded(row) for row in logits.tolist()]}


def _step(model: str) -> dict[str, Any]:
    """Returns the gradients and new statistics of one SGD step, and the loss before and after."""
    network = _network(model, 'torchvision')
    tensors, losses = torch_reference.sgd_step(network, *batch(4), LEARNING_RATE)
    return {
        'loss': losses,
        'tensors': {key: rounded(summary(key, array)) for key, array in tensors.items()},
    }


def main() -> None:
    every = torch_reference.every_layout()
    computed = [pair for pair in every if pair[1] == 'torchvision' or pair in OTHER_LAYOUTS]
    golden = {
        'torch': torch.__version__,
        'names': {f'{model} {layout}': _names(model, layout) for model, layout in every},
        'forward': {f'{model} {layout}': _forward(model, layout) for model, layout in computed},
        'step': {model: _step(model) for model in TRAINED},
    }
    GOLDEN.write_text(json.dumps(golden, indent=0, separators=(',', ':')) + '\n')
    print(f'wrote {GOLDEN}, {GOLDEN.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
