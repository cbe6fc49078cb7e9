"""A small streamed set with boxes: rectangles of three colors on a noisy ground, of many sizes."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tools import prepare_data

NAME = 'patches'
COUNTS = {'train': 24, 'val': 7, 'test': 10}
CLASSES = ('red', 'green', 'blue')
SIDEWAYS = 6  # the orientation of EXIF: a quarter turn clockwise brings the picture upright


def picture(rng: np.random.Generator, most: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Returns (pixels uint8 [h, w, 3], objects int [n, 5]: top, left, bottom, right, class)."""
    height, width = rng.integers(40, 150, 2)
    pixels = rng.integers(20, 70, (height, width, 3)).astype(np.uint8)
    objects = []
    for _ in range(rng.integers(0, most + 1)):
        sides = rng.integers(6, 30, 2)
        top, left = rng.integers(0, (height - sides[0], width - sides[1]))
        label = int(rng.integers(len(CLASSES)))
        box = (int(top), int(left), int(top + sides[0]), int(left + sides[1]))
        pixels[box[0] : box[2], box[1] : box[3], label] = 230
        objects.append((*box, label))
    return pixels, np.array(objects, np.int64).reshape(-1, 5)


def save(pixels: np.ndarray, path: Path, sideways: bool = False) -> None:
    """Writes pixels losslessly; `sideways` lays them on their side, and EXIF says so."""
    if not sideways:
        Image.fromarray(pixels).save(path)
        return
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    Image.fromarray(np.rot90(pixels)).save(path, exif=exif)


def write(folder: Path) -> list[str]:
    """Writes pictures and annotations in COCO's format; returns arguments of prepare_data.

    Each fifth picture lies on its side, and each seventh has a box around several objects. The
    first one of test has no box.
    """
    rng = np.random.default_rng(9)
    categories = [{'id': number, 'name': name} for number, name in enumerate(CLASSES)]
    files = []
    for split, count in COUNTS.items():
        images, annotations = [], []
        for number in range(count):
            pixels, objects = picture(rng, 0 if (split, number) == ('test', 0) else 5)
            name = f'{split}{number}.png'
            (folder / split).mkdir(parents=True, exist_ok=True)
            save(pixels, folder / split / name, sideways=number % 5 == 4)
            height, width = map(int, pixels.shape[:2])
            images.append(
                {'id': number, 'file_name': f'{split}/{name}', 'height': height, 'width': width}
            )
            for row, (top, left, bottom, right, label) in enumerate(objects.tolist()):
                annotations.append(
                    {
                        'id': 100 * number + row,
                        'image_id': number,
                        'category_id': label,
                        'bbox': [left, top, right - left, bottom - top],
                        'iscrowd': int(number % 7 == 6 and row == 0),
                    }
                )
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        files.append(folder / f'instances_{split}.json')
        files[-1].write_text(json.dumps(content))
    return ['coco', '--targets=boxes', f'--source={folder}', '--annotations', *map(str, files)]


def prepare(folder: Path) -> Path:
    """Prepares the set in a folder of data sets; returns it."""
    command = write(folder / 'source')
    assert prepare_data.main([*command, f'--name={NAME}', f'--data_dir={folder}']) == 0
    return folder
