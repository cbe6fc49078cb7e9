"""One pass over a split: the task's sums and rows of every example, each counted once."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from distributed import hosts, watchdog
from errors import UserError
from training.experiment import Experiment
from training.placement import Placement
from training.runner import RUN_AHEAD, Runner


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a pass over a split gives, the same for any batch size and number of devices.

    Attributes:
      sums: the task's sums over all examples, in float64 and int64.
      rows: the task's rows of all examples [n, ...], in the order of the data set; None for a task
        without rows.
    """

    sums: dict[str, Any]
    rows: dict[str, np.ndarray] | None

    @property
    def bad_records(self) -> int:
        """How many records did not decode and were not counted."""
        return int(self.sums.get('bad', 0))


class Evaluator:
    """Evaluates variables on one split.

    Args:
      experiment: what is evaluated.
      runner: how.
      split: an open split.
    """

    def __init__(self, experiment: Experiment, runner: Runner, split: Any):
        self._experiment, self._runner = experiment, runner
        self._data = Placement(runner, split, experiment.config)
        self._compiled = jax.process_count() == 1

    def __call__(self, variables: Any) -> Evaluation:
        """Evaluates the whole split.

        Raises:
          UserError: none of its records decodes.
        """
        total, blocks, waiting = {}, [], collections.deque()

        def collect() -> None:
            sums, rows = self._fetch(waiting.popleft())
            add(total, sums)
            if rows is not None:
                blocks.append(rows)

        for batch in self._data.eval_batches():
            waiting.append(self._start(variables, batch, self._data.dataset))
            if len(waiting) > RUN_AHEAD:
                collect()
        while waiting:
            collect()
        if not total['count']:
            raise UserError(
                'Not one record that was to be evaluated decodes: prepare the set again.'
            )
        rows = None
        if blocks:
            joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
            rows = in_order([{name: hosts.concatenate(array) for name, array in joined.items()}])
        return Evaluation(total, rows)

    def _start(self, *arguments):
        if not self._compiled:  # compiling has no limit; waiting for other processes has
            hosts.barrier('an evaluation')
            self._runner.evaluate.lower(*arguments).compile()
            self._compiled = True
        with watchdog.waiting('an evaluation'):
            return self._runner.evaluate(*arguments)

    def _fetch(self, evaluated) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
        sums, rows = evaluated
        with watchdog.waiting('an evaluation'):
            return self._runner.fetch(sums), self._runner.fetch_rows(rows)


def add(total: dict[str, Any], sums: Mapping[str, Any]) -> None:
    """Adds on the host, in float64 and int64: a million examples lose nothing."""
    for name, value in sums.items():
        wide = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float64
        total[name] = total.get(name, 0) + value.astype(wide)


def in_order(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the rows of several batches as one, without masked ones, sorted by index.

    Args:
      blocks: rows [b, ...] with 'index' int32 [b] and 'mask' [b], which are left out of the result.
    """
    rows = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    real = np.flatnonzero(rows.pop('mask') > 0)
    order = real[np.argsort(rows.pop('index')[real], kind='stable')]
    return {name: array[order] for name, array in rows.items()}
