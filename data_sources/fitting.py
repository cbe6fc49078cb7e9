"""Whole pictures fitted into a frame: their shape is kept, and the rest of the frame is black.

Objects keep their proportions and none is lost, as detection needs it. In training the picture may
be larger or smaller than the frame, and lies anywhere.
"""

import math
from typing import NamedTuple

import numpy as np

from data_sources import cropping, decoding, geometry
from data_sources.draws import Draws


class Fit(NamedTuple):
    """Where a picture lies in a frame.

    Attributes:
      top, left: of the picture's corner in the frame; negative if it lies outside.
      height, width: of the picture at the frame's scale.
    """

    top: int
    left: int
    height: int
    width: int


def fit(size: tuple[int, int], frame: tuple[int, int]) -> Fit:
    """Returns the largest place for a whole picture, in the middle of the frame.

    Args:
      size: (height, width) of the picture.
      frame: (height, width) of the frame.
    """
    scaled = _scaled(size, frame, 1.0)
    return Fit(*((room - side) // 2 for room, side in zip(frame, scaled, strict=True)), *scaled)


def drawn_fit(
    draws: Draws, size: tuple[int, int], frame: tuple[int, int], zoom: tuple[float, float]
) -> Fit:
    """Draws a place for a picture: its scale, and where it lies.

    Args:
      draws: this example's random numbers.
      size, frame: as for `fit`.
      zoom: (low, high) of the factor by which the picture is smaller than with `fit`; its logarithm
        is uniform. A picture smaller than the frame lies anywhere in it, of a larger one the frame
        shows any part.
    """
    scaled = _scaled(size, frame, math.exp(draws.uniform(math.log(zoom[0]), math.log(zoom[1]))))
    corner = []
    for room, side in zip(frame, scaled, strict=True):
        first, last = min(0, room - side), max(0, room - side)
        corner.append(first + draws.integer(last - first + 1))
    return Fit(*corner, *scaled)


def _scaled(size: tuple[int, int], frame: tuple[int, int], zoom: float) -> tuple[int, int]:
    scale = min(room / side for room, side in zip(frame, size, strict=True)) / zoom
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def matrix(place: Fit, size: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """Returns the matrix by which targets of a picture of this size move into the frame."""
    down, right = size[0] / place.height, size[1] / place.width
    corner = -place.top * down, -place.left * right
    return geometry.resized(*corner, frame[0] * down, frame[1] * right, frame)


def decode(
    encoded: bytes, header: decoding.Frame, place: Fit, frame: tuple[int, int]
) -> np.ndarray:
    """Returns the frame with a picture in it, uint8 [*frame, 3]; bilinear, antialiased.

    A picture that gets much smaller is decoded at a half, a quarter or an eighth of its size.

    Args:
      encoded: the file's bytes.
      header: its header, from decoding.read_frame.
      place: where the picture lies.
      frame: (height, width).

    Raises:
      DecodeError: no picture, or truncated.
    """
    size = header.height, header.width
    shrink = next((f for f in (8, 4, 2) if all(
        side >= f * scaled and side % f == 0 for side, scaled in zip(size, place[2:], strict=True)
    )), 1)  # fmt: skip
    pixels = decoding.decode_box(encoded, header, decoding.Box(0, 0, *size), shrink)
    return fitted(pixels, place, frame)


def fitted(pixels: np.ndarray, place: Fit, frame: tuple[int, int]) -> np.ndarray:
    """Returns the frame, uint8 [*frame, 3], with decoded pixels [h, w, 3] at a place."""
    top, left = max(place.top, 0), max(place.left, 0)
    bottom = min(place.top + place.height, frame[0])
    right = min(place.left + place.width, frame[1])
    down, across = pixels.shape[0] / place.height, pixels.shape[1] / place.width
    corner = (left - place.left) * across, (top - place.top) * down
    # Rounding may not lead beyond the picture.
    sides = (
        min((right - left) * across, pixels.shape[1] - corner[0]),
        min((bottom - top) * down, pixels.shape[0] - corner[1]),
    )
    result = np.zeros((*frame, 3), np.uint8)
    result[top:bottom, left:right] = cropping.resize(
        pixels, (bottom - top, right - left), (*corner, *sides)
    )
    return result
