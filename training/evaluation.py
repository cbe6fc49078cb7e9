"""One pass over a split, which gives the task's sums and rows; every example counts once."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from data_sources.tiles import Merger
from distributed import hosts, watchdog
from errors import UserError
from tasks.dense import PREDICTION, DenseTask
from tasks.task import Batch, Sums
from training.experiment import Experiment, Split
from training.placement import Placement
from training.runner import RUN_AHEAD, Runner

if TYPE_CHECKING:  # Grain takes half a second to import
    from data_sources.record_source import RecordSource
    from data_sources.tiles import TilePlan


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of a pass over a split, the same for any batch size and number of devices.

    Attributes:
      sums: the task's sums over all examples, in float64 and int64.
      rows: the task's rows of all examples [n, ...], in the order of the data set; None for a task
        without rows.
    """

    sums: Sums
    rows: dict[str, np.ndarray] | None

    @property
    def bad_records(self) -> int:
        """Number of records that did not decode and were not counted."""
        return int(self.sums.get('bad', 0))


class Evaluator:
    """Evaluates variables on one split.

    Args:
      experiment: the experiment whose network is evaluated.
      runner: the step over the devices.
      split: an open split, or its features for a linear probe.
    """

    def __init__(self, experiment: Experiment, runner: Runner, split: Split):
        self._runner, self._split = runner, split
        self._data = Placement(runner, split, experiment.config)
        self._compiled: set[tuple[int, ...]] = set()  # the shapes of images

    def __call__(self, variables: Mapping[str, Any]) -> Evaluation:
        """Evaluates the whole split.

        Args:
          variables: {'params', 'batch_stats'}, placed on the devices.

        Raises:
          UserError: none of its records decodes.
        """
        task, plan = self._runner.spec.task, self._data.eval_plan()
        total, blocks, under_way = {}, [], collections.deque()
        # Of a picture in tiles the device has a part only, which the host joins to the others.
        collected = Pictures(task, self._split, plan) if plan.tiled else task.collected

        def collect() -> None:
            sums, rows = self._fetch(under_way.popleft())
            add(total, sums)
            if rows is not None:
                blocks.append(collected(rows))

        # A batch is started before the result of an earlier one is fetched, so that the devices
        # never wait for the host. The bound keeps memory, and XLA's CPU collectives, in check.
        for batch in self._data.eval_batches():
            under_way.append(self._start(variables, batch, self._data.dataset))
            if len(under_way) > RUN_AHEAD:
                collect()
        while under_way:
            collect()
        if not total['count']:
            raise UserError(
                'Not one record of the split to be evaluated decodes: prepare the data set again.'
            )
        rows = None
        # Sums are already those of all devices. Rows are this process's own and are exchanged once,
        # at the end: an exchange for every batch would make the processes wait for each other.
        if blocks:
            joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
            rows = in_order([{name: hosts.concatenate(array) for name, array in joined.items()}])
        return Evaluation(task.totals(total, rows), rows)

    def _start(
        self, variables: Mapping[str, Any], batch: Batch, dataset: Batch
    ) -> tuple[Sums, dict[str, jax.Array] | None]:
        """Starts the evaluation of a batch; returns its sums and rows, which need not be done."""
        # Compilation may take any time, but waiting for another process has a limit. So each
        # process compiles first, outside `waiting`, and the calls then start together.
        # A single process may compile at its first call, because nobody waits for it meanwhile.
        shape = batch['image'].shape if 'image' in batch else ()
        if jax.process_count() > 1 and shape not in self._compiled:
            hosts.barrier('an evaluation')
            self._runner.evaluate.lower(variables, batch, dataset).compile()
            self._compiled.add(shape)
        with watchdog.waiting('an evaluation'):
            return self._runner.evaluate(variables, batch, dataset)

    def _fetch(
        self, evaluated: tuple[Sums, dict[str, jax.Array] | None]
    ) -> tuple[Sums, dict[str, np.ndarray] | None]:
        """Waits for the sums and rows of a batch; returns them as host arrays."""
        sums, rows = evaluated
        with watchdog.waiting('an evaluation'):
            return self._runner.fetch(sums), self._runner.fetch_rows(rows)


class Pictures:
    """Joins the tiles of a split's pictures, and examines each picture when it is complete.

    Args:
      task: a dense task (tasks/dense.py).
      split: a streamed split.
      plan: of its tiles.
    """

    def __init__(self, task: DenseTask, split: 'RecordSource', plan: 'TilePlan'):
        self._task, self._split = task, split
        self._merger = Merger(plan)
        self._nothing: dict[str, np.ndarray] | None = None

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the results of the pictures that a batch of tiles has completed.

        Without any there is one result, whose mask is 0, so that every process can say of which
        arrays results consist.

        Args:
          rows: predictions of tiles [b, h, w, ...], and their 'index' and 'mask'.
        """
        results = []
        for tile in np.flatnonzero(rows['mask'] > 0):
            for picture, whole in self._merger.add(
                int(rows['index'][tile]), rows[PREDICTION][tile]
            ):
                [record] = self._split.read([picture])
                self._check_sizes(picture, whole, record.targets)
                results.append(self._result(picture, 1, whole, record.targets))
        if not results:
            if self._nothing is None:
                first = rows[PREDICTION][0]
                kinds = self._task.targets.items()
                empty = {name: kind.empty(1, first.shape)[0] for name, kind in kinds}
                self._nothing = self._result(0, 0, first, empty)
            results.append(self._nothing)
        return {name: np.stack([result[name] for result in results]) for name in results[0]}

    def _check_sizes(
        self, picture: int, whole: np.ndarray, targets: Mapping[str, np.ndarray]
    ) -> None:
        for name, value in targets.items():
            if value.shape[:2] != whole.shape[:2]:
                raise UserError(
                    f'Example {picture} of the {self._split.split} split in {self._split.folder} '
                    f'has a picture of {whole.shape[1]}x{whole.shape[0]} pixels and a {name} of '
                    f'{value.shape[1]}x{value.shape[0]}: prepare the data set again.'
                )

    def _result(
        self, picture: int, mask: int, prediction: np.ndarray, targets: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns what is kept of a picture until the end of the split."""
        examined = self._task.examined(prediction, targets)
        index = np.int32(picture)
        return {**examined, 'example': index, 'index': index, 'mask': np.float32(mask)}


def add(total: Sums, sums: Mapping[str, np.ndarray]) -> None:
    """Adds sums to a total on the host, in float64 and int64.

    In float32 a sum over a million examples would lose digits.
    """
    for name, value in sums.items():
        wide = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float64
        total[name] = total.get(name, 0) + value.astype(wide)


def in_order(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the rows of several batches as one, without masked ones, sorted by index.

    Args:
      blocks: rows [b, ...] with 'index' int32 [b] and 'mask' [b], which are left out of the result.
    """
    rows = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    # Padding repeats an index, so masked rows go before the sort.
    real = np.flatnonzero(rows.pop('mask') > 0)
    order = real[np.argsort(rows.pop('index')[real], kind='stable')]
    return {name: array[order] for name, array in rows.items()}
