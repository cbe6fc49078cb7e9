"""Random numbers for one example on the host, derived from (seed, name, visit, example).

The counterpart of training/rng.py for what happens before the device. Philox's raw 64-bit words are
what NumPy promises to keep the same between releases (its Generator's distributions are not), so
everything is made of them here.
"""

import math
import zlib

import numpy as np

_WORDS = 16  # drawn at a time: enough for most examples


class Draws:
    """An endless stream of random numbers, the same for the same four arguments.

    Args:
      seed: of the run, 0 .. 2**32 - 1.
      name: what they are for; different names give independent streams.
      visit: how often the example came before (the epoch, where it comes once an epoch).
      example: its index in the data set.
    """

    def __init__(self, seed: int, name: str, visit: int, example: int):
        key = np.array([seed, zlib.crc32(name.encode())], np.uint64)
        counter = np.array([0, 0, visit, example], np.uint64)
        self._philox = np.random.Philox(key=key, counter=counter)
        self._words: list[int] = []

    def _word(self) -> int:
        if not self._words:
            self._words = self._philox.random_raw(_WORDS).tolist()[::-1]
        return self._words.pop()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * ((self._word() >> 11) * 2.0**-53)

    def integer(self, count: int) -> int:
        """Returns one of 0 .. count - 1 (unbiased to within count / 2**64)."""
        return (self._word() * count) >> 64

    def happens(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self.uniform() < probability

    def normal(self) -> float:
        """Returns a number of the standard normal distribution (Box and Muller 1958)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return radius * math.cos(2.0 * math.pi * self.uniform())
