"""How much a score falls when a part of the picture is hidden.

Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2. Theirs
is the probability of the class and a gray square; here it is the score (for a class the logit), and
a square in the mean color of the picture unless another is asked for. This needs no gradient, so
that it is a check of those methods that do.
"""

import math
from collections.abc import Iterator

import numpy as np

from inspection import fills
from inspection.opened import BATCH, Opened
from tasks.answer import Choice
from training import progress

PARTS = 14  # positions of the window down and across, about
SHARE = 5  # the window's side is this part of the picture's


def occlusion(
    opened: Opened,
    pixels: np.ndarray,
    choice: Choice,
    window: int | None = None,
    stride: int | None = None,
    fill: str = 'mean',
) -> np.ndarray:
    """Returns for each image a map of how much a choice's score falls if a window hides a place.

    The cells of the map are equal parts of the picture. The window lies in the middle of each in
    turn, and is cut at the edges of the picture. In a terminal a bar shows the progress.

    Args:
      opened: the network.
      pixels: uint8 [b, ..., h, w, c]; the window is at the same place in all pictures of an image.
      choice: what is explained, the same for all images.
      window: its side in pixels; None for a fifth of the shorter side of the picture.
      stride: pixels from one position to the next, or a little less if the picture has no whole
        number of them; None for about 14 positions along the shorter side.
      fill: what it shows, a name of `fills`.

    Returns:
      float32 [b, ceil(h / stride), ceil(w / stride)], in units of the score; negative where hiding
      the place made the choice more likely.

    Raises:
      UserError: there is no such fill.
    """
    shorter = min(pixels.shape[-3:-1])
    window, stride = window or max(1, shorter // SHARE), stride or max(1, shorter // PARTS)
    cover = fills.plain(pixels, fill)
    tops, lefts = (positions(n, window, -(-n // stride)) for n in pixels.shape[-3:-1])
    places = [(rows, columns) for rows in tops for columns in lefts]
    jobs = [(i, None) for i in range(len(pixels))]
    jobs += [(i, place) for i in range(len(pixels)) for place in places]

    def scores() -> Iterator[np.ndarray]:
        for first in range(0, len(jobs), BATCH):
            part = jobs[first : first + BATCH]
            # A smaller last part would be another program.
            copies = np.zeros((min(BATCH, len(jobs)), *pixels.shape[1:]), np.uint8)
            for copy, (i, place) in zip(copies, part, strict=False):
                copy[:] = pixels[i]
                if place is not None:
                    copy[..., *place, :] = cover[i][..., *place, :]
            yield opened.score(opened.inputs(copies), choice)[: len(part)]

    found = np.concatenate([*progress.pictures(scores(), len(jobs), of=len)])
    whole, hidden = found[: len(pixels), None], found[len(pixels) :].reshape(len(pixels), -1)
    return (whole - hidden).reshape(-1, len(tops), len(lefts)).astype(np.float32)


def positions(side: int, window: int, cells: int) -> list[slice]:
    """Returns the pixels that a window hides along one side, for each of its positions.

    Their middles are those of equal parts of the side, within half a pixel.
    """
    middles = ((cell + 0.5) * side / cells for cell in range(cells))
    starts = [math.floor(middle - window / 2 + 0.5) for middle in middles]
    return [slice(max(0, start), min(side, start + window)) for start in starts]
