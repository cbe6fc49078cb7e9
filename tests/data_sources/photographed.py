"""A hundred digits as a phone would photograph them: made here, the same on every machine.

Ten writers, each of whom wrote all ten digits: five fonts that matplotlib ships (one upright text
face of each family) and five pens, whose forms, slants, widths and trembling differ. Every digit is
there in each style. The writers, the styles and the seed were fixed before the function that is
measured with them was written. How many a network reads:

    python -m tests.data_sources.photographed --workdir=runs/mnist_lenet
"""

import argparse
import tempfile
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import make_interp_spline

from data_sources import handwriting
from errors import UserError
from training import prediction, trained
from training.trained import Trained

SEED = 24
HEIGHT, WIDTH = 320, 240  # pixels of a photo
FONTS = ('DejaVuSans', 'DejaVuSerif', 'STIXGeneral', 'cmr10', 'cmss10')
# The width of the stroke over the height of the digit, the slant to the right, width over height.
PENS = {
    'ballpoint': (0.05, 0.15, 0.60),
    'pencil': (0.07, 0.00, 0.55),
    'fountain pen': (0.09, 0.30, 0.65),
    'felt tip': (0.12, -0.10, 0.70),
    'marker': (0.16, 0.10, 0.70),
}
WRITERS = (*FONTS, *PENS)
_PEN = 200  # pixels in height of a digit before it is laid on paper

# How people write them: for each digit one form or two, of strokes through points (x, y), y down.
# Three points and more are a curve, unless the stroke begins with 'edged'.
_FORMS = {
    0: [[[(0.5, 0), (0.12, 0.2), (0.03, 0.55), (0.3, 0.97), (0.75, 0.93), (0.97, 0.5), (0.8, 0.1),
          (0.45, 0.01)]]],
    1: [[[(0.5, 0), (0.5, 1)]], [[(0.2, 0.28), (0.55, 0)], [(0.55, 0), (0.55, 1)]]],
    2: [[[(0.08, 0.22), (0.4, 0), (0.85, 0.2), (0.6, 0.6), (0.03, 1)], [(0.03, 1), (0.97, 0.96)]],
        [[(0.1, 0.2), (0.5, 0), (0.85, 0.25), (0.5, 0.7), (0.15, 0.98), (0.05, 0.85), (0.3, 0.8),
          (0.6, 0.97), (1, 0.9)]]],
    3: [[[(0.08, 0.12), (0.45, 0), (0.85, 0.2), (0.4, 0.46)],
         [(0.4, 0.46), (0.92, 0.68), (0.6, 0.98), (0.05, 0.9)]]],
    4: [[['edged', (0.3, 0), (0.05, 0.6), (0.97, 0.55)], [(0.72, 0.3), (0.62, 1)]],
        [['edged', (0.72, 1), (0.75, 0), (0.03, 0.66), (1, 0.66)]]],
    5: [[['edged', (0.9, 0), (0.25, 0.02), (0.18, 0.45)],
         [(0.18, 0.45), (0.6, 0.4), (0.92, 0.66), (0.6, 0.98), (0.05, 0.94)]]],
    6: [[[(0.75, 0), (0.25, 0.3), (0.05, 0.7), (0.4, 1), (0.85, 0.85), (0.7, 0.58), (0.3, 0.6),
          (0.08, 0.8)]]],
    7: [[['edged', (0.03, 0.04), (0.97, 0), (0.4, 1)]],
        [['edged', (0.03, 0.04), (0.97, 0), (0.4, 1)], [(0.25, 0.52), (0.85, 0.48)]]],
    8: [[[(0.85, 0.12), (0.45, 0), (0.15, 0.2), (0.5, 0.46), (0.88, 0.75), (0.5, 1), (0.12, 0.78),
          (0.5, 0.46), (0.85, 0.22), (0.8, 0.08)]]],
    9: [[[(0.88, 0.12), (0.45, 0), (0.08, 0.25), (0.35, 0.5), (0.85, 0.2)],
         [(0.88, 0.12), (0.8, 1)]],
        [[(0.85, 0.12), (0.4, 0), (0.08, 0.28), (0.4, 0.5), (0.85, 0.15), (0.8, 0.65), (0.5, 0.97),
          (0.15, 0.92)]]],
}  # fmt: skip


@cache
def glyph(writer: str, digit: int) -> np.ndarray:
    """Returns the ink of a digit, float [200, width], 0 (none) to 1, without margins."""
    ink = np.asarray(_printed(writer, digit) if writer in FONTS else _written(writer, digit))
    return _cut(ink / np.float32(255))


def _cut(ink: np.ndarray) -> np.ndarray:
    """Returns the ink without its margins, 200 pixels high."""
    rows, columns = np.flatnonzero(ink.max(1) > 0.5), np.flatnonzero(ink.max(0) > 0.5)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = (round(ink.shape[1] * _PEN / ink.shape[0]), _PEN)
    return np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))


def _printed(font: str, digit: int) -> Image.Image:
    """Returns the digit of a font, bright on black, with margins."""
    file = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / f'{font}.ttf'
    sheet = Image.new('L', (4 * _PEN, 4 * _PEN))
    ImageDraw.Draw(sheet).text(
        (_PEN, _PEN), str(digit), 255, ImageFont.truetype(str(file), 2 * _PEN)
    )
    return sheet


def _written(pen: str, digit: int) -> Image.Image:
    """Returns the digit as it was written with a pen, bright on black, with margins."""
    number = [*PENS].index(pen)
    width, slant, aspect = PENS[pen]
    rng = np.random.default_rng([SEED, number, digit])
    forms = _FORMS[digit]
    side = 2 * _PEN
    sheet = Image.new('L', (2 * side, 2 * side))
    draw = ImageDraw.Draw(sheet)
    radius = width * side / 2
    for stroke in forms[number % len(forms)]:
        edged = stroke[0] == 'edged'
        points = np.array(stroke[1:] if edged else stroke, float)
        points += rng.normal(0, 0.025, points.shape)  # no hand repeats itself
        degree = 1 if edged or len(points) == 2 else min(3, len(points) - 1)
        lengths = np.hypot(*np.diff(points, axis=0).T)
        at = np.concatenate([[0], np.cumsum(np.sqrt(lengths))])
        path = make_interp_spline(at, points, degree)(np.linspace(0, at[-1], 400))
        across = path[:, 0] * aspect + (1 - path[:, 1]) * slant
        for x, y in zip(across * side + side / 2, path[:, 1] * side + side / 2, strict=True):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return sheet


def _laid(ink: np.ndarray, size: float, centre: tuple[float, float]) -> np.ndarray:
    """Returns the ink on a sheet, as high as `size` of its width, centred at (x, y) of 0 to 1."""
    scale = size * WIDTH / _PEN
    shape = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    small = Image.fromarray(np.float32(ink)).resize(shape, Image.Resampling.BICUBIC)
    sheet = Image.new('F', (WIDTH, HEIGHT))
    corner = (round(centre[0] * WIDTH - shape[0] / 2), round(centre[1] * HEIGHT - shape[1] / 2))
    sheet.paste(small, corner)
    return np.clip(np.asarray(sheet), 0, 1)


def _tilted(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns a sheet by up to 12 degrees, and moves its corners by up to 8 % of its sides."""
    angle = np.deg2rad(rng.uniform(-12, 12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    side = np.array([WIDTH, HEIGHT])
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * side
    moved = (corners - side / 2) @ turn + side / 2 + rng.uniform(-0.08, 0.08, (4, 2)) * side
    # The eight numbers of the projective map from the new picture's corners to the old one's.
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    numbers = np.linalg.solve(np.array(rows), np.array(values))
    sheet = Image.fromarray(np.float32(ink)).transform(
        (WIDTH, HEIGHT), Image.Transform.PERSPECTIVE, tuple(numbers), Image.Resampling.BILINEAR
    )
    return np.asarray(sheet)


def _shadow(rng: np.random.Generator) -> np.ndarray:
    """Returns the light on a sheet, 0 to 1: it falls off to one side, and something is in it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    middle = (WIDTH / HEIGHT / 2, 0.5)

    def across(angle: float) -> np.ndarray:
        return (x - middle[0]) * np.cos(angle) + (y - middle[1]) * np.sin(angle)

    light = 0.8 + 0.4 * across(rng.uniform(0, 2 * np.pi))
    edge = across(rng.uniform(0, 2 * np.pi)) + rng.uniform(-0.15, 0.15)
    softness, depth = rng.uniform(0.02, 0.1), rng.uniform(0.4, 0.6)
    return np.clip(light, 0, 1) * (1 - depth / (1 + np.exp(-edge / softness * 4)))


def _grey(rng: np.random.Generator) -> tuple[float, float]:
    """Returns the brightness, 0 to 1, of grey paper and of dark ink on it."""
    paper = rng.uniform(0.4, 0.7)
    return paper, paper * rng.uniform(0.3, 0.5)


def _noisy(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds a sensor's noise (5 % of white) and eight specks of dust."""
    pixels = pixels + rng.normal(0, 0.05, pixels.shape)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(8):
        row, column, radius = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH), rng.uniform(0.5, 2)
        pixels = np.where((y - row) ** 2 + (x - column) ** 2 <= radius**2, 0.3, pixels)
    return pixels


def _place(rng: np.random.Generator) -> dict:
    """Returns a size and a place, off centre and wholly on the sheet."""
    size = rng.uniform(0.25, 0.4)
    low = size / 2 + 0.06  # the widest digit is hardly wider than high
    return {'size': size, 'centre': (rng.uniform(low, 1 - low), rng.uniform(low, 1 - low))}


def _photo(
    ink: np.ndarray,
    rng: np.random.Generator,
    shadow: bool = False,
    tilt: bool = False,
    noise: bool = False,
    grey: bool = False,
    off_centre: bool = False,
) -> np.ndarray:
    """Returns a photo of the ink, uint8 [320, 240, 3]."""
    sheet = _laid(ink, **(_place(rng) if off_centre else {'size': 0.65, 'centre': (0.5, 0.5)}))
    sheet = _tilted(sheet, rng) if tilt else sheet
    paper, pen = _grey(rng) if grey else (0.97, 0.1)
    pixels = paper + (pen - paper) * sheet
    pixels = pixels * _shadow(rng) if shadow else pixels
    pixels = _noisy(pixels, rng) if noise else pixels
    levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, -1)


STYLES = {
    'plain': {},
    'shadow': {'shadow': True},
    'tilt': {'tilt': True},
    'noise': {'noise': True},
    'grey paper': {'grey': True},
    'off centre': {'off_centre': True},
    'all of them': dict.fromkeys(('shadow', 'tilt', 'noise', 'grey', 'off_centre'), True),
}


def photo(style: str, writer: str, digit: int, ink: np.ndarray | None = None) -> np.ndarray:
    """Returns the photo of one digit, uint8 [320, 240, 3].

    Args:
      style: one of STYLES.
      writer: one of WRITERS, or 'hand 0' to 'hand 9' with the ink of a real hand.
      digit: 0 to 9.
      ink: of a real hand (see `enlarged`).
    """
    writers = (*WRITERS, *(f'hand {k}' for k in range(10)))
    rng = np.random.default_rng([SEED, [*STYLES].index(style), writers.index(writer), digit])
    return _photo(glyph(writer, digit) if ink is None else ink, rng, **STYLES[style])


def enlarged(image: np.ndarray) -> np.ndarray:
    """Returns the ink of a digit of MNIST, uint8 [28, 28, 1]: float [200, width], as `glyph`."""
    smooth = Image.fromarray(image[..., 0]).resize((560, 560), Image.Resampling.BICUBIC)
    ink = np.clip((np.asarray(smooth) / 255 - 0.5) * 4 + 0.5, 0, 1)
    return _cut(np.float32(ink))


def write(folder: Path, style: str) -> list[tuple[Path, int]]:
    """Writes the hundred photos of a style as PNG; returns their paths and digits."""
    written = []
    for writer in WRITERS:
        for digit in range(10):
            path = folder / f'{style}_{writer}_{digit}.png'.replace(' ', '_')
            Image.fromarray(photo(style, writer, digit)).save(path)
            written.append((path, digit))
    return written


def count_right(network: Trained, style: str, folder: Path) -> int:
    """Returns how many of the hundred photos of a style a network reads, by predict.py's way."""
    photos = write(folder, style)
    answers = prediction.predict(network, [path for path, _ in photos])
    return sum(
        not isinstance(answer, UserError) and answer.values['top'][0]['class'] == str(digit)
        for (_, answer), (_, digit) in zip(answers, photos, strict=True)
    )


def rows_of_pictures(name: str, writers: tuple[str, ...]) -> Image.Image:
    """Returns a sheet: for each style, photos above what a network of data set `name` gets."""
    rows = []
    for style in STYLES:
        photos = [photo(style, writer, (3 * i + 4) % 10) for i, writer in enumerate(writers)]
        made = [handwriting.normalize(image, 28, 28, name=name) for image in photos]
        seen = [np.kron(image, np.ones((4, 4), np.uint8)) for image in made]
        small = [np.asarray(Image.fromarray(image[..., 0]).resize((84, 112))) for image in photos]
        pairs = [np.concatenate(pair, 1) for pair in zip(small, seen, strict=True)]
        rows.append(np.concatenate([np.pad(pair, 4, constant_values=255) for pair in pairs], 1))
    return Image.fromarray(np.concatenate(rows))


def main(argv: list[str] | None = None) -> None:
    """Prints the table of docs/handwriting.md for a network; draws its picture with --picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', required=True, help='folder of a run')
    parser.add_argument('--picture', type=Path, help='PNG file to be written')
    arguments, overrides = parser.parse_known_args(argv)
    network = trained.load(arguments.workdir, 'last', overrides)
    with tempfile.TemporaryDirectory() as folder:
        right = {style: count_right(network, style, Path(folder)) for style in STYLES}
    for style, count in right.items():
        print(f'{style:12s} {count:4d} %')
    print(f'{"mean":12s} {sum(right.values()) / len(right):6.1f} %')
    if arguments.picture:
        writers = ('DejaVuSerif', 'ballpoint', 'marker', 'cmss10', 'felt tip')
        rows_of_pictures(network.experiment.config.data.name, writers).save(arguments.picture)


if __name__ == '__main__':
    main()
