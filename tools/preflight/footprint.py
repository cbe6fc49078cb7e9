"""The memory, disk and arithmetic of a run, known before its first step.

One part of the memory is measured and the other is computed. Everything that train.py does before
its first step is done here as well and measured: imports, data, compilation. Added to it are the
memory that a step needs according to XLA, the copies for a checkpoint, and decoded batches.
"""

import dataclasses
import math
import resource
import subprocess
import sys
from typing import Any

import jax
import psutil
from ml_collections import ConfigDict

from distributed import devices
from tools.preflight.prepared import Prepared, Used
from training import flops
from training.runner import RUN_AHEAD

FILES = 4096  # bytes on the disk for the file that describes an array, besides its numbers
UNDER_WAY = RUN_AHEAD + 1  # batches that the loop has sent and whose results it has not fetched
_WORKER = 'import psutil, data_sources.stream; print(psutil.Process().memory_info().rss)'


@dataclasses.dataclass(frozen=True)
class Footprint:
    """The memory, disk and arithmetic of a run. Memory is per process or per device.

    Attributes:
      examples: size of the training split.
      steps: length of the run in updates.
      devices: description of the devices of all processes.
      device_count: number of devices of this process.
      parameters: number of parameters, trained and frozen.
      state_bytes: bytes of parameters, statistics, optimizer state and averages.
      model_flops: FLOPs of the model in one step; None if they are not known (training/flops.py).
      compiled_flops: FLOPs of one step by XLA's count; None if XLA does not tell.
      host: {part: bytes} of the host's memory while a checkpoint is written.
      compiling: peak bytes of the host's memory while the programs were compiled.
      device: {part: bytes} of one device's memory. On a CPU, `host` includes it.
      device_limit: bytes of a device's memory; None if the device does not tell, such as a CPU.
      checkpoint_bytes: bytes of one checkpoint, at most, because it is compressed.
      checkpoints: number of checkpoints at most, including the one being written.
    """

    examples: int
    steps: int
    devices: str
    device_count: int
    parameters: int
    state_bytes: int
    model_flops: int | None
    compiled_flops: float | None
    host: dict[str, int]
    compiling: int
    device: dict[str, int]
    device_limit: int | None
    checkpoint_bytes: int
    checkpoints: int

    @property
    def host_peak(self) -> int:
        """Peak bytes of the process, including its workers."""
        return max(sum(self.host.values()), self.compiling)

    @property
    def device_peak(self) -> int:
        """Peak bytes of a device."""
        return sum(self.device.values())

    @property
    def disk(self) -> int:
        """Peak bytes of all checkpoints."""
        return self.checkpoints * self.checkpoint_bytes


def of_libraries() -> int:
    """Imports everything that a run imports at any time, and returns the memory of the process.

    It has to be called when the process has started JAX and done nothing else.
    """
    # The library that draws the curves is the largest.
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    from training import run  # noqa: F401

    return _resident()


def of(prepared: Prepared, libraries: int) -> Footprint:
    """Returns the footprint of a first run, which compiles its programs.

    It is too large for a run that finds them in the cache, and for a linear probe, which is counted
    as training on images. It has to be called before anything else is done with the run.

    Args:
      prepared: the run.
      libraries: bytes of the process before its data set was opened.
    """
    experiment, runner, used = prepared.experiment, prepared.runner, prepared.used
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
    # On a CPU the memory of the devices is that of the host, and the data set is already counted.
    if runner.local[0].platform == 'cpu':
        host |= {name: local * size for name, size in device.items() if name != 'data set'}
    per_image = flops.per_image(runner.spec, experiment.image_shape)
    return Footprint(
        examples=experiment.train_examples,
        steps=experiment.steps,
        devices=devices.describe(runner.devices),
        device_count=local,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=state_bytes,
        model_flops=per_image and config.batch_size * per_image,
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


def _needs(program: jax.stages.Compiled) -> int:
    """Returns the bytes of a device that a call needs besides its arguments."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    out = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.temp_size_in_bytes + max(out, 0)


def _flops(program: jax.stages.Compiled, devices: int) -> float | None:
    """Returns the FLOPs of a program by XLA's count, all devices together."""
    count = (program.cost_analysis() or {}).get('flops')
    return None if count is None else count * devices


def _sent_ahead(prepared: Prepared, used: Used) -> int:
    """Returns the bytes of one device for batches that wait there or are in use."""
    if used.place.resident:
        return 0
    waiting = prepared.config.data.prefetch if used.place.streamed else 0
    return (waiting + UNDER_WAY) * used.batch_bytes // len(prepared.runner.devices)


def _decoding(config: ConfigDict, used: Used) -> dict[str, int]:
    """Returns the host's bytes for training batches that are being decoded, and for workers."""
    if not used.place.streamed:
        return {}
    from data_sources import stream

    examples = used.batch_size // jax.process_count()
    image = math.prod(used.image_shape)
    workers = config.data.workers
    threads = config.data.threads or (1 if workers else stream.available_cores())
    # Each thread decodes a part of a batch, `threads + 1` parts wait, and one batch is assembled.
    decoded = ((2 * threads + 1) * min(examples, stream.PART) + examples) * image
    if not workers:
        return {'batches being decoded': decoded}
    child = subprocess.run([sys.executable, '-c', _WORKER], capture_output=True, check=True)
    return {'worker processes': workers * (int(child.stdout) + decoded)}
