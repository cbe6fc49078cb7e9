"""Random numbers and orders on the host, derived from a seed, a name and counters.

This is the counterpart of rng.py for what happens before the device. NumPy promises to
keep Philox's raw 64-bit words the same between releases (the distributions of its Generator it does
not), so everything here is made of those words.
"""

import math
import zlib

import numpy as np

_WORDS = 16  # drawn at a time: enough for most examples


def permutation(size: int, seed: int, name: str, number: int = 0) -> np.ndarray:
    """Returns a permutation of range(size), int64: the order of as many random words.

    Args:
      size: length of the range.
      seed, name: as for `Draws`.
      number: tells the permutations of one name apart; the epoch, for instance.
    """
    words = _philox(seed, name, (0, 0, 0, number)).random_raw(size)
    return np.argsort(words, kind='stable')


def _philox(seed: int, name: str, counter: tuple[int, ...]) -> np.random.Philox:
    """Returns the generator whose key is made of seed and name, at a counter."""
    key = np.array([seed, zlib.crc32(name.encode())], np.uint64)
    return np.random.Philox(key=key, counter=np.array(counter, np.uint64))


class Draws:
    """An endless stream of random numbers, the same for the same four arguments.

    Args:
      seed: the run's seed, 0 .. 2**32 - 1.
      name: what the numbers are for; different names give independent streams.
      visit: how often the example came before (the epoch, where it comes once an epoch).
      example: its index in the data set.
    """

    def __init__(self, seed: int, name: str, visit: int, example: int):
        self._philox = _philox(seed, name, (0, 0, visit, example))
        self._words: list[int] = []

    def _word(self) -> int:
        """Returns the next random word, 0 .. 2**64 - 1."""
        if not self._words:
            self._words = self._philox.random_raw(_WORDS).tolist()[::-1]
        return self._words.pop()

    def raw(self, count: int) -> bytes:
        """Returns `count` random words, 8 bytes each, lowest byte first."""
        return np.asarray(self._philox.random_raw(count), '<u8').tobytes()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * ((self._word() >> 11) * 2.0**-53)

    def integer(self, count: int) -> int:
        """Returns one of 0 .. count - 1, unbiased to within count / 2**64."""
        return (self._word() * count) >> 64

    def happens(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self.uniform() < probability

    def normal(self) -> float:
        """Returns a number from the standard normal distribution (Box and Muller 1958)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return radius * math.cos(2.0 * math.pi * self.uniform())
