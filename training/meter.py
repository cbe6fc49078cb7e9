"""Sums and rates from one record to the next: training metrics, and the speed of training."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tasks.task import Batch, Sums
from training.evaluation import add

# The scalars that a step returns beside the task's sums.
SCALARS = ('grad_norm', 'learning_rate')


class Window:
    """Sums of the training metrics since the last record.

    Args:
      stored: the result of `stored` before the run was stopped.
    """

    def __init__(self, stored: Mapping[str, Any] | None = None):
        self.sums: Sums = {name: np.asarray(value) for name, value in (stored or {}).items()}

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Adds one step's sums."""
        add(self.sums, {name: value for name, value in metrics.items() if name not in SCALARS})

    @property
    def bad_records(self) -> int:
        """Number of records that did not decode and were replaced by others."""
        return int(self.sums.get('bad', 0))

    def stored(self) -> dict[str, Any] | None:
        """Returns the sums as values for JSON, or None if there are none."""
        return {name: value.tolist() for name, value in self.sums.items()} or None


@dataclasses.dataclass(frozen=True)
class Rates:
    """The speed of training since the last record.

    Attributes:
      images_per_second: over all devices and hosts.
      input_wait: fraction of the time for which the loop waited for a batch, in [0, 1].
    """

    images_per_second: float
    input_wait: float


class Meter:
    """Measures the speed of the loop by the clock; it never waits for a device.

    The clock runs while steps are under way and is stopped during compilation, evaluation and
    saving.

    Args:
      clock: returns seconds; tests pass their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since: float | None = None
        self._seconds = self._waited = 0.0
        self._images = 0
        self._all_seconds, self._all_images = 0.0, 0

    @property
    def images_per_second(self) -> float:
        """Images per second of the whole run so far; 0.0 if nothing was measured."""
        return self._all_images / self._all_seconds if self._all_seconds else 0.0

    def start(self) -> None:
        """Starts the clock if it is stopped."""
        if self._since is None:
            self._since = self._clock()

    def stop(self) -> None:
        """Stops the clock; no step may be under way."""
        self._add_elapsed()
        self._since = None

    def next(self, batches: Iterator[Batch]) -> Batch:
        """Returns next(batches), and measures how long that took."""
        start = self._clock()
        batch = next(batches)
        if self._since is not None:
            self._waited += self._clock() - start
        return batch

    def done(self, images: int) -> None:
        """Counts the images of a finished step, unless the clock is stopped."""
        if self._since is not None:
            self._add_elapsed()
            self._images += images
            self._all_images += images

    def take(self) -> Rates | None:
        """Returns the rates since the last call, or None if nothing was measured."""
        seconds, images, waited = self._seconds, self._images, self._waited
        self._seconds = self._waited = 0.0
        self._images = 0
        if not images or seconds <= 0:
            return None
        return Rates(images / seconds, min(waited / seconds, 1.0))

    def _add_elapsed(self) -> None:
        """Adds the time since the clock was started or last read."""
        if self._since is not None:
            now = self._clock()
            self._seconds += now - self._since
            self._all_seconds += now - self._since
            self._since = now
