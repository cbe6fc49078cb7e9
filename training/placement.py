"""Where a split lives while it is used: whole on the devices, or on the host, sent by the batch."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np
from ml_collections import ConfigDict

import input_pipeline
from distributed import devices, hosts
from errors import UserError
from training.runner import Runner

if TYPE_CHECKING:  # Grain takes half a second to import
    import grain

    from data_sources.arrays import ArraySource
    from data_sources.record_source import RecordSource
    from data_sources.tiles import TilePlan
    from input_pipeline import EvalPlan
    from training.linear_probe import Features

MEMORY_FRACTION = 0.25  # of a device's memory, at most, for a resident split
AUTOMATIC = 10  # updates per call on an accelerator

HostBatch = dict[str, np.ndarray]
DeviceBatch = dict[str, jax.Array]


class Placement:
    """An open split where the step can use it.

    On the devices (each has all of it) a batch is only indices, and the step gathers. A split too
    large for that stays on the host, which gathers images in uint8 and targets, and sends them:
    same examples, same bits. A streamed split is decoded and sent at most `data.prefetch` batches
    ahead.

    Args:
      runner: the step over the devices.
      split: an open split, or its features (training/linear_probe.py).
      config: the run's configuration.

    Attributes:
      streamed: whether the split is decoded from records on disk.
      resident: whether it is whole on the devices.
      dataset: for a resident split, its arrays on the devices; otherwise {}.
    """

    def __init__(
        self, runner: Runner, split: 'ArraySource | RecordSource | Features', config: ConfigDict
    ):
        self._runner, self._split, self._config = runner, split, config
        self._arrays = getattr(split, 'arrays', None)
        self._eval_plan: EvalPlan | TilePlan | None = None
        self.streamed = self._arrays is None
        placement = config.data.placement
        self.resident = not self.streamed and (
            placement == 'device' or (placement == 'auto' and self._fits())
        )
        self.dataset: DeviceBatch = runner.replicate(self._arrays) if self.resident else {}

    def _fits(self) -> bool:
        """Returns whether the split is small enough for the devices' memory, if that is known."""
        size = sum(array.nbytes for array in self._arrays.values())
        limit = devices.memory_limit(self._runner.local[0])
        return limit is None or size <= MEMORY_FRACTION * limit

    def train_batches(
        self, start_step: int, call: Callable[[int], int] | None = None
    ) -> Iterator[DeviceBatch]:
        """Yields training batches start_step, ... on the devices, without end.

        Args:
          start_step: number of the first batch.
          call: step -> how many batches the call after `step` updates takes; several come stacked,
            for `Runner.train_many`. A streamed set always gives one.
        """
        process = (jax.process_index(), jax.process_count())
        if self.streamed:
            batches = input_pipeline.train_stream(self._config, self._split, start_step, *process)
            yield from self._sent_ahead(batches)
        else:
            plan = input_pipeline.train_batches(
                self._config, self._split.size, start_step, *process
            )
            step = start_step
            while True:
                count = call(step) if call else 1
                yield self._placed_many([next(plan) for _ in range(count)])
                step += count

    def eval_plan(self) -> 'EvalPlan | TilePlan':
        """Returns which examples, or tiles of pictures, make the batches of an evaluation."""
        if self._eval_plan is None:
            self._eval_plan = input_pipeline.eval_plan(
                self._config,
                self._split,
                len(self._runner.devices),
                jax.process_index(),
                jax.process_count(),
            )
        return self._eval_plan

    def eval_batches(self) -> Iterator[DeviceBatch]:
        """Yields batches that hold every example once, on the devices."""
        plan = self.eval_plan()
        if self.streamed:
            yield from self._sent_ahead(input_pipeline.eval_stream(self._config, self._split, plan))
        else:
            yield from map(self._placed, plan)

    def _sent_ahead(self, batches: 'grain.IterDataset') -> Iterator[DeviceBatch]:
        """Yields streamed batches on the devices, sent ahead; a bad record ends all processes."""
        from data_sources import stream  # half a second to import

        try:
            yield from stream.sent_ahead(batches, self._runner.split, self._config.data.prefetch)
        except UserError as error:
            hosts.abort_others(error)
            raise

    def _placed_many(self, batches: list[HostBatch]) -> DeviceBatch:
        """Returns one batch of indices on the devices, or several of a resident set, stacked."""
        return self._placed(batches[0]) if len(batches) == 1 else self._runner.split_many(batches)

    def _placed(self, batch: HostBatch) -> DeviceBatch:
        """Returns a batch of indices on the devices, and what they stand for if it is not there."""
        if not self.resident:
            index = batch['index']
            batch = {**batch, **{name: array[index] for name, array in self._arrays.items()}}
        return self._runner.split(batch)


def check(config: ConfigDict) -> None:
    """Checks what the configuration alone decides, before the data set is opened.

    Raises:
      UserError: several updates per call, where the images of a batch have to be sent.
    """
    data = config.data
    streamed = data.image_size is not None and not config.linear_probe
    if streamed or data.placement == 'host':
        updates_per_call(config, False, '')


def updates_per_call(config: ConfigDict, resident: bool, platform: str) -> int:
    """Returns how many updates one call may do: `config.steps_per_call`, or a choice.

    On a CPU it is one: starting a step costs little there, and XLA's loops are slower.

    Raises:
      UserError: several are asked for, and the images of a batch have to be sent.
    """
    wanted = config.steps_per_call
    if wanted is None:
        return AUTOMATIC if resident and platform != 'cpu' else 1
    if wanted > 1 and not resident:
        raise UserError(
            f'config.steps_per_call={wanted} needs a training set that is whole on the devices, '
            'and this one is streamed or on the host: leave config.steps_per_call out.'
        )
    return wanted
