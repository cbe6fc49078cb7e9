"""What the parts of `python -m benchmarks.gpu` share: an experiment, programs, rows, windows."""

import dataclasses
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import input_pipeline
from benchmarks import accelerator, roofline
from benchmarks.synthetic import SyntheticExperiment
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
        seconds = windows * self.window
        return accelerator.grow(
            sizes, attempt, self.budget, lambda n: n * seconds, lambda text: self.say(note=text)
        )


class GpuExperiment(SyntheticExperiment):
    """A configuration and a split, ready on one device."""

    def __init__(self, config, split):
        config.devices, config.distributed = 1, 'off'
        super().__init__(config, split)
        self.device = self.runner.devices[0]

    def batches(self, size: int, count: int) -> list[dict[str, np.ndarray]]:
        """Returns train.py's first batches of a size on the host."""
        config = self.experiment.config.copy_and_resolve_references()
        config.batch_size = size
        return list(itertools.islice(input_pipeline.train_batches(config, self.split.size), count))

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
        index = np.random.default_rng(seed).integers(self.split.size, size=shape, dtype=np.int32)
        epoch, mask = np.zeros_like(index), np.ones(shape, np.float32)
        return {'index': index, 'epoch': epoch, 'mask': mask}


def _scanned(step: Callable, state, hyper, batches, dataset):
    """Does several updates in one call: leaves of batches and metrics are [updates, ...]."""
    return jax.lax.scan(lambda state, batch: step(state, hyper, batch, dataset), state, batches)


class TimedProgram:
    """A function compiled for the first of its batches, and measured in windows of several calls.

    `state` is [state], which each call replaces; programs that take turns may share it.
    """

    def __init__(
        self, experiment: GpuExperiment, function, state: list, batches: Sequence, hyper=None
    ):
        self._experiment, self.state, self.batches = experiment, state, batches
        self._constant = hyper or experiment.hyper, experiment.dataset
        hyper, dataset = self._constant
        self.compiled = accelerator.compile_ahead(function, state[0], hyper, batches[0], dataset)
        self.calls, self.metrics = 1, None  # in a window; of the last call

    def seconds(self, calls: int) -> float:
        """Returns the seconds that so many calls take."""
        start = time.perf_counter()
        self.state[0], self.metrics = accelerator.drive(
            self.compiled.call, self.state[0], self.batches, calls, *self._constant
        )
        return time.perf_counter() - start

    def window(self) -> float:
        """Returns the seconds of a window."""
        return self.seconds(self.calls)

    def warm_up(self, part: GpuPart, text: str, amount: int, calls: int) -> dict[str, Any]:
        """Runs so many calls twice, and chooses the calls of a window.

        Tells the user the rate, in place of {} in the text, by the amount of a call. Returns
        'memory', the bytes that the program takes, and whether they were 'measured': they are the
        device's peak where the program has raised it, or else XLA's plan.
        """
        device = [self._experiment.device]
        before, _ = devices.peak_memory(device)
        self.seconds(calls)
        after, source = devices.peak_memory(device)
        measured = source == 'device' and after > before
        each = self.seconds(calls) / calls
        self.calls = max(1, round(part.window / each))
        rate = text.format(f'{amount / each:,.0f}')
        part.say(progress=f'{rate}, {self.compiled.description}.')
        return {'memory': after if measured else self.compiled.memory, 'measured': measured}

    def cost(self, images: int) -> roofline.ProgramCost:
        """Returns the cost of a call that takes so many images."""
        per_image = flops.per_image(self._experiment.spec, self._experiment.experiment.image_shape)
        return roofline.count(self.compiled.cost, self.compiled.text, per_image * images)

    def row(self, name: str, images: int, cost: roofline.ProgramCost, **more) -> dict[str, Any]:
        """Returns what is known of a row before it is measured; images and cost are of a call."""
        device = self._experiment.device
        return {
            'name': name,
            'images': images,
            'counts': dataclasses.asdict(cost),
            'peak': flops.peak([device], self._experiment.experiment.config.dtype),
            'bandwidth': flops.bandwidth(device.device_kind),
            'compile_seconds': self.compiled.seconds,
            'cached': self.compiled.cached,
            **more,
        }


def measure(part: GpuPart, rows: dict, windows: dict, most: int, amount: Callable) -> None:
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
        rounds = done + part.budget.times(sum(map(max, seconds.values())), most - done)
    if done < most:
        part.say(note=f'{done} in place of {most} windows for each row, for lack of time.')


def introduce(part: GpuPart) -> None:
    """Reports where this runs; refuses to run without an accelerator unless it is to be quick."""
    device = jax.devices()[0]
    if device.platform == 'cpu' and not part.quick:
        raise UserError(
            'There is no accelerator here, or JAX has not been installed for it (README.md, '
            '"Several devices and hosts"); --quick shows on a CPU that the benchmark works.'
        )
    versions = {'jax': jax.__version__, 'python': sys.version.split()[0]}
    about = {'device': device.device_kind, 'platform': device.platform, 'versions': versions}
    settings = {k: v for k, v in sorted(os.environ.items()) if k.startswith(accelerator.SETTINGS)}
    part.say(**about, settings=settings)
