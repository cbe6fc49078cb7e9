"""What the parts of `python -m benchmarks.gpu` share: an experiment, programs, rows, windows.

Programs are compiled and warmed up, then timed in windows. JAX runs ahead of the device, so a
window ends by waiting for its last result, and any transfer between host and device is an error.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

import input_pipeline
from benchmarks.synthetic import SyntheticExperiment, run_ahead
from distributed import devices
from errors import UserError
from training import flops
from training.step import train_step

SETTINGS = ('XLA_', 'LIBTPU_INIT_ARGS', 'TF_GPU_', 'NVIDIA_TF32')  # how XLA compiles and allocates


class Budget:
    """Time that may be spent from now on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - self._clock()


@dataclasses.dataclass
class GpuPart:
    """What a part gets.

    `say` takes its results: rows=[...], all so far; note=..., for the reader of the table; and
    progress=..., for the user who waits.
    """

    name: str
    quick: bool  # run the smallest sizes that show that the part works
    budget: Budget
    say: Callable[..., None]

    @property
    def window(self) -> float:
        """Seconds of one window."""
        return 0.0 if self.quick else 1.5

    def grow(self, sizes: Iterable, attempt: Callable[[Any], dict], windows: int = 3) -> dict:
        """Tries sizes in the given order; returns the rows that attempt(size) gave, by size.

        If a size does not fit into memory, none that is as large is tried. The list ends at a size
        that would not end in time: attempt(size) is expected to take as long as the slowest so far,
        and each row so many windows after that. What is left out is said.
        """
        rows, slowest, too_large = {}, 0.0, None
        for size in sizes:
            if too_large is not None and size >= too_large:
                continue
            later = windows * self.window * (len(rows) + 1)
            if rows and slowest + later > self.budget.left:
                self.say(note=f'{size} and what comes after it would not end in time: left out.')
                break
            start = time.monotonic()
            try:
                rows[size] = attempt(size)
            except jax.errors.JaxRuntimeError as error:
                if 'RESOURCE_EXHAUSTED' in str(error) or 'out of memory' in str(error).lower():
                    too_large = size
                    self.say(note=f'{size} does not fit into memory.')
                else:
                    self.say(note=f'{size} failed: {str(error).splitlines()[0]:.300}')
            slowest = max(slowest, time.monotonic() - start)
        return rows


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
        return {'index': index, 'epoch': np.zeros_like(index), 'mask': np.ones(shape, np.float32)}


def _scanned(step: Callable, state, hyper, batches, dataset):
    """Does several updates in one call: leaves of batches and metrics are [updates, ...]."""
    return jax.lax.scan(lambda state, batch: step(state, hyper, batch, dataset), state, batches)


@dataclasses.dataclass
class CompiledProgram:
    """A compiled program, and what XLA says of it."""

    call: Callable
    seconds: float  # that compiling took
    cached: bool  # whether it came from the compilation cache
    cost: dict[str, float] | None = None  # XLA's cost analysis
    text: str = ''  # HLO
    memory: int | None = None  # bytes of arguments, results and scratch

    @property
    def description(self) -> str:
        """How long compiling took, in words."""
        return f'{"from the cache" if self.cached else "compiled"} in {self.seconds:.0f} s'


def compile_ahead(function, *arguments) -> CompiledProgram:
    """Compiles a jitted or pmapped function for arguments of these shapes."""
    events = set()
    # There is no public way to remove a listener, which then adds to a set that nobody reads.
    jax.monitoring.register_event_listener(lambda event, **_: events.add(event))
    start = time.monotonic()
    call = function.lower(*arguments).compile()
    seconds = time.monotonic() - start
    program = CompiledProgram(call, seconds, '/jax/compilation_cache/cache_hits' in events)
    # What XLA reports depends on the backend, and the benchmark runs without it.
    with contextlib.suppress(Exception):
        program.cost = call.cost_analysis()
    with contextlib.suppress(Exception):
        program.text = call.as_text() or ''
    with contextlib.suppress(Exception):
        plan = call.memory_analysis()
        total = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        program.memory = total - plan.alias_size_in_bytes
    return program


def drive(call: Callable, state, batches: Sequence, calls: int, hyper, dataset) -> tuple[Any, Any]:
    """Returns (state, metrics) of the last of so many calls once it is over; batches take turns."""
    turns = itertools.islice(itertools.cycle(batches), calls)
    with jax.transfer_guard('disallow'):
        (last,) = collections.deque(run_ahead(call, state, hyper, turns, dataset), maxlen=1)
        jax.block_until_ready(last)
    return last


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
        self.compiled = compile_ahead(function, state[0], hyper, batches[0], dataset)
        self.calls, self.metrics = 1, None  # in a window; of the last call

    def seconds(self, calls: int) -> float:
        """Returns the seconds that so many calls take."""
        start = time.perf_counter()
        self.state[0], self.metrics = drive(
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

    def cost(self, images: int) -> flops.ProgramCost:
        """Returns the cost of a call that takes so many images."""
        per_image = flops.per_image(self._experiment.spec, self._experiment.experiment.image_shape)
        return flops.program_cost(self.compiled.cost, self.compiled.text, per_image * images)

    def row(self, name: str, images: int, cost: flops.ProgramCost, **more) -> dict[str, Any]:
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


def rates(seconds: Sequence[float], amount: float) -> dict[str, float]:
    """Returns an amount per second: 'rate', which is the median, 'slowest' and 'fastest'."""
    times = {'rate': statistics.median(seconds), 'slowest': max(seconds), 'fastest': min(seconds)}
    return {name: amount / each for name, each in times.items()}


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
            rows[key] |= rates(seconds[key], amount(key)) | {'seconds': seconds[key]}
        done += 1
        part.say(rows=[rows[key] for key in windows])
        longest = max(sum(map(max, seconds.values())), 1e-9)
        rounds = min(most, done + part.budget.left // longest)
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
    settings = {k: v for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)}
    about = {'device': device.device_kind, 'platform': device.platform}
    part.say(about={**about, 'versions': versions, 'settings': settings})
