"""Writes head_parity.json: the heads of models/heads/segmentation.py as PyTorch computes them.

    python -m tests.golden.make_head_parity

Needs PyTorch. The heads are written anew here, from the papers' figures, with PyTorch's own layers.
"""

import json

import torch
import torch.nn.functional as F

from tests.golden import head_parity, parity


def parameter(name, shape):
    """A tensor by the formula of parity.py."""
    return torch.from_numpy(parity.value(name, shape))


def normalized(x, name):
    """Batch norm with stored statistics, and ReLU."""
    channels = (x.shape[1],)
    mean, var, weight, bias = (
        parameter(f'{name}.{part}', channels)
        for part in ('running_mean', 'running_var', 'weight', 'bias')
    )
    return F.relu(F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5))


def unet(maps):
    """Ronneberger et al. 2015, figure 1, upwards; enlarged by repetition, cut at the end."""
    x = maps[32]
    for stride in (16, 8, 4, 2, 1):
        x = F.interpolate(x, scale_factor=2, mode='nearest')
        height, width = maps[stride].shape[2:] if stride > 1 else head_parity.SIZE
        x = x[:, :, :height, :width]
        if stride > 1:
            x = torch.cat([x, maps[stride]], 1)
        features = head_parity.WIDTH * stride
        for i in (1, 2):
            weight = parameter(f'stride{stride}_conv{i}.weight', (features, x.shape[1], 3, 3))
            x = normalized(F.conv2d(x, weight, padding=1), f'stride{stride}_norm{i}')
    shape = (head_parity.CLASSES, x.shape[1], 1, 1)
    bias = parameter('logits.bias', shape[:1])
    return F.conv2d(x, parameter('logits.weight', shape), bias)


def enlarged(x, factor, size):
    """Bilinear, with the first position at the first of the result; the edge goes on."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, 1, 0, 1), mode='replicate')
    corners = (height * factor + 1, width * factor + 1)
    return F.interpolate(x, corners, mode='bilinear', align_corners=True)[..., : size[0], : size[1]]


def fcn8s(maps):
    """Long et al. 2015, figure 3: scores at 32, 16 and 8, each enlarged to the next and added."""
    total = None
    for stride in (32, 16, 8):
        shape = (head_parity.CLASSES, maps[stride].shape[1], 1, 1)
        bias = parameter(f'stride{stride}.bias', shape[:1])
        scores = F.conv2d(maps[stride], parameter(f'stride{stride}.weight', shape), bias)
        total = scores if total is None else scores + enlarged(total, 2, scores.shape[2:])
    return enlarged(total, 8, head_parity.SIZE)


def main():
    """Computes and writes all."""
    maps = {stride: torch.from_numpy(x) for stride, x in head_parity.maps().items()}
    found = {}
    for name, head in (('unet', unet), ('fcn8s', fcn8s)):
        leaves = {stride: x.clone().requires_grad_() for stride, x in maps.items()}
        logits = head(leaves)
        logits.square().sum().backward()
        found[name] = {'logits': parity.rounded(parity.summary(name, logits.detach().numpy()))}
        for stride, leaf in leaves.items():
            if leaf.grad is not None:
                numbers = parity.summary(f'{name} {stride}', leaf.grad.numpy())
                found[name][f'gradient {stride}'] = parity.rounded(numbers)
    head_parity.GOLDEN.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
