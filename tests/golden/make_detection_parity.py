"""Writes detection_parity.json: the head of models/heads/detection.py as PyTorch computes it.

    python -m tests.golden.make_detection_parity

Needs PyTorch. The head is written anew here, from the papers, with PyTorch's own layers.
"""

import json

import torch
import torch.nn.functional as F
from torch import nn

from tests.golden import detection_parity, parity


def number_of_groups(channels):
    """The largest number of groups, at most 32, that is a power of two and divides the channels."""
    return max(groups for groups in (1, 2, 4, 8, 16, 32) if channels % groups == 0)


class Detector(nn.Module):
    """Feature pyramid (Lin et al. 2017, figure 3) and FCOS (Tian et al. 2019, figure 2).

    With the changes of the authors' later version: centerness on the boxes' tower, distances in
    strides.
    """

    def __init__(self, channels):
        super().__init__()
        width = detection_parity.CHANNELS
        coarsest = max(channels)
        for stride, count in channels.items():
            self.add_module(f'lateral{stride}', nn.Conv2d(count, width, 1))
        for stride in detection_parity.STRIDES:
            step = 2 if stride > coarsest else 1
            self.add_module(f'pyramid{stride}', nn.Conv2d(width, width, 3, step, 1))
            self.register_parameter(f'scale{stride}', nn.Parameter(torch.ones(1)))
        for tower in ('classes', 'boxes'):
            for i in range(1, detection_parity.DEPTH + 1):
                self.add_module(f'{tower}_conv{i}', nn.Conv2d(width, width, 3, 1, 1, bias=False))
                norm = nn.GroupNorm(number_of_groups(width), width, eps=1e-5)
                self.add_module(f'{tower}_norm{i}', norm)
        self.logits = nn.Conv2d(width, detection_parity.CLASSES, 3, 1, 1)
        self.distances = nn.Conv2d(width, 4, 3, 1, 1)
        self.centerness = nn.Conv2d(width, 1, 3, 1, 1)
        self.coarsest = coarsest

    def tower(self, name, x):
        """The convolutions of a tower."""
        for i in range(1, detection_parity.DEPTH + 1):
            x = F.relu(getattr(self, f'{name}_norm{i}')(getattr(self, f'{name}_conv{i}')(x)))
        return x

    def pyramid(self, maps):
        """{stride: map} of all levels."""
        merged, found = None, {}
        for stride in sorted(maps, reverse=True):
            x = getattr(self, f'lateral{stride}')(maps[stride])
            if merged is not None:
                larger = F.interpolate(merged, scale_factor=2, mode='nearest')
                x = x + larger[:, :, : x.shape[2], : x.shape[3]]
            merged = x
            found[stride] = getattr(self, f'pyramid{stride}')(x)
        p6 = getattr(self, f'pyramid{2 * self.coarsest}')(found[self.coarsest])
        p7 = getattr(self, f'pyramid{4 * self.coarsest}')(F.relu(p6))
        return {**found, 2 * self.coarsest: p6, 4 * self.coarsest: p7}

    def forward(self, maps):
        """(logits [b, L, classes], distances [b, L, 4], centerness [b, L])."""
        found = []
        for stride, x in sorted(self.pyramid(maps).items()):
            boxes = self.tower('boxes', x)
            distances = stride * torch.exp(self.distances(boxes) * getattr(self, f'scale{stride}'))
            parts = (self.logits(self.tower('classes', x)), distances, self.centerness(boxes))
            found.append([part.permute(0, 2, 3, 1).flatten(1, 2) for part in parts])
        logits, distances, centerness = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return {'logits': logits, 'distances': distances, 'centerness': centerness[..., 0]}


def computed():
    """{output or 'gradient NAME': array}: NAME is a stride or PyTorch's name of a parameter."""
    maps = {stride: torch.from_numpy(x) for stride, x in detection_parity.maps().items()}
    head = Detector({stride: x.shape[1] for stride, x in maps.items()})
    for name, parameter in head.named_parameters():
        key = f'{name}.weight' if name.startswith('scale') else name
        parameter.data = torch.from_numpy(parity.value(key, tuple(parameter.shape)))
    for x in maps.values():
        x.requires_grad_()
    outputs = head(maps)
    (outputs['logits'].square().sum() + outputs['centerness'].square().sum()).backward(
        retain_graph=True
    )
    (outputs['distances'].sum() / 100).backward()
    leaves = {**{str(stride): x for stride, x in maps.items()}, **dict(head.named_parameters())}
    slopes = {f'gradient {name}': leaf.grad for name, leaf in leaves.items()}
    return {name: x.detach().numpy() for name, x in {**outputs, **slopes}.items()}


def main():
    """Computes and writes all."""
    found = {name: parity.rounded(parity.summary(name, x)) for name, x in computed().items()}
    lines = (f' {json.dumps(name)}: {json.dumps(numbers)}' for name, numbers in found.items())
    detection_parity.GOLDEN.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
    main()
