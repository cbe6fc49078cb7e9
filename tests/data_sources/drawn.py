"""A hundred digits as people draw them on a page, by mouse, finger or pen: made here.

Ten hands (`hands.py`) drew ten digits each, in ten styles: every hand and every style has each
digit once, and every style has each hand once. They are the same bits on every machine. The hands,
the styles and the seed were fixed before any network saw them. How many a network reads:

    python -m tests.data_sources.drawn --workdir=runs/mnist_lenet

`--all` measures all thousand drawings of every hand in every style.
"""

import argparse
import dataclasses
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from command import run
from data_sources import handwriting
from errors import UserError
from tests.data_sources.hands import HANDS, Hand, strokes

if TYPE_CHECKING:  # JAX takes a second to import, and command.run has to set its log level before
    from training.trained import Trained

SEED = 25
SIDE = 280  # pixels of the canvas
_EDGE = 3  # pixels that stay free at the edge
_SHAKE = 10  # pixels from one jerk of a trembling hand to the next


@dataclasses.dataclass(frozen=True)
class Style:
    """How a digit is drawn: ranges, of which each drawing draws one value.

    Attributes:
      pen: pixels, the width of the strokes; at most `thickest` of the height.
      height: pixels, from the middle of the highest stroke to that of the lowest.
      place: how far from the middle of the canvas, 0 to 1: to its edge.
      tilt: degrees to either side.
      step: times the hand's distance between two events of the pointer.
      tremor: pixels by which the line strays to either side, anew every ten pixels.
    """

    pen: tuple[float, float] = (19, 21)
    height: tuple[float, float] = (150, 200)
    place: tuple[float, float] = (0, 0.2)
    tilt: tuple[float, float] = (0, 3)
    step: float = 1.0
    tremor: float = 0.0
    thickest: float = 1.0


STYLES = {
    'plain': Style(),
    'thin': Style(pen=(6, 8)),
    'thick': Style(pen=(30, 36), height=(170, 210)),
    'small': Style(height=(85, 110), pen=(14, 20)),
    'to the edge': Style(height=(262, 280), place=(0, 0)),
    'off center': Style(height=(110, 150), place=(0.85, 1)),
    'tilted': Style(tilt=(8, 20)),
    'hurried': Style(step=3.0),
    'trembling': Style(step=0.6, tremor=5),
    'all of them': Style((6, 30), (90, 200), (0.3, 1), (3, 15), step=1.5, tremor=2, thickest=0.16),
}
# A Latin square of hands, digits and styles.
HUNDRED = tuple(
    ([*STYLES][(number + digit) % 10], hand, digit)
    for number, hand in enumerate(HANDS)
    for digit in range(10)
)
ALL = tuple((style, hand, digit) for style in STYLES for hand in HANDS for digit in range(10))


def drawing(style: str, hand: str, digit: int, bright: bool | None = None) -> np.ndarray:
    """Returns the canvas with one digit on it, uint8 [280, 280].

    Args:
      style: one of STYLES.
      hand: one of hands.HANDS.
      digit: 0 to 9.
      bright: whether the ink is white on black. By default every second hand's is; of the others'
        it is black on white.
    """
    rng = Random(f'{SEED} {style} {hand} {digit}')
    lines, pen = _lines(style, hand, digit, rng)
    ink = np.zeros((SIDE, SIDE))
    for line in lines:
        draw(ink, line, pen)
    bright = [*HANDS].index(hand) % 2 == 0 if bright is None else bright
    levels = np.rint(ink * 255).astype(np.uint8)
    return levels if bright else 255 - levels


def _lines(style: str, hand: str, digit: int, rng: Random) -> tuple[list[np.ndarray], float]:
    """Returns the strokes as the pointer's events, float [n, 2] of (x, y), and the pen's width."""
    how, who = STYLES[style], HANDS[hand]
    height = rng.uniform(*how.height)
    pen = round(min(rng.uniform(*how.pen), how.thickest * height) * 2) / 2
    angle = np.deg2rad(rng.uniform(*how.tilt) * rng.choice((-1, 1)))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    curves = [height * curve @ turn for curve in strokes(who, digit, rng)]
    every = np.concatenate(curves)
    low, high = every.min(0), every.max(0)
    room = np.maximum(0, (SIDE - (high - low) - pen) / 2 - _EDGE)
    direction = rng.choice(((-1, -1), (-1, 1), (1, -1), (1, 1)))
    shift = np.array([way * rng.uniform(*how.place) for way in direction]) * room
    shift += SIDE / 2 - (low + high) / 2
    return [_events(curve + shift, how, who, rng) for curve in curves], pen


def _events(curve: np.ndarray, how: Style, who: Hand, rng: Random) -> np.ndarray:
    """Returns a curve at the places at which the pointer reported it."""
    lengths = np.concatenate([[0], np.hypot(*np.diff(curve, axis=0).T).cumsum()])
    count = max(2, round(lengths[-1] / (who.step * how.step)) + 1)
    at = np.linspace(0, lengths[-1], count)
    points = np.stack([np.interp(at, lengths, values) for values in curve.T], 1)
    knots = np.arange(0, lengths[-1] + _SHAKE, _SHAKE)
    for values in points.T:
        values += np.interp(at, knots, [rng.uniform(-how.tremor, how.tremor) for _ in knots])
    # Rounded, so that the last bits of sines and cosines make no difference between machines.
    return np.rint(points) if who.whole else np.rint(points * 8) / 8


def draw(ink: np.ndarray, line: np.ndarray, pen: float) -> None:
    """Draws a line on ink, float [h, w], as an HTML canvas does: caps and joins are round."""
    for start, end in pairwise(line):
        low = np.floor(np.minimum(start, end) - pen / 2 - 1).astype(int).clip(0, SIDE)
        high = np.ceil(np.maximum(start, end) + pen / 2 + 1).astype(int).clip(0, SIDE)
        x = np.arange(low[0], high[0]) + 0.5
        y = (np.arange(low[1], high[1]) + 0.5)[:, None]
        along, across = end - start
        square = along**2 + across**2
        share = ((x - start[0]) * along + (y - start[1]) * across) / square if square else 0 * x
        share = np.clip(share, 0, 1)
        away = np.sqrt((x - start[0] - share * along) ** 2 + (y - start[1] - share * across) ** 2)
        part = ink[low[1] : high[1], low[0] : high[0]]
        np.maximum(part, np.clip(pen / 2 + 0.5 - away, 0, 1), out=part)


def write(folder: Path, drawings=HUNDRED) -> list[Path]:
    """Writes drawings as PNG files; returns their paths."""
    paths = []
    for style, hand, digit in drawings:
        paths.append(folder / f'{style}_{hand}_{digit}.png'.replace(' ', '_'))
        Image.fromarray(drawing(style, hand, digit)).save(paths[-1])
    return paths


def answers(network: 'Trained', folder: Path, drawings=HUNDRED) -> list[str | None]:
    """Returns what a network reads in drawings, by predict.py's way; None where it refuses."""
    from training import prediction

    return [
        None if isinstance(answer, UserError) else answer.values['top'][0]['class']
        for _, answer in prediction.predict(network, write(folder, drawings))
    ]


def table(drawings, read: list[str | None], column: int) -> list[tuple[str, int, int]]:
    """Returns (name, right, drawings) of each style (column 0) or hand (column 1), in order."""
    right, every = Counter(), Counter()
    for drawn, answer in zip(drawings, read, strict=True):
        every[drawn[column]] += 1
        right[drawn[column]] += answer == str(drawn[2])
    names = (STYLES, HANDS)[column]
    return [(name, right[name], every[name]) for name in names]


def sheet(name: str) -> Image.Image:
    """Returns a picture: two drawings of every style, each beside what a network of a set gets."""
    side, gap, top = 112, 16, 40
    picture = Image.new('L', (5 * (2 * side + gap) + gap, 4 * (side + 32) + top), 255)
    pencil = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    title = 'A digit on the canvas (left), and the 28x28 pixels that the network gets of it (right)'
    pencil.text((gap, 10), title, 0, ImageFont.load_default(17))
    for cell in range(20):
        style = [*STYLES][cell // 2]
        mine = [key for key in HUNDRED if key[0] == style]
        image = drawing(*mine[(3 * (cell // 2) + 5 * (cell % 2) + 2) % 10])
        small = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
        seen = handwriting.normalize(image, 28, 28, name=name).repeat(4, 0).repeat(4, 1)
        left = gap + cell // 2 % 5 * (2 * side + gap)
        down = top + (cell // 10 * 2 + cell % 2) * (side + 32)
        pencil.text((left, down), style, 0, font)
        picture.paste(small, (left, down + 20))
        picture.paste(Image.fromarray(seen), (left + side, down + 20))
        for start in (left, left + side):
            pencil.rectangle((start, down + 20, start + side - 1, down + 19 + side), outline=128)
    return picture


def main(argv: list[str] | None = None) -> None:
    """Prints the tables of docs/handwriting.md for a network; draws its picture with --picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', required=True, help='folder of a run')
    parser.add_argument('--all', action='store_true', help='every hand in every style: 1,000')
    parser.add_argument('--picture', type=Path, help='PNG file to be written')
    arguments, overrides = parser.parse_known_args(argv)
    from training import trained

    network = trained.load(arguments.workdir, 'last', overrides)
    drawings = ALL if arguments.all else HUNDRED
    with tempfile.TemporaryDirectory() as folder:
        read = answers(network, Path(folder), drawings)
    for column, title in enumerate(('style', 'hand')):
        print(f'{title:14s} right  of')
        for name, right, every in table(drawings, read, column):
            print(f'{name:14s} {right:5d} {every:3d}')
    for (style, hand, digit), answer in zip(drawings, read, strict=True):
        if answer != str(digit) and not arguments.all:
            print(f'{style}, {hand}: a {digit} is read as {answer or "nothing"}')
    right = sum(answer == str(key[2]) for key, answer in zip(drawings, read, strict=True))
    print(f'all: {right} of {len(drawings)}, {right / len(drawings):.1%}')
    if arguments.picture:
        sheet(network.experiment.config.data.name).save(arguments.picture)


if __name__ == '__main__':
    run(main)
