"""Where a split lives while it is used: whole on the devices, or on the host, sent by the batch."""

from training.runner import Runner

SHARE = 0.25  # of a device's memory that a resident split may take


class Placement:
    """An open split, within the step's reach.

    On the devices (every one has it all) a batch is only indices, and the step gathers. A split
    too large for that stays on the host, which gathers and sends uint8: same examples, same bits.

    Args:
      runner: whose devices they are.
      split: an open split, or its features (training/linear_probe.py).
      where: 'auto', 'device' or 'host'.
    """

    def __init__(self, runner: Runner, split, where: str = 'auto'):
        self._runner = runner
        self._arrays = split.arrays
        self.size = len(split.labels)
        fits = sum(a.nbytes for a in self._arrays.values()) <= SHARE * _memory(runner.local[0])
        self.resident = where == 'device' or (where == 'auto' and fits)
        self.dataset = runner.replicate(self._arrays) if self.resident else {}

    def place(self, batch):
        """Returns a batch of indices on the devices, with its images unless those are there."""
        if not self.resident:
            index = batch['index']
            batch = {**batch, **{name: array[index] for name, array in self._arrays.items()}}
        return self._runner.split(batch)


def _memory(device) -> float:
    """Bytes that the device has, without end where it does not say (a CPU: the host's own)."""
    stats = device.memory_stats() or {}
    return stats.get('bytes_limit', float('inf'))
