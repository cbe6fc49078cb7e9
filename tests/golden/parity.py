"""Weights and images by a formula, and what of the results is kept in parity.json.

make_parity.py computes it with PyTorch, tests/models/test_parity.py with the networks here.
"""

import hashlib
import math
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name('parity.json')
CLASSES = 10
SIZE = 64  # pixels; AlexNet needs 63
TRAINED = ('alexnet', 'vgg11_bn', 'resnet18', 'resnet50', 'densenet121')
LEARNING_RATE = 0.001
# Layouts other than torchvision's whose logits are kept, for the names that differ.
OTHER_LAYOUTS = (('vgg11', 'timm'), ('resnet18', 'huggingface'), ('resnet50', 'huggingface'))
RESIDUAL_ENDS = ('.bn2.weight', '.bn3.weight', *[f'r.{i}.normalization.weight' for i in (1, 2)])


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1), in float64; the same for the same name with every version of NumPy.

    RandomState's stream is frozen (NEP 19), unlike that of the newer generators.
    """
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)


def value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor of a state dict, by its name there; float32, so that it is exact everywhere.

    Kernels keep the size of what passes through: variance 2 / fan_in. Batch norm has no 0 and no 1
    anywhere, and ends a residual branch with small scales, so that 50 blocks do not explode.
    """
    draw = noise(key, shape)
    if len(shape) > 1:
        draw *= math.sqrt(3 * 2 / math.prod(shape[1:]))
    elif key.endswith(('bias', 'running_mean')):
        draw *= 0.2
    else:
        draw = 1 + 0.4 * draw
        if key.endswith(RESIDUAL_ENDS):
            draw *= 0.4
    return draw.astype(np.float32)


def batch(count: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [count, size, size, 3] of variance 1, float32, and labels [count]."""
    images = math.sqrt(3) * noise('images', (count, size, size, 3))
    return images.astype(np.float32), np.arange(count) * 3 % CLASSES


def summary(name: str, array: np.ndarray) -> list[float]:
    """Returns the norm, and a projection that tells each place from the others."""
    array = np.asarray(array, np.float64)
    projection = (array * noise(f'projection {name}', array.shape)).sum()
    return [float(np.sqrt(np.square(array).sum())), float(projection)]


def rounded(numbers: Iterable[float]) -> list[float]:
    """Returns numbers with as many digits as are kept."""
    return [float(f'{number:.9g}') for number in numbers]


def names_digest(shapes: Iterable[tuple[str, tuple[int, ...], str]]) -> str:
    """Returns the SHA-256 of the lines 'key shape dtype' of a state dict, in its order."""
    lines = ''.join(f'{key} {list(shape)} {dtype}\n' for key, shape, dtype in shapes)
    return hashlib.sha256(lines.encode()).hexdigest()
