"""Kinds of target: what an example holds beside its image, and how it follows the pixels."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of target. A task names its targets and their kinds; nothing else knows them."""

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, as an array of this kind looks in the step."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Label(Kind):
    """The number of a class, int32 [n]."""

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, int32 [examples]."""
        del image_shape
        return np.zeros(examples, np.int32)
