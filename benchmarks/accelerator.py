"""Timing on an accelerator: compiled once, warmed up, in windows that take turns, nothing fetched.

JAX runs ahead of the device, so a window ends by waiting for its last result. Within a window every
transfer between host and device is an error (`jax.transfer_guard`).
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

RUN_AHEAD = 2  # calls under way, as in training/loop.py
MEMORY_SHARE = '0.92'
# What makes programs compile sooner and run slower: good enough to see that all works.
_QUICK_FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'


def environment(given: Mapping[str, str], quick: bool = False) -> dict[str, str]:
    """Returns what to set before JAX starts, where the user has not: his own settings stand.

    JAX takes 75 % of a GPU's memory by default; more of it lets larger batches in. The rest is
    for cuDNN, cuBLAS and the driver. Nothing else is set, because nothing else that is documented
    helps one device: XLA chooses convolution layouts (NHWC for bfloat16) and tunes kernels
    (xla_gpu_autotune_level) by default, its latency-hiding scheduler hides transfers between
    devices, and xla_gpu_triton_gemm_any concerns matrix products, not convolutions.
    """
    wanted = {}
    if not {'XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'} & set(given):
        wanted['XLA_CLIENT_MEM_FRACTION'] = MEMORY_SHARE
    if quick:
        wanted['XLA_FLAGS'] = f'{given.get("XLA_FLAGS", "")} {_QUICK_FLAGS}'.strip()
    return wanted


def settings() -> dict[str, str]:
    """Returns the variables of this process that decide how XLA compiles and allocates."""
    return {name: value for name, value in sorted(os.environ.items())
            if name.startswith(('XLA_', 'LIBTPU_INIT_ARGS', 'TF_GPU_', 'NVIDIA_TF32'))}  # fmt: skip


class Budget:
    """Time that may be spent, from now on.

    Args:
      seconds: how long.
      clock: seconds that have passed since any one moment.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - self._clock()

    def times(self, seconds: float, most: int) -> int:
        """Returns how often so many seconds fit into what is left, `most` times at the most."""
        return max(0, min(most, math.floor(self.left / max(seconds, 1e-9))))


def out_of_memory(error: Exception) -> bool:
    """Whether XLA says that the device's memory does not suffice."""
    return 'RESOURCE_EXHAUSTED' in str(error) or 'out of memory' in str(error).lower()


def grow(
    sizes: Iterable[Any],
    attempt: Callable[[Any], Any],
    budget: Budget,
    later: Callable[[int], float],
    say: Callable[[str], None],
) -> dict[Any, Any]:
    """Tries sizes in the order given; returns what attempt(size) gave, by size.

    A size that does not fit into memory rules out all that are as large. One that would not end in
    time ends the list: it is expected to take as long as the slowest so far.

    Args:
      sizes: of batches, or numbers of lanes.
      attempt: compiles and warms up.
      budget: of attempts and all that comes after them.
      later: number of sizes -> seconds that they will take after the attempts, at least.
      say: called with a sentence for each size that is left out.
    """
    import jax

    found, slowest, smallest = {}, 0.0, None
    for size in sizes:
        if smallest is not None and size >= smallest:
            continue
        if found and slowest + later(len(found) + 1) > budget.left:
            say(f'{size} and what comes after it would not end in time: left out.')
            break
        start = time.monotonic()
        try:
            found[size] = attempt(size)
        except jax.errors.JaxRuntimeError as error:
            if out_of_memory(error):
                smallest = size
                say(f'{size} does not fit into memory.')
            else:
                say(f'{size} failed: {str(error).splitlines()[0]:.300}')
        slowest = max(slowest, time.monotonic() - start)
    return found


@dataclasses.dataclass
class Compiled:
    """A compiled program.

    Attributes:
      call: the program; donates as it was written to.
      seconds: that compiling took.
      cached: whether it came from the compilation cache.
      cost: XLA's cost analysis, None where it has none.
      text: HLO, '' where it is not to be had.
      memory: bytes of arguments, results and scratch, None where XLA does not say.
    """

    call: Callable
    seconds: float
    cached: bool
    cost: dict[str, float] | None
    text: str
    memory: int | None


def compile_ahead(function, *arguments) -> Compiled:
    """Compiles a jitted or pmapped function for arguments of these shapes."""
    with _cache_hits() as hits:
        start = time.monotonic()
        call = function.lower(*arguments).compile()
        seconds = time.monotonic() - start
    cost, text, memory = None, '', None
    # What XLA tells of a program differs by backend and version; the benchmark goes on without.
    with contextlib.suppress(Exception):
        cost = call.cost_analysis()
        cost = cost[0] if isinstance(cost, list | tuple) else cost
    with contextlib.suppress(Exception):
        text = call.as_text() or ''
    with contextlib.suppress(Exception):
        said = call.memory_analysis()
        memory = (
            said.argument_size_in_bytes + said.output_size_in_bytes
            + said.temp_size_in_bytes - said.alias_size_in_bytes
        )  # fmt: skip
    return Compiled(call, seconds, bool(hits), cost, text, memory)


@contextlib.contextmanager
def _cache_hits():
    """Collects the compilation cache's hits."""
    import jax

    hits = []

    def listen(event, **_):
        if event == '/jax/compilation_cache/cache_hits' and not closed:
            hits.append(event)

    closed = []
    jax.monitoring.register_event_listener(listen)
    try:
        yield hits
    finally:
        closed.append(True)  # JAX has no public way to take a listener away


def drive(call: Callable, state, batches: Sequence, calls: int, *rest) -> tuple[Any, Any]:
    """Calls call(state, hyper, batch, dataset) a number of times; returns (state, last metrics).

    Waits for the end, and at no time has more than RUN_AHEAD calls under way.

    Args:
      call: the program.
      state: donated to it.
      batches: on the device; taken in turn, from the first again after the last.
      calls: how many.
      rest: hyper, dataset.
    """
    import jax

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


def in_turn(windows: Mapping[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Measures all windows once in every round, A B A B ...; returns the seconds of each."""
    seconds = {name: [] for name in windows}
    for _ in range(rounds):
        for name, window in windows.items():
            seconds[name].append(window())
    return seconds


def timed(function: Callable[[], Any]) -> float:
    """Returns the seconds that function() takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rates(seconds: Sequence[float], amount: float) -> dict[str, float]:
    """Returns 'rate', 'slowest' and 'fastest': an amount per second, the median and the range."""
    return {
        'rate': amount / statistics.median(seconds),
        'slowest': amount / max(seconds),
        'fastest': amount / min(seconds),
    }


def peak_memory(device) -> int | None:
    """Returns the most bytes of the device's memory that this process has held at once."""
    return (device.memory_stats() or {}).get('peak_bytes_in_use')
