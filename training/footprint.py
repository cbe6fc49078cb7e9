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
import numpy as np
import psutil

import input_pipeline
from data_sources import SPLITS
from training import devices, experiment, flops, transfer
from training.loop import RUN_AHEAD
from training.placement import Placement
from training.runner import Runner

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


@dataclasses.dataclass(frozen=True)
class _Used:
    """A split as a run uses it."""

    split: Any
    place: Placement
    batch_size: int  # over all devices
    image_shape: tuple[int, int, int]

    @property
    def batch_bytes(self) -> int:
        """Of the images of a batch."""
        return self.batch_size * math.prod(self.image_shape)


def of(config) -> Footprint:
    """Returns the footprint of a first run of a checked configuration: nothing is compiled yet.

    For a run from the cache it is too much, and for a linear probe, which is reckoned as training
    on images. To be called in a process that has done nothing else.

    Raises:
      UserError: what train.py would say before its first step.
    """
    config = config.copy_and_resolve_references()
    config.compilation_cache = 'off'
    experiment.check(config)
    all_devices = devices.start(config)
    experiment.check_devices(config, len(all_devices))
    _import_what_comes_later()
    libraries = _resident()
    found, train_split = experiment.open_train(config)
    others = [input_pipeline.open_split(config, name) for name in SPLITS[1:]]
    spec = found.spec()
    if config.init_from:
        source = transfer.read(config.init_from)
        transfer.check_fits(source, found.abstract_state(spec), config.model.name)
    runner = Runner(spec, config.runner, all_devices)
    state = found.initial_state(spec)
    used = [_used(found, runner, split) for split in (train_split, *others)]
    programs = _compiled(found, runner, used, state)
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
        'a step or an evaluation': max(map(_needs, programs)),
        'batches sent ahead': sum(_sent_ahead(config, one, len(all_devices)) for one in used[:2]),
    }
    host = {**measured, 'copies for a checkpoint': 2 * state_bytes, **_decoding(config, used[0])}
    if all_devices[0].platform == 'cpu':  # whose data set is the host's own
        host |= {name: local * size for name, size in device.items() if name != 'data set'}
    return Footprint(
        examples=found.train_examples,
        steps=found.steps,
        devices=devices.describe(all_devices),
        device_count=local,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        state_bytes=state_bytes,
        model_flops=config.batch_size * flops.per_image(spec, found.image_shape),
        compiled_flops=_flops(programs[0], local),
        host=host,
        compiling=devices.most_resident(resource.getrusage(resource.RUSAGE_SELF)),
        device=device,
        device_limit=(runner.local[0].memory_stats() or {}).get('bytes_limit'),
        checkpoint_bytes=state_bytes + FILES * len(jax.tree.leaves(state)),
        checkpoints=config.checkpoint.keep + 2,
    )


def _import_what_comes_later() -> None:
    """Imports what a run imports as it goes: what draws the curves is the largest."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401

    from training import run  # noqa: F401


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _used(found: experiment.Experiment, runner: Runner, split) -> _Used:
    config, shape = found.config, found.image_shape
    batch_size = config.batch_size
    if split.split != 'train':
        side = config.data.eval_image_size
        shape = (side, side, 3) if side else shape
        devices = len(runner.devices)
        batch_size = input_pipeline.EvalPlan(split.size, config.eval_batch_size, devices).step
    return _Used(split, Placement(runner, split, config), batch_size, shape)


def _compiled(found: experiment.Experiment, runner: Runner, used: list[_Used], state) -> list:
    """The programs of a step, and of the evaluation of validation and test."""
    hyper = experiment.hyperparameters(found.config)
    train, *others = ((runner.split(_batch(one)), one.place.dataset) for one in used)
    programs = [runner.train.lower(state, hyper, *train)]
    programs += [runner.evaluate.lower(state.variables(), *other) for other in others]
    return [program.compile() for program in programs]


def _batch(used: _Used) -> dict[str, np.ndarray]:
    """A batch of zeros, this process's part, as its placement sends it."""
    size = used.batch_size // jax.process_count()
    batch = {'index': np.zeros(size, np.int32), 'mask': np.zeros(size, np.float32)}
    if used.split.split == 'train':
        batch['epoch'] = np.zeros(size, np.int32)
    if not used.place.resident:
        batch['image'] = np.zeros((size, *used.image_shape), np.uint8)
        batch['label'] = np.zeros(size, np.int32)
    return batch


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


def _sent_ahead(config, used: _Used, devices: int) -> int:
    """Bytes of one device for batches that wait there or are in use."""
    if used.place.resident:
        return 0
    waiting = config.data.prefetch if used.place.streamed else 0
    return (waiting + UNDER_WAY) * used.batch_bytes // devices


def _decoding(config, used: _Used) -> dict[str, int]:
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
