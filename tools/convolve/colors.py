"""The colors of numbers, and of everything else in the pictures.

Numbers that look like a picture are gray, and blue where they are negative. Others, such as those
of a filter that finds edges, are blue where they are negative and red where they are positive.
"""

import dataclasses

import numpy as np

Color = tuple[int, int, int]

BACKGROUND, INK, MUTED, LINE = (255, 255, 255), (33, 37, 41), (105, 112, 120), (190, 196, 202)
ACCENT = (
    0,
    158,
    115,
)  # of the window; it stands out from gray, blue and red, also to the colorblind
ACCENT_ON_DARK = (120, 225, 190)
PADDING, HATCH = (214, 230, 244), (222, 226, 231)
BLACK, WHITE = (24, 26, 32), (255, 255, 255)
BELOW_BLACK = (90, 170, 255)
NEGATIVE, ZERO, POSITIVE = (33, 102, 172), (247, 247, 247), (178, 24, 43)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Which color stands for which number.

    Attributes:
      places: ascending numbers.
      stops: their colors; between them colors are mixed, and beyond them they stay the same.
    """

    places: tuple[float, ...]
    stops: tuple[Color, ...]

    @property
    def low(self) -> float:
        """The number of the first color."""
        return self.places[0]

    @property
    def high(self) -> float:
        """The number of the last color."""
        return self.places[-1]

    def ticks(self) -> list[float]:
        """Returns the numbers to write at the scale: its ends, and 0 unless it is near an end."""
        room = 0.2 * (self.high - self.low)
        zero = [0.0] if self.low + room < 0 < self.high - room else []
        return [self.low, *zero, self.high]

    def colors(self, values: np.ndarray) -> np.ndarray:
        """Returns uint8 [..., 3] for numbers of any shape."""
        channels = [
            np.interp(values, self.places, channel) for channel in zip(*self.stops, strict=True)
        ]
        return np.stack(channels, -1).round().astype(np.uint8)


def gray(high: float) -> Scale:
    """Returns the scale from 0, nearly black, to `high`, nearly white."""
    return Scale((0.0, high or 1.0), (BLACK, WHITE))


def diverging(values: np.ndarray) -> Scale:
    """Returns the scale whose white is 0, and which reaches as far on both sides."""
    limit = float(np.abs(values).max()) or 1.0
    return Scale((-limit, 0.0, limit), (NEGATIVE, ZERO, POSITIVE))


def weak(high: float) -> Scale:
    """Returns a diverging scale of pale colors, on which many numbers can be read."""
    return diverging(np.array(1.8 * high))


def picture_like(values: np.ndarray) -> Scale:
    """Returns the gray scale, which goes on into blue if there are negative numbers."""
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        return gray(high)
    return Scale((low, 0.0, high if high > 0 else -low), (BELOW_BLACK, BLACK, WHITE))


def is_dark(color: np.ndarray) -> bool:
    """Whether text on a color, uint8 [3], has to be bright."""
    return float(np.dot(np.asarray(color, float), (0.299, 0.587, 0.114))) < 140


def ink(color: np.ndarray) -> Color:
    """Returns the color in which text on `color` can be read."""
    return BACKGROUND if is_dark(color) else INK


def palette() -> list[Color]:
    """Returns the colors of an animation: the scales in steps, and the others with their edges."""
    mixed = [
        # Not up to white: Pillow would take a gray for it that is nearly white.
        _mixed(BLACK, ZERO, 78),
        _mixed(BELOW_BLACK, BLACK, 32),
        _mixed(NEGATIVE, ZERO, 49),
        _mixed(ZERO, POSITIVE, 49),
    ]
    # Letters and lines have soft edges: steps between a color and what it stands on.
    for ink, ground in (
        (ACCENT, BACKGROUND),
        (ACCENT_ON_DARK, BLACK),
        (BACKGROUND, NEGATIVE),
        (BACKGROUND, POSITIVE),
        (MUTED, PADDING),
    ):
        mixed.append(_mixed(ink, ground, 6))
    plain = [BACKGROUND, INK, MUTED, LINE, HATCH]
    return list(dict.fromkeys([*plain, *(color for part in mixed for color in part)]))


def _mixed(first: Color, last: Color, steps: int) -> list[Color]:
    shades = Scale((0.0, 1.0), (first, last)).colors(np.linspace(0, 1, steps))
    return [tuple(shade) for shade in shades.tolist()]
