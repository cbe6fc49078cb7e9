"""Makes lenet_step.json: one SGD step of LeNet in PyTorch, from weights that a formula gives.

    python tests/golden/make_lenet_step.py

It needs torch (made with 2.13.0, float64 on the CPU) and numpy. Make it anew only when the formulas
below change; a test that disagrees with it is wrong about LeNet. The tests import the formulas.
"""

import json
from pathlib import Path

import numpy as np

LEARNING_RATE = 0.001
# Shapes as in Flax: convolutions [height, width, in, out], dense layers [in, out].
SHAPES = {
    'conv1/kernel': (5, 5, 1, 6),
    'conv1/bias': (6,),
    'conv2/kernel': (5, 5, 6, 16),
    'conv2/bias': (16,),
    'dense1/kernel': (400, 120),
    'dense1/bias': (120,),
    'dense2/kernel': (120, 84),
    'dense2/bias': (84,),
    'head/kernel': (84, 10),
    'head/bias': (10,),
}


def wave(shape: tuple[int, ...], frequency: float) -> np.ndarray:
    """Numbers in [-1, 1] that neither repeat nor tie: sin(frequency x (i + 1)^1.1)."""
    count = np.arange(1, np.prod(shape) + 1, dtype=np.float64)
    return np.sin(frequency * count**1.1).reshape(shape)


def parameters() -> dict[str, np.ndarray]:
    """Weights of variance about 2 / fan_in, biases of 0.1."""
    result = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        fan_in = np.prod(shape[:-1])
        scale = 2 / np.sqrt(fan_in) if name.endswith('kernel') else 0.1
        result[name] = scale * wave(shape, 0.7 + 0.1 * i)
    return result


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Eight images [8, 28, 28, 1] and their labels [8]."""
    return wave((8, 28, 28, 1), 0.37), np.arange(8) * 3 % 10


def _to_torch(name: str, value: np.ndarray) -> np.ndarray:
    """Brings a parameter into PyTorch's layout; dense1 reads [c, h, w] there, [h, w, c] in Flax."""
    if name == 'dense1/kernel':
        value = value.reshape(5, 5, 16, 120).transpose(2, 0, 1, 3).reshape(400, 120)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def summary(gradient: np.ndarray) -> dict[str, float]:
    """Three numbers of a gradient in Flax's layout; the last tells each place from the others."""
    return {
        'sum': float(gradient.sum()),
        'norm': float(np.sqrt(np.square(gradient).sum())),
        'projection': float((gradient * wave(gradient.shape, 1.9)).sum()),
    }


def _from_torch(name: str, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name == 'dense1/kernel':
        return value.T.reshape(16, 5, 5, 120).transpose(1, 2, 0, 3).reshape(400, 120)
    return value.T


def main() -> None:
    import torch
    from torch.nn import functional

    tensors = {}
    for name, value in parameters().items():
        tensors[name] = torch.tensor(_to_torch(name, value).copy(), requires_grad=True)
    images, labels = batch()
    images = torch.tensor(images.transpose(0, 3, 1, 2).copy())

    def loss():
        def layer(name):
            return tensors[f'{name}/kernel'], tensors[f'{name}/bias']

        x = torch.relu(functional.conv2d(images, *layer('conv1'), padding=2))
        x = functional.max_pool2d(x, 2)
        x = torch.relu(functional.conv2d(x, *layer('conv2')))
        x = functional.max_pool2d(x, 2).flatten(1)
        x = torch.relu(functional.linear(x, *layer('dense1')))
        x = torch.relu(functional.linear(x, *layer('dense2')))
        return functional.cross_entropy(functional.linear(x, *layer('head')), torch.tensor(labels))

    optimizer = torch.optim.SGD(tensors.values(), lr=LEARNING_RATE)
    before = loss()
    before.backward()
    gradients = {
        name: summary(_from_torch(name, tensor.grad.numpy())) for name, tensor in tensors.items()
    }
    optimizer.step()
    golden = {
        'torch': torch.__version__,
        'learning_rate': LEARNING_RATE,
        'loss_before': before.item(),
        'loss_after': loss().item(),
        'gradients': gradients,
        'updated_sums': {name: tensor.sum().item() for name, tensor in tensors.items()},
    }
    path = Path(__file__).with_name('lenet_step.json')
    path.write_text(json.dumps(golden, indent=1) + '\n')
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
