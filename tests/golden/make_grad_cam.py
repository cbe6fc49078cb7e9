"""Makes grad_cam.json: Grad-CAM by PyTorch, from weights that a formula gives.

    python -m tests.golden.make_grad_cam

It needs torch_reference.py's libraries (made with torch 2.13.0 and torchvision 0.28.0, in float64
on the CPU). Written after Selvaraju et al. 2017, equations 1 and 2, with PyTorch's hooks and its
own differentiation; it shares nothing with inspection/grad_cam.py but the paper.
"""

import json

import numpy as np
import torch

from tests.golden import grad_cams, parity, torch_reference


def _heat(stage: torch.Tensor) -> np.ndarray:
    """Returns the map [b, h, w] of a stage [b, c, h, w] whose gradient was kept."""
    weights = stage.grad.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * stage.detach()).sum(dim=1)).numpy()


def _maps(model: str, target: int) -> dict[str, np.ndarray]:
    """Returns {stage: the maps of both images for a class}."""
    network = torch_reference.create(model, 'torchvision', parity.CLASSES)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(parity.value(key, tuple(tensor.shape))))
    network = network.double()
    found = {}

    def keep(name):
        def hook(_module, _inputs, output):
            # ReLU in place would change it after it was kept.
            found[name] = kept = output.clone()
            kept.retain_grad()
            return kept

        return hook

    for name, module in torch_reference.stage_modules(network, model, 'torchvision').items():
        if name != 'norm' and not name.startswith('dense'):
            network.get_submodule(module).register_forward_hook(keep(name))
    images = torch_reference.to_torch(grad_cams.inputs(), torch.float64)
    if model.startswith('densenet'):
        # Its last ReLU is no module in torchvision.
        found['norm'] = last = network.features(images).relu()
        last.retain_grad()
        logits = network.classifier(last.mean(dim=(2, 3)))
    else:
        logits = network(images)
    logits[:, target].sum().backward()
    return {name: _heat(stage) for name, stage in found.items()}


def main() -> None:
    golden = {'torch': torch.__version__, 'maps': {}}
    for model in grad_cams.MODELS:
        for target in grad_cams.CLASSES:
            maps = _maps(model, target)
            last = parity.rounded(next(reversed(maps.values())).ravel())
            golden['maps'][f'{model} {target}'] = {
                'stages': {n: parity.rounded(parity.summary(n, m)) for n, m in maps.items()},
                'last': last,
            }
    grad_cams.GOLDEN.write_text(json.dumps(golden, indent=0, separators=(',', ':')) + '\n')
    print(f'wrote {grad_cams.GOLDEN}, {grad_cams.GOLDEN.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
