"""The pictures that a filter passes over: the textbook's, a digit, a photograph, a file."""

import dataclasses
import re
from pathlib import Path

import numpy as np
from PIL import Image

from data_sources import scikit_learn
from errors import UserError, did_you_mean, shortened

TEXTBOOK = ('11100', '01110', '00111', '00110', '01100')
NAMES = ('textbook', 'digit', 'tower')
FILTERS = ('sobel', 'sobel_y', 'laplacian', 'blur', 'sharpen')


@dataclasses.dataclass(frozen=True)
class Picture:
    """A gray picture.

    Attributes:
      title: what it is, in a few words, such as "the textbook's picture".
      values: float64 [h, w].
      white: the number that is drawn in white; 0 is black.
      filters: names of the filters that are shown unless others are chosen.
      notes: sentences about where it comes from and what was done to it.
    """

    title: str
    values: np.ndarray
    white: int = 255
    filters: tuple[str, ...] = FILTERS
    notes: tuple[str, ...] = ()


def embedded(name: str) -> Picture:
    """Returns the picture of --image=NAME.

    Raises:
      UserError: there is no such picture, or scikit-learn, which has it, is not installed.
    """
    if name == 'textbook':
        values = np.array([[float(number) for number in row] for row in TEXTBOOK])
        return Picture("the textbook's picture", values, 1, ('cross',))
    if name == 'tower':
        note = 'Photograph by danielbuechele, CC BY 2.0, from scikit-learn.'
        path = scikit_learn.shipped('images/china.jpg', 'The tower is')
        return dataclasses.replace(from_file(path), title='the tower', notes=(note,))
    if name == 'digit' or name.startswith('digit:'):
        return _digit(name)
    raise UserError(
        f'--image={shortened(name)}: there are {", ".join(NAMES)} and digit:N; the path of a file '
        f'is given without --image.{did_you_mean(name, NAMES)}'
    )


def _digit(name: str) -> Picture:
    """Returns a digit of the test split: 'digit', or 'digit:N' for number N."""
    from data_sources import digits

    split = digits.load('test')
    number = name.partition(':')[2] if ':' in name else '0'
    most = len(split.images) - 1
    if not re.fullmatch('[0-9]{1,9}', number) or int(number) > most:
        raise UserError(
            f'--image={shortened(name)}: the digits of the test split have the numbers 0 to {most}.'
        )
    index = int(number)
    note = f'Number {index} of the test split of the embedded digits.'
    return Picture(
        f'a handwritten {split.labels[index]}',
        split.images[index, ..., 0].astype(float),
        notes=(note,),
    )


def from_file(path: Path) -> Picture:
    """Returns a picture file, upright and in gray (ITU-R 601 luma), 0 to 255.

    Raises:
      UserError: it is missing, damaged, no picture, or too large.
    """
    from data_sources import images

    return Picture(shortened(path.name, 40), np.asarray(images.open_picture(path, 'L'), float))


def reduced(picture: Picture, side: int) -> Picture:
    """Returns the picture with at most `side` pixels on its longer side.

    A new pixel is the mean of the area that it covers, rounded to a whole number.
    """
    height, width = picture.values.shape
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    exact = Image.fromarray(picture.values.astype(np.float32))  # bytes would be rounded twice
    pixels = np.asarray(exact.resize(size, Image.Resampling.BOX), float).round()
    note = f'Reduced from {height}x{width} to {size[1]}x{size[0]} pixels (--size={side}).'
    notes = (*picture.notes, note)
    return dataclasses.replace(picture, values=pixels, notes=notes)
