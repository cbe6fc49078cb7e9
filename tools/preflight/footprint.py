"""What a run takes of memory, disk and arithmetic, known before its first step.

Memory is part measured and part reckoned. What train.py does before its first step is done here as
well, and measured: imports, data, compiling. On top comes what a step needs as XLA says, a
checkpoint's copies, and batches decoded ahead.
"""

import dataclasses
import math
import resource
import subprocess
import sys
from typing import Any

import jax
import psutil

from distributed import devices
from tools.preflight.prepared import Prepared, Used
from training import flops
from training.runner import RUN_AHEAD

FILES = 4096  # bytes of a disk that an array takes beside its numbers: the file that describes it
UNDER_WAY = RUN_AHEAD + 1  # batches that the loop has sent and not waited for
_WORKER = 'import psutil, data_sources.stream; print(psutil.Process().memory_info().rss)'


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a run takes. Memory is that of one process, or of one device.

    Attributes:
      examples: in the training split.
      steps: updates of the run.
      devices: the devices of all processes, in words.
      device_count: of this process.
      parameters: numbers, trained and frozen.
      state_bytes: parameters, statistics, the optimiser's state, averages.
      model_flops: of one step; see training/flops.py.
      compiled_flops: of one step, as XLA counts what it compiled; None where it does not.
      host: {part: bytes} of the host's memory while a checkpoint is written.
      compiling: bytes of the host's memory at most while the programs were compiled.
      device: {part: bytes} of one device's memory; where that is the host's, `host` has it, too.
      device_limit: bytes that a device has; None where it does not say, as a CPU.
      checkpoint_bytes: of one checkpoint, at most: it is compressed.
      checkpoints: how many there are at most, the one that is being written included.
    """

    examples: int
    steps: int
    devices: str
    device_count: int
    parameters: int
    state_bytes: int
    model_flops: int
    compiled_flops: float | None
    host: dict[str, int]
    compiling: int
    device: dict[str, int]
    device_limit: int | None
    checkpoint_bytes: int
    checkpoints: int

    @property
    def host_peak(self) -> int:
        """Bytes that the process holds at most, with its workers."""
        return max(sum(self.host.values()), self.compiling)

    @property
    def device_peak(self) -> int:
        """Bytes that a device holds at most."""
        return sum(self.device.values())

    @property
    def disk(self) -> int:
        """Bytes that the checkpoints take at most."""
        return self.checkpoints * self.checkpoint_bytes


def of_libraries() -> int:
    """Imports what a run imports, early or late, and returns the bytes that are taken then.

    To be called in a process that has started JAX and done nothing else.
    """
    # What draws the curves is the largest.
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    from training import run  # noqa: F401

    return _resident()


def of(prepared: Prepared, libraries: int) -> Footprint:
    """Returns the footprint of a first run: nothing was compiled before.

    For a run from the cache it is too much, and for a linear probe, which is reckoned as training
    on images. To be called before anything else is done with the run.

    Args:
      prepared: the run.
      libraries: bytes that were taken before its data were opened.
    """
    found, runner, used = prepared.experiment, prepared.runner, prepared.used
    config, state = prepared.config, prepared.state
    data = sum(_bytes(getattr(one.split, 'arrays', {})) for one in used)
    measured = {
        'Python and libraries': libraries,
        'data set': data,
        'programs and their compilation': max(_resident() - libraries - data, 0),
    }
    local, state_bytes = len(runner.local), _bytes(state)
    device = {
        'state': state_bytes,
        'data set': sum(_bytes(one.place.dataset) for one in used),
        'a step or an evaluation': max(map(_needs, prepared.programs)),
        'batches sent ahead': sum(_sent_ahead(prepared, one) for one in used[:2]),
    }
    host = {**measured, 'copies for a checkpoint': 2 * state_bytes, **_decoding(config, used[0])}
    if runner.local[0].platform == 'cpu':  # whose data set is the host's own
        host |= {name: local * size for name, size in device.items() if name != 'data set'}
    return Footprint(
        examples=found.train_examples,
        steps=found.steps,
        devices=devices.describe(runner.devices),
        device_count=local,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=state_bytes,
        model_flops=config.batch_size * flops.per_image(runner.spec, found.image_shape),
        compiled_flops=_flops(prepared.programs[0], local),
        host=host,
        compiling=devices.peak_resident_bytes(resource.getrusage(resource.RUSAGE_SELF)),
        device=device,
        device_limit=devices.memory_limit(runner.local[0]),
        checkpoint_bytes=state_bytes + FILES * len(jax.tree.leaves(state)),
        checkpoints=config.checkpoint.keep + 2,
    )


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _needs(program) -> int:
    """Bytes of a device that a call takes beside its arguments."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    out = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.temp_size_in_bytes + max(out, 0)


def _flops(program, devices: int) -> float | None:
    count = (program.cost_analysis() or {}).get('flops')
    return None if count is None else count * devices


def _sent_ahead(prepared: Prepared, used: Used) -> int:
    """Bytes of one device for batches that wait there or are in use."""
    if used.place.resident:
        return 0
    waiting = prepared.config.data.prefetch if used.place.streamed else 0
    return (waiting + UNDER_WAY) * used.batch_bytes // len(prepared.runner.devices)


def _decoding(config, used: Used) -> dict[str, int]:
    """Bytes of the host for training batches that are being decoded, and for its workers."""
    if not used.place.streamed:
        return {}
    from data_sources import stream

    share = used.batch_size // jax.process_count()
    image = math.prod(used.image_shape)
    workers = config.data.workers
    threads = config.data.threads or (1 if workers else stream.available_cores())
    # Each thread is at a part, as many and one wait, and a batch is put together out of them.
    decoded = ((2 * threads + 1) * min(share, stream.PART) + share) * image
    if not workers:
        return {'batches being decoded': decoded}
    child = subprocess.run([sys.executable, '-c', _WORKER], capture_output=True, check=True)
    return {'worker processes': workers * (int(child.stdout) + decoded)}
