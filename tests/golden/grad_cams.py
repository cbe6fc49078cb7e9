"""What is asked of Grad-CAM on both sides: the images, the classes, and what is kept.

make_grad_cam.py computes it with PyTorch into grad_cam.json, tests/inspection/test_golden.py with
the code here. The weights are those of parity.py.
"""

from pathlib import Path

import numpy as np

from tests.golden import parity

GOLDEN = Path(__file__).with_name('grad_cam.json')
MODELS = ('resnet18', 'vgg11_bn', 'densenet121')
CLASSES = (3, 8)
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1]


def pixels() -> np.ndarray:
    """Returns two images of noise, uint8 [2, 64, 64, 3]."""
    noise = parity.noise('pixels of Grad-CAM', (2, parity.SIZE, parity.SIZE, 3))
    return np.floor((noise + 1) * 128).astype(np.uint8)


def inputs() -> np.ndarray:
    """Returns what the networks get of them, float64."""
    return (pixels() / 255 - MEAN) / STD
