"""A small streamed set with an object for each pixel: discs on a noisy ground, of many sizes."""

from pathlib import Path

import numpy as np
from PIL import Image

from tools import prepare_data

NAME = 'discs'
COUNTS = {'train': 24, 'val': 6, 'test': 9}


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns (pixels uint8 [h, w, 3], objects uint16 [h, w]) of 20 to 150 pixels a side."""
    height, width = rng.integers(20, 150, 2)
    pixels = rng.integers(20, 70, (height, width, 3))
    objects = np.zeros((height, width), np.uint16)
    y, x = np.mgrid[:height, :width]
    for number in range(1, 1 + height * width // 900):
        radius = rng.integers(4, 9)
        inside = (y - rng.integers(height)) ** 2 + (x - rng.integers(width)) ** 2 < radius**2
        objects[inside & (objects == 0)] = number
    pixels[objects > 0] += 120
    return pixels.astype(np.uint8), objects


def write(folder: Path) -> Path:
    """Writes the pictures and their masks below train, val and test."""
    rng = np.random.default_rng(5)
    for split, count in COUNTS.items():
        for kind in ('images', 'labels'):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            pixels, objects = picture(rng)
            Image.fromarray(pixels).save(folder / split / 'images' / f'{split}{number}.png')
            Image.fromarray(objects).save(folder / split / 'labels' / f'{split}{number}.png')
    return folder


def prepare(folder: Path) -> Path:
    """Prepares the set in a folder of data sets; returns it."""
    source = write(folder / 'source')
    command = ['masks', '--instances', f'--name={NAME}', f'--source={source}']
    assert prepare_data.main([*command, f'--data_dir={folder}']) == 0
    return folder
