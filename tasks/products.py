"""What `predict.py --output=DIR` writes for a picture."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Products:
    """The answer for a picture, as files.

    Attributes:
      pictures: {name of a folder: the picture for it}, uint8 [h, w, 3], or uint8 or uint16 [h, w]
        where pixels have numbers.
      rows: one for each object found, with the same keys for all pictures.
    """

    pictures: Mapping[str, np.ndarray]
    rows: Sequence[Mapping[str, Any]]
