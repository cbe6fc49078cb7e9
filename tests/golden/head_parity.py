"""Maps and sizes for which PyTorch's results are kept in head_parity.json."""

import math
from pathlib import Path

import numpy as np

from tests.golden import parity

GOLDEN = Path(__file__).with_name('head_parity.json')
SIZE = (70, 90)  # height and width of the images, which no stride divides
CLASSES, WIDTH = 5, 4
CHANNELS = {2: 16, 4: 16, 8: 32, 16: 64, 32: 128}  # those of ResNet-18 at a quarter of its width


def maps() -> dict[int, np.ndarray]:
    """Returns {stride: float32 [2, channels, h, w]}: a ResNet's sizes, numbers by a formula."""
    return {
        stride: parity.noise(
            f'map {stride}', (2, channels, *(math.ceil(side / stride) for side in SIZE))
        ).astype(np.float32)
        for stride, channels in CHANNELS.items()
    }
