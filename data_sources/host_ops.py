"""Operations on one decoded picture, uint8 [height, width, 3] RGB: what the policies draw from.

Each is what Pillow makes of the picture, byte for byte: `ImageOps`, `ImageEnhance`,
`Image.transform`, `Image.rotate` are the definitions, as they are in the published policies. Where
a table of 256 values (cv2.LUT), a filter or a copy of OpenCV's gives the same bytes in half of the
time or less, it stands in.

All are functions of (image, value, fill). They never change the image that they are given, but may
return it, and what they return may be read-only. `fill` is the colour (R, G, B) of what a movement
uncovers. Rotation and shear are bilinear; translation is by whole pixels.
"""

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, int, int]

_RAMP = np.arange(256, dtype=np.uint8)
# Pillow's ImageFilter.SMOOTH.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def identity(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Returns the image as it is."""
    return image


def flip(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Mirrors left to right."""
    return cv2.flip(image, 1)


# --- each value by itself ---------------------------------------------------------------------


def invert(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """255 less each value (ImageOps.invert)."""
    return ~image


def posterize(image: np.ndarray, bits: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Keeps the `bits` highest of the 8 bits, 1 .. 8, of each value (ImageOps.posterize)."""
    return image & np.uint8(256 - 2 ** (8 - int(bits)))


def solarize(image: np.ndarray, threshold: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Inverts the values at or above the threshold, 0 .. 256 (ImageOps.solarize)."""
    return cv2.LUT(image, np.where(threshold > _RAMP, _RAMP, ~_RAMP))


def solarize_add(image: np.ndarray, amount: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Adds `amount`, 0 .. 128, to the values below 128 (Cubuk et al. 2019, code)."""
    raised = _RAMP + min(int(amount), 128) * (_RAMP < 128)
    return cv2.LUT(image, np.minimum(raised, 255).astype(np.uint8))


def brightness(image: np.ndarray, change: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Multiplies by 1 + change, at least 0 (ImageEnhance.Brightness): -1 gives black."""
    return cv2.LUT(image, _blended_table(0, 1.0 + change))


def contrast(image: np.ndarray, change: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Multiplies the distance from the mean grey by 1 + change (ImageEnhance.Contrast)."""
    counts = Image.fromarray(image).convert('L').histogram()
    mean = np.dot(counts, np.arange(256)) / (image.shape[0] * image.shape[1])
    return cv2.LUT(image, _blended_table(int(mean + 0.5), 1.0 + change))


def _blended_table(grey: int, factor: float) -> np.ndarray:
    """What Pillow's blend of a constant with each value gives: it rounds in a way of its own."""
    ground = Image.new('L', (256, 1), grey)
    ramp = Image.fromarray(_RAMP[None])
    return np.asarray(Image.blend(ground, ramp, factor))[0]


# --- values with all of the image -------------------------------------------------------------


def auto_contrast(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Stretches each channel from its least and largest value to 0 .. 255 (ImageOps)."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image)))


def equalize(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Spreads each channel's values evenly over 0 .. 255 (ImageOps)."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


# --- values with their neighbours or other channels -------------------------------------------


def color(image: np.ndarray, change: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Multiplies the distance from each pixel's grey by 1 + change (ImageEnhance.Color)."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(1.0 + change))


def sharpness(image: np.ndarray, change: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Multiplies the distance from the smoothed image by 1 + change (ImageEnhance.Sharpness).

    The pixels at the border have no smoothed value, and stay.
    """
    # A thirteenth of an integer is never half-way between two, so that rounding has no ties.
    smooth = cv2.filter2D(image, -1, _SMOOTH)
    smooth[[0, -1]] = image[[0, -1]]
    smooth[:, [0, -1]] = image[:, [0, -1]]
    blended = Image.blend(Image.fromarray(smooth), Image.fromarray(image), 1.0 + change)
    return np.asarray(blended)


def hue(image: np.ndarray, turns: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Turns the hue by so many turns, -0.5 .. 0.5, in Pillow's HSV with 256 hues to a turn.

    The step is int(255 turns), as in torchvision's adjust_hue.
    """
    h, s, v = Image.fromarray(image).convert('HSV').split()
    turned = np.asarray(h) + np.uint8(int(255 * turns) % 256)
    return np.asarray(Image.merge('HSV', (Image.fromarray(turned), s, v)).convert('RGB'))


# --- geometry ---------------------------------------------------------------------------------


def rotate(image: np.ndarray, degrees: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Turns counter-clockwise about the centre; the frame stays (Image.rotate)."""
    picture = Image.fromarray(image)
    return np.asarray(picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill))


def shear_x(image: np.ndarray, factor: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Takes each pixel (x, y) from (x + factor y, y): the top edge stays."""
    return _transformed(image, (1, factor, 0, 0, 1, 0), fill)


def shear_y(image: np.ndarray, factor: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Takes each pixel (x, y) from (x, y + factor x): the left edge stays."""
    return _transformed(image, (1, 0, 0, factor, 1, 0), fill)


def _transformed(image, matrix, fill):
    picture = Image.fromarray(image)
    return np.asarray(
        picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            matrix,
            Image.Resampling.BILINEAR,
            fillcolor=fill,
        )
    )


def translate_x(image: np.ndarray, pixels: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Moves to the right by whole pixels (towards zero)."""
    return _shifted(image, int(pixels), 0, fill)


def translate_y(image: np.ndarray, pixels: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Moves down by whole pixels (towards zero)."""
    return _shifted(image, 0, int(pixels), fill)


def translate_x_share(image: np.ndarray, share: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Moves to the right by a share of the width, to the nearest pixel."""
    return _shifted(image, round(share * image.shape[1]), 0, fill)


def translate_y_share(image: np.ndarray, share: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Moves down by a share of the height, to the nearest pixel."""
    return _shifted(image, 0, round(share * image.shape[0]), fill)


def _shifted(image, right, down, fill):
    height, width = image.shape[:2]
    right, down = np.clip(right, -width, width).item(), np.clip(down, -height, height).item()
    kept = image[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    if not kept.size:
        return np.broadcast_to(np.array(fill, np.uint8), image.shape).copy()
    frame = (max(down, 0), max(-down, 0), max(right, 0), max(-right, 0))
    return cv2.copyMakeBorder(kept, *frame, cv2.BORDER_CONSTANT, value=fill)
