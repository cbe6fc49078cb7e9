"""Timing on an accelerator: programs are compiled and warmed up, then timed in windows.

JAX runs ahead of the device, so a window ends by waiting for its last result. Within a window every
transfer between host and device is an error (`jax.transfer_guard`).
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MEMORY_SHARE = '0.92'
SETTINGS = ('XLA_', 'LIBTPU_INIT_ARGS', 'TF_GPU_', 'NVIDIA_TF32')  # how XLA compiles and allocates
# These make programs compile sooner and run slower: good enough for --quick.
_QUICK_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'


def environment(given: Mapping[str, str], quick: bool = False) -> dict[str, str]:
    """Returns the variables to set before JAX starts; the user's own settings stay.

    JAX takes 75 % of a GPU's memory by default; more of it admits larger batches. The rest is
    for cuDNN, cuBLAS and the driver. No other documented setting helps one device: XLA chooses
    convolution layouts (NHWC for bfloat16) and tunes kernels by default.
    """
    wanted = {}
    if not {'XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'} & set(given):
        wanted['XLA_CLIENT_MEM_FRACTION'] = MEMORY_SHARE
    if quick:
        wanted['XLA_FLAGS'] = f'{given.get("XLA_FLAGS", "")} {_QUICK_FLAGS}'.strip()
    return wanted


class Budget:
    """Time that may be spent from now on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - self._clock()

    def times(self, seconds: float, most: int) -> int:
        """Returns how often so many seconds fit into the time left, at most `most` times."""
        return max(0, min(most, math.floor(self.left / max(seconds, 1e-9))))


def grow(
    sizes: Iterable[Any],
    attempt: Callable[[Any], Any],
    budget: Budget,
    later: Callable[[int], float],
    say: Callable[[str], None],
) -> dict[Any, Any]:
    """Tries sizes in the given order; returns the results of attempt(size) by size.

    If a size does not fit into memory, none that is as large is tried. The list ends at a size
    that would not end in time: attempt(size) is expected to take as long as the slowest so far, and
    later(n) seconds are needed for n sizes after that. `say` is told what is left out.
    """
    import jax

    results, slowest, too_large = {}, 0.0, None
    for size in sizes:
        if too_large is not None and size >= too_large:
            continue
        if results and slowest + later(len(results) + 1) > budget.left:
            say(f'{size} and what comes after it would not end in time: left out.')
            break
        start = time.monotonic()
        try:
            results[size] = attempt(size)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' in str(error) or 'out of memory' in str(error).lower():
                too_large = size
                say(f'{size} does not fit into memory.')
            else:
                say(f'{size} failed: {str(error).splitlines()[0]:.300}')
        slowest = max(slowest, time.monotonic() - start)
    return results


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
    import jax

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


def drive(call: Callable, state, batches: Sequence, calls: int, *rest) -> tuple[Any, Any]:
    """Calls call(state, hyper, batch, dataset) a number of times; returns (state, last metrics).

    Waits for the end, and never has more than RUN_AHEAD calls under way, as the training loop. The
    batches, on the device, are used in turn; `rest` is (hyper, dataset).
    """
    import jax

    from training.runner import RUN_AHEAD

    hyper, dataset = rest
    waiting, metrics = collections.deque(), None
    with jax.transfer_guard('disallow'):
        for batch in itertools.islice(itertools.cycle(batches), calls):
            state, metrics = call(state, hyper, batch, dataset)
            waiting.append(metrics)
            if len(waiting) > RUN_AHEAD:
                jax.block_until_ready(waiting.popleft())
        jax.block_until_ready((state, metrics))
    return state, metrics


def rates(seconds: Sequence[float], amount: float) -> dict[str, float]:
    """Returns an amount per second: 'rate', which is the median, 'slowest' and 'fastest'."""
    times = {'rate': statistics.median(seconds), 'slowest': max(seconds), 'fastest': min(seconds)}
    return {name: amount / each for name, each in times.items()}
