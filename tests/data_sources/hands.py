"""Ten hands that draw digits, as strokes: for each digit a few forms, and who uses which.

A form is strokes separated by '/'. A stroke is points 'x,y' in percent of the digit's width and
height, y down, joined by a smooth curve; '!' behind a point makes it a corner. The forms are this
repository's own, and others than those of `photographed.py`.
"""

import dataclasses
from random import Random

import numpy as np

FORMS = {
    0: {
        'oval': '50,0 22,12 6,50 22,88 50,100 78,88 94,50 78,12 50,0',
        'open': '64,5 30,6 8,40 12,78 42,100 78,88 95,52 84,20 60,8',
        'from below': '42,97 14,80 4,45 22,8 55,0 88,20 96,55 80,90 50,100 36,95',
        'curl': '76,10 42,1 10,30 8,70 40,99 80,85 93,45 76,10 50,4 60,18 84,14',
    },
    1: {
        'bare': '50,0 50,100',
        'flag': '24,24 52,0! 52,100',
        'upstroke': '4,52 58,0! 58,100',
        'foot': '22,22 50,0! 50,100 / 18,100 82,100',
        'bent': '56,0 47,50 46,100',
    },
    2: {
        'plain': '8,24 20,6 50,0 82,10 88,32 70,60 36,82 5,100! 95,100',
        'swan': '10,22 42,0 82,14 82,44 46,78 5,100! 30,90 62,99 98,90',
        'loop': '12,18 48,0 86,20 74,55 36,92 10,96 8,82 28,80 58,97 98,92',
        'angular': '8,16 50,2 88,22! 82,44! 6,98! 94,96',
    },
    3: {
        'round': '8,14 42,0 82,10 84,35 42,47! 86,58 92,84 52,100 6,90',
        'flat': '8,2 88,2! 44,42! 84,52 94,76 58,100 6,90',
        'smooth': '10,14 45,0 80,16 70,40 42,48 72,56 94,76 60,100 8,90',
        'loop': '12,10 50,0 84,18 62,42 32,52 28,42 48,43 84,58 90,84 50,100 6,88',
    },
    4: {
        'open': '32,0 6,60! 96,60 / 68,30 64,100',
        'closed': '72,100 72,0! 3,68! 98,68',
        'joined': '14,0 10,44 38,54 76,42! 86,4! 74,100',
        'upright': '14,2 12,52! 94,50 / 74,4 72,100',
    },
    5: {
        'capped': '22,2 18,44! 55,38 90,60 80,90 42,100 6,91 / 22,2 88,0',
        'one stroke': '88,2 24,2! 18,45! 55,36 92,62 78,92 40,100 6,90',
        'like an S': '94,2 60,1 28,4 22,24 30,40 72,46 92,70 70,96 34,100 6,90',
        'apart': '20,12 16,48! 58,40 92,66 70,96 8,94 / 28,2 94,-2',
    },
    6: {
        'curved': '72,0 36,22 8,60 14,90 48,100 84,88 86,66 56,54 24,62 10,78',
        'straight': '62,0 22,46 6,76 28,98 66,98 88,78 70,56 36,56 10,72',
        'round': '86,14 58,0 26,12 7,50 14,86 50,100 86,86 92,66 72,46 38,44 10,64',
        'small bowl': '84,8 50,0 16,28 6,70 30,100 64,96 70,72 42,60 10,76',
    },
    7: {
        'plain': '5,2 95,2! 40,100',
        'barred': '5,4 92,0! 38,100 / 20,50 86,46',
        'hooked': '8,22 8,3! 94,3! 44,100',
        'curved': '4,10 30,0 60,6 94,2! 62,45 48,100',
        'hooked and barred': '6,18 6,2! 94,2! 46,100 / 30,54 86,50',
    },
    8: {
        'S': '84,14 50,0 16,16 28,40 72,58 88,82 50,100 12,82 28,58 72,40 84,14',
        'circles': '50,0 22,8 20,36 50,46 80,36 78,8 50,0 / '
                   '50,46 14,58 10,88 50,100 90,88 86,58 50,46',
        'open': '84,6 52,0 18,14 34,42 80,66 80,92 44,100 12,84 28,60 66,40 96,8',
        'from within': '52,46 20,32 22,8 52,0 80,10 78,34 46,50 12,70 20,94 54,100 88,90 84,64 '
                       '52,46',
    },
    9: {
        'stem': '88,14 50,0 10,18 16,48 52,52 88,14! 84,100',
        'tail': '86,18 50,0 12,16 14,46 52,54 86,22! 88,62 66,96 18,96',
        'round': '90,36 62,56 28,54 8,34 14,14 50,0 86,14 93,50 74,88 42,100 14,86',
        'ball and stick': '84,26 50,2 12,18 14,46 50,52 84,28 / 88,0 84,100',
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Hand:
    """Who draws, and with what.

    Attributes:
      forms: the names of the forms of the digits 0 to 9.
      slant: how far the top leans to the right, in parts of the height.
      aspect: width over height.
      wobble: how far points stray, in parts of the height.
      step: pixels of the canvas between two events of the pointer.
      whole: whether the pointer reports whole pixels only, as a mouse does.
    """

    forms: tuple[str, ...]
    slant: float
    aspect: float
    wobble: float
    step: float
    whole: bool = False


_MOUSE = {'step': 14.0, 'whole': True}
_FINGER = {'step': 9.0}
_PEN = {'step': 4.0}
HANDS = {
    'schoolbook': Hand(
        ('oval', 'flag', 'plain', 'round', 'open',
         'capped', 'curved', 'plain', 'S', 'tail'),
        0.06, 0.62, 0.010, **_PEN,
    ),
    'European': Hand(
        ('open', 'upstroke', 'plain', 'round', 'open',
         'one stroke', 'straight', 'barred', 'S', 'tail'),
        0.12, 0.60, 0.020, **_PEN,
    ),
    'American': Hand(
        ('oval', 'bare', 'swan', 'smooth', 'closed',
         'capped', 'straight', 'plain', 'circles', 'stem'),
        0.16, 0.58, 0.020, **_FINGER,
    ),
    'left-hander': Hand(
        ('from below', 'bent', 'angular', 'smooth', 'upright',
         'like an S', 'small bowl', 'plain', 'from within', 'ball and stick'),
        -0.16, 0.66, 0.022, **_PEN,
    ),
    'child': Hand(
        ('open', 'bare', 'angular', 'round', 'upright',
         'apart', 'straight', 'plain', 'circles', 'ball and stick'),
        0.0, 0.78, 0.040, **_FINGER,
    ),
    'typographic': Hand(
        ('oval', 'foot', 'plain', 'round', 'closed',
         'one stroke', 'round', 'plain', 'circles', 'round'),
        0.0, 0.60, 0.0, **_PEN,
    ),
    'calligrapher': Hand(
        ('curl', 'flag', 'loop', 'flat', 'open',
         'capped', 'curved', 'hooked and barred', 'from within', 'tail'),
        0.24, 0.64, 0.012, **_PEN,
    ),
    'hasty': Hand(
        ('open', 'bent', 'loop', 'loop', 'joined',
         'like an S', 'small bowl', 'curved', 'open', 'stem'),
        0.22, 0.54, 0.030, **_FINGER,
    ),
    'mouse': Hand(
        ('oval', 'flag', 'swan', 'flat', 'open',
         'one stroke', 'curved', 'hooked', 'S', 'stem'),
        0.0, 0.70, 0.025, **_MOUSE,
    ),
    'clerk': Hand(
        ('from below', 'upstroke', 'plain', 'flat', 'joined',
         'apart', 'round', 'barred', 'open', 'round'),
        -0.05, 0.52, 0.018, **_MOUSE,
    ),
}  # fmt: skip


def strokes(hand: Hand, digit: int, rng: Random) -> list[np.ndarray]:
    """Returns what a hand draws: curves through its points, float [n, 2] of (x, y), 1 high."""
    return [
        _leaning(_curve(stroke, hand, rng), hand)
        for stroke in FORMS[digit][hand.forms[digit]].split('/')
    ]


def _leaning(points: np.ndarray, hand: Hand) -> np.ndarray:
    across = (points[:, 0] - 0.5) * hand.aspect + (0.5 - points[:, 1]) * hand.slant
    return np.stack([across, points[:, 1] - 0.5], 1)


def _curve(stroke: str, hand: Hand, rng: Random) -> np.ndarray:
    """Returns many points of a stroke: between two corners it is smooth."""
    pieces = [[]]
    for word in stroke.split():
        x, y = (float(number) / 100 for number in word.rstrip('!').split(','))
        # No hand repeats itself.
        point = tuple(value + rng.uniform(-1, 1) * 1.7 * hand.wobble for value in (x, y))
        pieces[-1].append(point)
        if word.endswith('!'):
            pieces.append([point])
    return np.concatenate([_smooth(np.array(piece)) for piece in pieces])


def _smooth(points: np.ndarray, count: int = 24) -> np.ndarray:
    """Returns points of the cubic curve that E. Catmull and R. Rom (1974) lay through points."""
    before, behind = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    p0, p1, p2, p3 = (
        np.concatenate([before, points, behind])[i : len(points) + i - 1, None] for i in range(4)
    )
    t = (np.arange(count) / (count - 1))[None, :, None]
    slopes = (p2 - p0) / 2, (p3 - p1) / 2
    cubic = (
        p1 + slopes[0] * t
        + (3 * (p2 - p1) - 2 * slopes[0] - slopes[1]) * t**2
        + (2 * (p1 - p2) + slopes[0] + slopes[1]) * t**3
    )  # fmt: skip
    return cubic.reshape(-1, 2)
