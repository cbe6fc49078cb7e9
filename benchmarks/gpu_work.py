"""What the parts of `python -m benchmarks.gpu` share: an experiment, programs, rows, windows."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import accelerator, roofline
from benchmarks.synthetic import SyntheticExperiment, batch_of
from distributed import devices
from errors import UserError
from training import flops
from training.step import train_step


@dataclasses.dataclass
class GpuPart:
    """What a part gets.

    `say` takes its results: rows=[...], all so far; note=..., for the reader of the table; and
    progress=..., for the user who waits.
    """

    name: str
    quick: bool  # run the smallest sizes that show that the part works
    budget: accelerator.Budget
    say: Callable[..., None]

    @property
    def window(self) -> float:
        """Seconds of one window."""
        return 0.0 if self.quick else 1.5

    def grow(self, sizes: Sequence, attempt: Callable[[Any], dict], windows: int = 3) -> dict:
        """Returns the rows that attempt(size) gave; reserves so many windows for each of them."""
        return accelerator.grow(
            sizes,
            attempt,
            self.budget,
            later=lambda count: windows * count * self.window,
            say=lambda sentence: self.say(note=sentence),
        )


class GpuExperiment(SyntheticExperiment):
    """A configuration and a split, ready on one device."""

    def __init__(self, config, split):
        config.devices, config.distributed = 1, 'off'
        super().__init__(config, split)

    @property
    def device(self):
        """The device that it runs on."""
        return self.runner.devices[0]

    @functools.cached_property
    def model_flops(self) -> float:
        """FLOPs of one image's update, by arithmetic."""
        return flops.per_image(self.spec, self.experiment.image_shape)

    def batches(self, size: int, count: int) -> list[dict[str, np.ndarray]]:
        """Returns batches on the host: epoch after epoch, each in its own random order."""
        examples = self.experiment.train_examples
        draw = np.random.default_rng(size)
        epochs = -(-size * count // examples)
        orders = np.concatenate([draw.permutation(examples) for _ in range(epochs)])
        return [batch_of(index) for index in orders[: size * count].reshape(count, size)]

    def updates(self, several: int) -> tuple[Callable, Callable]:
        """Returns the program for so many updates a call, and what places its batches."""
        if several == 1:
            return self.runner.train, lambda batches: self.runner.split(batches[0])
        return self.runner.train_many, self.runner.split_many

    def lanes(self, lanes: int) -> tuple[Callable, Any, dict]:
        """Returns (function, state, hyper) of so many networks that train at once.

        Each has its own seed and learning rate. 0 is one network, trained without vmap. The
        function does several updates: see `lane_batches`.
        """
        step = functools.partial(train_step, self.spec)
        if not lanes:
            function = functools.partial(_scanned, step)
            return jax.jit(function, donate_argnums=0), self.state(), self.hyper
        hyper = self.runner.fetch(self.hyper)
        hyper = {name: np.full(lanes, value, value.dtype) for name, value in hyper.items()}
        hyper['seed'] = np.arange(lanes, dtype=np.uint32)
        hyper['learning_rate'] = np.geomspace(3e-4, 3e-3, lanes, dtype=np.float32)
        create = functools.partial(self.experiment.create_state, self.spec)
        states = self.runner.replicate(jax.jit(jax.vmap(create))(hyper['seed']))
        function = functools.partial(_scanned, jax.vmap(step, in_axes=(0, 0, 0, None)))
        return jax.jit(function, donate_argnums=0), states, self.runner.replicate(hyper)

    def lane_batches(self, lanes: int, size: int, updates: int, seed: int) -> dict[str, np.ndarray]:
        """Returns the batches of one call on the host, [updates, lanes, size], for 0 lanes 2-d."""
        shape = (updates, lanes, size) if lanes else (updates, size)
        examples = self.experiment.train_examples
        return batch_of(np.random.default_rng(seed).integers(examples, size=shape))

    def accuracy(self, state, test) -> float:
        """Returns the accuracy on another split."""
        dataset, correct = self.runner.replicate(test.arrays), 0
        for index in np.array_split(np.arange(test.size), max(1, test.size // 1000)):
            batch = self.runner.split(batch_of(index))
            sums = self.runner.evaluate(state.variables(), batch, dataset)
            correct += int(self.runner.fetch(sums)['correct'])
        return correct / test.size

    def cost(self, program: accelerator.CompiledProgram, images: int) -> roofline.ProgramCost:
        """Returns the cost of a call that takes so many images."""
        return roofline.count(program.cost, program.text, self.model_flops * images)

    def row(self, name: str, images: int, program, cost, **more) -> dict[str, Any]:
        """Returns what is known of a row before it is measured; images and cost are of a call."""
        return {
            'name': name,
            'images': images,
            'counts': dataclasses.asdict(cost),
            'peak': flops.peak([self.device], self.experiment.config.dtype),
            'bandwidth': flops.bandwidth(self.device.device_kind),
            'compile_seconds': program.seconds,
            'cached': program.cached,
            **more,
        }


def _scanned(step: Callable, state, hyper, batches, dataset):
    """Does several updates in one call: leaves of batches and metrics are [updates, ...]."""
    return jax.lax.scan(lambda state, batch: step(state, hyper, batch, dataset), state, batches)


@dataclasses.dataclass
class TimedProgram:
    """A compiled program with its arguments, measured in windows of several calls."""

    program: accelerator.CompiledProgram
    state: list  # [state], which each call replaces; programs that take turns may share it
    hyper: dict  # on the device, as the following ones
    batches: Sequence
    dataset: dict
    calls: int = 1  # in a window
    metrics: dict | None = None  # of the last call

    def seconds(self, calls: int) -> float:
        """Returns the seconds that so many calls take."""
        start = time.perf_counter()
        self.state[0], self.metrics = accelerator.drive(
            self.program.call, self.state[0], self.batches, calls, self.hyper, self.dataset
        )
        return time.perf_counter() - start

    def window(self) -> float:
        """Returns the seconds of a window."""
        return self.seconds(self.calls)


def compile_program(
    experiment: GpuExperiment, function: Callable, state: list, batches: Sequence, hyper=None
) -> TimedProgram:
    """Compiles a function for the first of the batches."""
    hyper = hyper or experiment.hyper
    arguments = state[0], hyper, batches[0], experiment.dataset
    compiled = accelerator.compile_ahead(function, *arguments)
    return TimedProgram(compiled, state, hyper, batches, experiment.dataset)


def warm_up(
    part: GpuPart, device, timed: TimedProgram, text: str, amount: int, calls: int
) -> dict[str, Any]:
    """Runs so many calls twice, and chooses the calls of the program's window.

    Tells the user the rate, in place of {} in the text, by the amount of a call. Returns 'memory',
    the bytes that the program takes, and whether they were 'measured': they are the device's peak
    where the program has raised it, or else XLA's plan.
    """
    before, _ = devices.peak_memory([device])
    timed.seconds(calls)
    after, source = devices.peak_memory([device])
    measured = source == 'device' and after > before
    each = timed.seconds(calls) / calls
    timed.calls = max(1, round(part.window / each))
    part.say(progress=f'{text.format(f"{amount / each:,.0f}")}, {timed.program.description}.')
    return {'memory': after if measured else timed.program.memory, 'measured': measured}


def measure(
    part: GpuPart, rows: dict, windows: Mapping[Any, Callable[[], float]], most: int, amount
) -> None:
    """Measures all rows in turn, as often as time allows, and reports them after every round.

    A row gains 'rate', 'slowest', 'fastest' and 'seconds'. By the same keys, each of the windows
    returns its seconds, and amount(key) its images; there are `most` rounds at most.
    """
    seconds = {key: [] for key in windows}
    rounds = most = 1 if part.quick else most
    done = 0
    while done < rounds:
        for key, window in windows.items():
            seconds[key].append(window())
            rows[key] |= accelerator.rates(seconds[key], amount(key)) | {'seconds': seconds[key]}
        done += 1
        part.say(rows=[rows[key] for key in windows])
        longest = sum(map(max, seconds.values()))
        rounds = done + part.budget.times(longest, most - done)
    if done < most:
        part.say(note=f'{done} in place of {most} windows for each row, for lack of time.')


def introduce(part: GpuPart) -> None:
    """Reports where this runs.

    Raises:
      UserError: there is no accelerator, and --quick is not given.
    """
    device = jax.devices()[0]
    if device.platform == 'cpu' and not part.quick:
        raise UserError(
            'There is no accelerator here, or JAX has not been installed for it (README.md, '
            '"Several devices and hosts"); --quick shows on a CPU that the benchmark works.'
        )
    part.say(
        device=device.device_kind,
        platform=device.platform,
        versions={'jax': jax.__version__, 'python': sys.version.split()[0]},
        settings=accelerator.settings(),
    )
