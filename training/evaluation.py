"""One pass over a split: the metrics' sums over every example, each counted once."""

import collections
from typing import Any

import jax
import numpy as np

from distributed import hosts, watchdog
from errors import UserError
from training.experiment import Experiment
from training.placement import Placement
from training.runner import RUN_AHEAD, Runner


class Evaluator:
    """Evaluates variables on one split.

    Args:
      experiment: what is evaluated.
      runner: how.
      split: an open split.
    """

    def __init__(self, experiment: Experiment, runner: Runner, split):
        self._experiment, self._runner = experiment, runner
        self._data = Placement(runner, split, experiment.config)
        self._compiled = jax.process_count() == 1

    def __call__(self, variables) -> dict[str, Any]:
        """Returns the metrics' sums over every example of the split, counted once, as NumPy."""
        total, waiting = {}, collections.deque()
        for batch in self._data.eval_batches():
            waiting.append(self._start(variables, batch, self._data.dataset))
            if len(waiting) > RUN_AHEAD:
                add(total, self._fetch(waiting.popleft()))
        for sums in waiting:
            add(total, self._fetch(sums))
        if not total['count']:
            raise UserError(
                'Not one record that was to be evaluated decodes: prepare the set again.'
            )
        return total

    def _start(self, *arguments):
        if not self._compiled:  # compiling has no limit; waiting for other processes has
            hosts.barrier('an evaluation')
            self._runner.evaluate.lower(*arguments).compile()
            self._compiled = True
        with watchdog.waiting('an evaluation'):
            return self._runner.evaluate(*arguments)

    def _fetch(self, sums) -> dict[str, Any]:
        with watchdog.waiting('an evaluation'):
            return self._runner.fetch(sums)


def add(total: dict, sums: dict) -> None:
    """Adds on the host, in float64 and int64: a million examples lose nothing."""
    for name, value in sums.items():
        wide = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float64
        total[name] = total.get(name, 0) + value.astype(wide)
