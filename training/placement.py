"""Where a split lives while it is used: whole on the devices, or on the host, sent by the batch."""

from collections.abc import Callable, Iterator

import jax

import input_pipeline
from distributed import devices, hosts
from errors import UserError
from training.runner import Runner

SHARE = 0.25  # of a device's memory that a resident split may take
AUTOMATIC = 10  # updates per call on an accelerator


class Placement:
    """An open split, within the step's reach.

    On the devices (every one has it all) a batch is only indices, and the step gathers. A split
    too large for that stays on the host, which gathers and sends uint8: same examples, same bits.
    One that is streamed is decoded ahead and sent ahead, `data.prefetch` batches at most.

    Args:
      runner: whose devices they are.
      split: an open split, or its features (training/linear_probe.py).
      config: of the run.
    """

    def __init__(self, runner: Runner, split, config):
        self._runner, self._split, self._config = runner, split, config
        self._arrays = getattr(split, 'arrays', None)
        self.streamed = self._arrays is None
        where = config.data.placement
        self.resident = not self.streamed and (
            where == 'device' or (where == 'auto' and self._fits())
        )
        self.dataset = runner.replicate(self._arrays) if self.resident else {}

    def _fits(self) -> bool:
        size = sum(array.nbytes for array in self._arrays.values())
        limit = devices.memory_limit(self._runner.local[0])
        return limit is None or size <= SHARE * limit

    def train_batches(
        self, start_step: int, call: Callable[[int], int] | None = None
    ) -> Iterator[dict]:
        """Yields training batches start_step, ... on the devices, for ever.

        Args:
          start_step: number of the first.
          call: step -> how many batches the call after `step` updates takes; where that is more
            than one they come stacked, for `Runner.train_many`. A streamed set gives one each time.
        """
        place = (jax.process_index(), jax.process_count())
        if self.streamed:
            batches = input_pipeline.train_stream(self._config, self._split, start_step, *place)
            yield from self._sent_ahead(batches)
        else:
            plan = input_pipeline.train_batches(self._config, self._split.size, start_step, *place)
            step = start_step
            while True:
                count = call(step) if call else 1
                yield self._placed_many([next(plan) for _ in range(count)])
                step += count

    def eval_batches(self) -> Iterator[dict]:
        """Yields batches that hold every example once, on the devices."""
        plan = input_pipeline.EvalPlan(
            self._split.size,
            self._config.eval_batch_size,
            len(self._runner.devices),
            jax.process_index(),
            jax.process_count(),
        )
        if self.streamed:
            yield from self._sent_ahead(input_pipeline.eval_stream(self._config, self._split, plan))
        else:
            yield from map(self._placed, plan)

    def _sent_ahead(self, batches) -> Iterator[dict]:
        from data_sources import stream  # half a second to import

        try:
            yield from stream.sent_ahead(batches, self._runner.split, self._config.data.prefetch)
        except UserError as error:
            hosts.abort_others(error)
            raise

    def _placed_many(self, batches: list[dict]) -> dict:
        return self._placed(batches[0]) if len(batches) == 1 else self._runner.split_many(batches)

    def _placed(self, batch: dict) -> dict:
        """A batch of indices on the devices, with its images unless those are there."""
        if not self.resident:
            index = batch['index']
            batch = {**batch, **{name: array[index] for name, array in self._arrays.items()}}
        return self._runner.split(batch)


def check(config) -> None:
    """Checks what can be said without the data set.

    Raises:
      UserError: several updates per call, where the images of a batch have to be sent.
    """
    data = config.data
    streamed = data.image_size is not None and not config.linear_probe
    if streamed or data.placement == 'host':
        updates_per_call(config, False, '')


def updates_per_call(config, resident: bool, platform: str) -> int:
    """Returns how many updates one call may do, `config.steps_per_call` or a choice.

    A CPU gains nothing: starting a step costs little there, and XLA's loops are slower.

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
