"""What the loop sums up from one record to the next: training metrics, and how fast it went."""

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass
class Window:
    """Sums of the training metrics since the last record."""

    loss: float = 0.0
    correct: int = 0
    count: int = 0
    bad: int = 0

    def add(self, metrics) -> None:
        """Adds one step's sums."""
        self.loss += float(metrics['loss'])
        self.correct += int(metrics['correct'])
        self.count += int(metrics['count'])
        self.bad += int(metrics.get('bad', 0))


@dataclasses.dataclass(frozen=True)
class Rates:
    """Of the steps since the last record.

    Attributes:
      images_per_second: over all devices and hosts.
      input_wait: share of the time in which the loop waited for a batch, in [0, 1].
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
