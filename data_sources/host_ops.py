"""Operations on one decoded picture, uint8 [height, width, 3] RGB: what the policies draw from.

Each is what Pillow makes of the picture, byte for byte: `ImageOps`, `ImageEnhance`,
`Image.transform`, `Image.rotate` are the definitions, as they are in the published policies. Where
NumPy, or a table of 256 values, gives the same bytes in half of the time or less, it stands in.

All are functions of (image, value, fill). They never change the image that they are given, but may
return it, and what they return may be read-only. `fill` is the colour (R, G, B) of what a movement
uncovers. Rotation and shear are bilinear; translation is by whole pixels. MATRICES says of those
that move pixels where they were.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from data_sources import geometry

Colour = tuple[int, int, int]

_RAMP = np.arange(256, dtype=np.uint8)


def identity(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Returns the image as it is."""
    return image


def flip(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Mirrors left to right."""
    mirrored = np.empty_like(image)
    for channel in range(3):  # four times as fast as all three at once
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored


# --- each value by itself ---------------------------------------------------------------------


def invert(image: np.ndarray, value: float = 0.0, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """255 less each value (ImageOps.invert)."""
    return ~image


def posterize(image: np.ndarray, bits: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Keeps the `bits` highest of the 8 bits, 1 .. 8, of each value (ImageOps.posterize)."""
    return image & np.uint8(256 - 2 ** (8 - int(bits)))


def solarize(image: np.ndarray, threshold: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Inverts the values at or above the threshold, 0 .. 256 (ImageOps.solarize)."""
    return _mapped(image, np.where(threshold > _RAMP, _RAMP, ~_RAMP))


def solarize_add(image: np.ndarray, amount: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Adds `amount`, 0 .. 128, to the values below 128 (Cubuk et al. 2019, code)."""
    return image + (image < 128) * np.uint8(amount)


def brightness(image: np.ndarray, change: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Multiplies by 1 + change, at least 0 (ImageEnhance.Brightness): -1 gives black."""
    return _mapped(image, _blended_table(0, 1.0 + change))


def contrast(image: np.ndarray, change: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Multiplies the distance from the mean grey by 1 + change (ImageEnhance.Contrast)."""
    counts = Image.fromarray(image).convert('L').histogram()
    mean = np.dot(counts, np.arange(256)) / (image.shape[0] * image.shape[1])
    return _mapped(image, _blended_table(int(mean + 0.5), 1.0 + change))


def _mapped(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns table[image], for uint8 [256]: bytes.translate is twice as fast as indexing."""
    mapped = image.tobytes().translate(table.tobytes())
    return np.frombuffer(mapped, np.uint8).reshape(image.shape)


def _blended_table(grey: int, factor: float) -> np.ndarray:
    """Returns Pillow's blend of a constant with each value: it rounds in a way of its own."""
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
    smooth = image.copy()
    smooth[1:-1, 1:-1] = _smoothed(image)
    # As grey pictures three times as wide, which Pillow need not pad to four channels.
    blended = Image.blend(_flat(smooth), _flat(image), 1.0 + change)
    return np.asarray(blended).reshape(image.shape)


def _smoothed(image: np.ndarray) -> np.ndarray:
    """Returns means of 3x3 pixels, the middle one counting five times (ImageFilter.SMOOTH).

    uint16 [height - 2, width - 2, 3]. A thirteenth of an integer is never half-way between two, so
    that rounding has no ties.
    """
    wide = image.astype(np.uint16)
    columns = wide[:-2] + wide[1:-1] + wide[2:]
    total = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] + 4 * wide[1:-1, 1:-1]
    return (total + 6) // 13


def _flat(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image.reshape(image.shape[0], -1))


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


def _transformed(image: np.ndarray, matrix: tuple[float, ...], fill: Colour) -> np.ndarray:
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


def translate_x_share(image: np.ndarray, fraction: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Moves to the right by a fraction of the width, rounded to the nearest pixel."""
    return _shifted(image, round(fraction * image.shape[1]), 0, fill)


def translate_y_share(image: np.ndarray, fraction: float, fill: Colour = (0, 0, 0)) -> np.ndarray:
    """Moves down by a fraction of the height, rounded to the nearest pixel."""
    return _shifted(image, 0, round(fraction * image.shape[0]), fill)


def _shifted(image: np.ndarray, right: int, down: int, fill: Colour) -> np.ndarray:
    height, width, _ = image.shape
    # Row by row: much faster than pixel by pixel.
    moved = np.empty((height, 3 * width), np.uint8)
    moved[:] = np.tile(np.array(fill, np.uint8), width)
    moved = moved.reshape(image.shape)
    if abs(right) < width and abs(down) < height:
        kept = image[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        top, left = max(down, 0), max(right, 0)
        moved[top : top + kept.shape[0], left : left + kept.shape[1]] = kept
    return moved


# Operation -> (its value, (height, width)) -> the matrix of where pixels were. Pillow's coordinates
# begin at the edge of the first pixel, half a pixel before its centre.
MATRICES = {
    'flip': lambda value, shape: geometry.mirror(shape[1]),
    'rotate': lambda value, shape: geometry.rotation(np.deg2rad(value), shape),
    'shear_x': lambda value, shape: np.array([[1.0, 0.0, 0.0], [value, 1.0, value / 2]]),
    'shear_y': lambda value, shape: np.array([[1.0, value, value / 2], [0.0, 1.0, 0.0]]),
    'translate_x': lambda value, shape: geometry.translation(0, -int(value)),
    'translate_y': lambda value, shape: geometry.translation(-int(value), 0),
    'translate_x_share': lambda value, shape: geometry.translation(0, -round(value * shape[1])),
    'translate_y_share': lambda value, shape: geometry.translation(-round(value * shape[0]), 0),
}
