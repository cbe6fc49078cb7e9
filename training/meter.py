"""What the loop sums up from one record to the next: training metrics, and how fast it went."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tasks.task import Sums
from training.evaluation import add

# What a step returns beside the task's sums.
SCALARS = ('grad_norm', 'learning_rate')


class Window:
    """Sums of the training metrics since the last record.

    Args:
      stored: what `stored` gave before the run was stopped.
    """

    def __init__(self, stored: Mapping[str, Any] | None = None):
        self.sums: Sums = {name: np.asarray(value) for name, value in (stored or {}).items()}

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Adds one step's sums."""
        add(self.sums, {name: value for name, value in metrics.items() if name not in SCALARS})

    @property
    def bad_records(self) -> int:
        """How many records did not decode, and others took their place."""
        return int(self.sums.get('bad', 0))

    def stored(self) -> dict[str, Any] | None:
        """Returns the sums as JSON can say them; None where there are none."""
        return {name: value.tolist() for name, value in self.sums.items()} or None


@dataclasses.dataclass(frozen=True)
class Rates:
    """Of the steps since the last record.

    Attributes:
      images_per_second: over all devices and hosts.
      input_wait: fraction of the time in which the loop waited for a batch, in [0, 1].
    """

    images_per_second: float
    input_wait: float


class Meter:
    """Measures the loop by the clock; it never waits for a device.

    It runs while steps are under way, and stands still during compilation, evaluation and saving.

    Args:
      clock: gives seconds; tests bring their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since: float | None = None
        self._seconds = self._waited = 0.0
        self._images = 0
        self._all_seconds, self._all_images = 0.0, 0

    @property
    def images_per_second(self) -> float:
        """Of the whole run so far; 0.0 where nothing was measured."""
        return self._all_images / self._all_seconds if self._all_seconds else 0.0

    def start(self) -> None:
        """Starts the clock where it stands still."""
        if self._since is None:
            self._since = self._clock()

    def stop(self) -> None:
        """Stops the clock; nothing may be under way."""
        self._note()
        self._since = None

    def next(self, batches):
        """Returns next(batches), and notes how long it took."""
        start = self._clock()
        batch = next(batches)
        if self._since is not None:
            self._waited += self._clock() - start
        return batch

    def done(self, images: int) -> None:
        """Counts images whose step is done; those of a step begun before the clock do not count."""
        if self._since is not None:
            self._note()
            self._images += images
            self._all_images += images

    def take(self) -> Rates | None:
        """Returns the rates since the last call; None where nothing was measured."""
        seconds, images, waited = self._seconds, self._images, self._waited
        self._seconds = self._waited = 0.0
        self._images = 0
        if not images or seconds <= 0:
            return None
        return Rates(images / seconds, min(waited / seconds, 1.0))

    def _note(self) -> None:
        """Adds the time since the last note."""
        if self._since is not None:
            now = self._clock()
            self._seconds += now - self._since
            self._all_seconds += now - self._since
            self._since = now
