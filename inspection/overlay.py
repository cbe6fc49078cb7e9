"""Heat maps in color, laid over the pictures that they explain.

A scale says which color stands for which value, so that a legend can be drawn for it, and several
maps can share it. Maps that are never negative go from dark blue to yellow (viridis, in which equal
steps look equal); signed ones from blue (against) by white (nothing) to red (for), with 0 in the
middle.
"""

import dataclasses

import numpy as np
from PIL import Image

OPACITY, SIGNED_OPACITY = 0.6, 0.85
_PURE = 0.8  # where the colors of a signed scale are strong, and not yet dark
LEAST = 224  # small pictures are enlarged by a whole factor to about this many pixels
_POSITIVE, _SIGNED = 'viridis', 'RdBu_r'


@dataclasses.dataclass(frozen=True)
class Scale:
    """Which color stands for which value of a map.

    Attributes:
      low, high: the values of the first and last color; low < high.
      colormap: its name in matplotlib, for a color bar.
    """

    low: float
    high: float
    colormap: str

    @property
    def signed(self) -> bool:
        """Whether 0 is in the middle."""
        return self.low < 0

    def colors(self, values: np.ndarray) -> np.ndarray:
        """Returns uint8 [..., 3] for values [...]; those beyond the ends get the last color."""
        import matplotlib

        fractions = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return np.asarray(matplotlib.colormaps[self.colormap](fractions, bytes=True))[..., :3]


def scale_of(*maps: np.ndarray, signed: bool = False, share: float = 1.0) -> Scale:
    """Returns one scale for some maps: from 0 to the largest value.

    If signed, it goes from minus the largest absolute value to plus that. Maps that are 0
    everywhere get a scale to 1, on which all of them has the color of 0.

    Args:
      *maps: float arrays.
      signed: whether values below 0 mean something.
      share: of the values that are to lie on it. In a map with a value for each pixel a few large
        ones would leave the others without color; they get the last color.
    """
    values = np.concatenate([np.ravel(values) for values in maps])
    sizes = np.abs(values) if signed else values
    high = float(np.quantile(sizes, share)) or float(sizes.max())
    high = high if high > 0 else 1.0
    return Scale(-high, high, _SIGNED) if signed else Scale(0.0, high, _POSITIVE)


def resized(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a map, float [h, w], as float32 [height, width], bilinearly interpolated.

    A cell of the map covers an equal part of the picture; beyond the centers of the outermost cells
    their values go on.
    """
    image = Image.fromarray(np.asarray(heat, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def enlarged(picture: np.ndarray, least: int = LEAST) -> np.ndarray:
    """Returns a small picture, [h, w] or [h, w, c], with each pixel as a square of pixels.

    The factor is a whole number, and 1 for a picture of more than `least` / 2 pixels.
    """
    factor = max(1, least // max(picture.shape[:2]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def lay_over(
    picture: np.ndarray, heat: np.ndarray, scale: Scale | None = None, opacity: float | None = None
) -> np.ndarray:
    """Returns a picture in shades of gray under the colors of a map that is resized to it.

    On a signed scale the sign is a color and the size covers the picture, which is so seen where
    the map says nothing.

    Args:
      picture: uint8 [h, w, 1 or 3].
      heat: float [h', w'].
      scale: of the colors; None for the map's own, which is signed if the map has a negative value.
      opacity: of the colors, from 0 (the picture alone) to 1; None for one that suits the scale.

    Returns:
      uint8 [h, w, 3].
    """
    scale = scale or scale_of(heat, signed=bool((heat < 0).any()))
    if opacity is None:
        opacity = SIGNED_OPACITY if scale.signed else OPACITY
    values = resized(heat, *picture.shape[:2])
    colors = scale.colors(values)
    if scale.signed:
        colors = scale.colors(np.sign(values) * _PURE * scale.high)
        opacity = opacity * np.clip(np.abs(values) / scale.high, 0, 1)[..., None]
    gray = _rgb(np.asarray(Image.fromarray(_rgb(picture)).convert('L'))[..., None])
    return np.rint(opacity * colors + (1 - opacity) * gray).astype(np.uint8)


def marked(laid: np.ndarray, picture: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Returns an overlay with the marks of a picture on top, where they are seen in any color.

    Args:
      laid: of `lay_over` on `picture`.
      picture: uint8 [h, w, 1 or 3].
      marks: the same picture with marks in it (`Task.marked`).
    """
    drawn = (_rgb(picture) != _rgb(marks)).any(-1, keepdims=True)
    return np.where(drawn, _rgb(marks), laid)


def _rgb(picture: np.ndarray) -> np.ndarray:
    """Returns uint8 [h, w, 1 or 3] with three channels."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3))
