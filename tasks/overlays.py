"""Answers for each pixel, drawn over the picture."""

import colorsys

import numpy as np

# The first seven are distinguishable with any kind of color vision (Okabe and Ito 2008, "Color
# universal design").
_TEN = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
        (213, 94, 0), (204, 121, 167), (255, 120, 110), (120, 94, 240), (170, 230, 60),
    ],
    np.float32,
)  # fmt: skip
# Then the same once darker and once paler.
_COLORS = np.rint(np.concatenate([_TEN, 0.55 * _TEN, 0.5 * _TEN + 127]))
_VOID = (128, 128, 128)
_OPACITY = 0.45


def color_of(number: int) -> tuple[int, int, int]:
    """Returns the color of a class from 1 on; those of more than thirty repeat."""
    red, green, blue = _COLORS[(number - 1) % len(_COLORS)]
    return int(red), int(green), int(blue)


def label_map(image: np.ndarray, labels: np.ndarray, void: int = 255) -> np.ndarray:
    """Returns a picture with its classes in colors, outlined; class 0 is left as it is.

    Args:
      image: uint8 [h, w, 3].
      labels: [h, w], the class of each pixel.
      void: the number of pixels whose class is not known; they are gray.
    """
    colors = _COLORS[(labels.astype(np.int64) - 1) % len(_COLORS)]
    colors[labels == void] = _VOID
    return _laid_over(image, colors, labels)


def instance_map(image: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Returns a picture with its objects in colors, outlined.

    Args:
      image: uint8 [h, w, 3].
      instances: int [h, w], 0 for background, below 0 where nothing is known.
    """
    # Steps of the golden ratio around the circle of hues keep the colors of neighbours apart.
    most = max(int(instances.max(initial=0)), 1)
    hues = np.arange(most + 1) * 0.61803398875 % 1
    table = np.array([colorsys.hsv_to_rgb(hue, 0.75, 1.0) for hue in hues], np.float32) * 255
    colors = table[np.maximum(instances, 0)]
    colors[instances < 0] = _VOID
    return _laid_over(image, colors, instances)


def _laid_over(image: np.ndarray, colors: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    edge = np.zeros(numbers.shape, bool)
    for axis in (0, 1):
        differs = np.diff(numbers.astype(np.int64), axis=axis) != 0
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edge[tuple(first)] |= differs
        edge[tuple(second)] |= differs
    opacity = np.where(edge, 1.0, _OPACITY)[..., None]
    drawn = np.where((numbers != 0)[..., None], (1 - opacity) * image + opacity * colors, image)
    return np.rint(drawn).astype(np.uint8)
