"""The head and its input for which PyTorch's results are kept in detection_parity.json."""

from pathlib import Path

import numpy as np

from tests.golden import head_parity

GOLDEN = Path(__file__).with_name('detection_parity.json')
CLASSES, CHANNELS, DEPTH, EXTRA = 3, 40, 2, 2  # 40 channels have 8 groups
LEVELS = (8, 16, 32)
STRIDES = (*LEVELS, 64, 128)


def maps() -> dict[int, np.ndarray]:
    """Returns {stride: float32 [2, channels, h, w]} of a ResNet at sizes that no stride divides."""
    return {stride: x for stride, x in head_parity.maps().items() if stride in LEVELS}
