"""Starts JAX: virtual CPU devices, several hosts, the compilation cache. Comes first."""

import contextlib
import math
import os
import re
import resource
import sys
import zlib
from pathlib import Path

from errors import UserError

APPLICATION = 'functional-cnn'
MEETING = 10.0  # seconds at least for processes that are all there to connect
HEARTBEAT = 100.0  # seconds without a sign of life after which JAX ends a process; its own choice
ZLIB = b'\x78'  # the first byte of all that zlib packs


def prepare_environment(config) -> None:
    """Sets what the XLA libraries read when they load; JAX must not have started.

    XLA's CPU client needs two threads per virtual device or it may deadlock in a collective.
    """
    virtual = config.devices
    flags = os.environ.get('XLA_FLAGS', '')
    found = re.search(r'--xla_force_host_platform_device_count=(\d+)', flags)
    virtual = max(virtual, int(found.group(1)) if found else 0)
    if virtual > 1:
        os.environ.setdefault('PJRT_NPROC', str(max(2 * virtual, os.cpu_count() or 1)))
    if config.deterministic and '--xla_gpu_deterministic_ops' not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()


def start(config) -> list:
    """Starts JAX as configured and returns the devices of all processes.

    Raises:
      UserError: fewer devices than configured, no such coordinator, or a malformed address.
    """
    return choose(connect(config), config.devices)


def connect(config) -> list:
    """Does what `start` does, but returns whatever devices there are, however many.

    Raises:
      PeerError: another process did not come.
    """
    prepare_environment(config)
    import jax

    jax.config.update('jax_threefry_partitionable', True)
    if config.devices:
        # Only the CPU's client heeds this, and only before it has started.
        _try_update('jax_num_cpu_devices', config.devices)
    _enable_cache(config.compilation_cache)
    _connect(config.distributed, config.distributed_timeout)
    from distributed import watchdog

    # Each process's devices come up only when those of all others do.
    with watchdog.telling(), watchdog.waiting('the start of the devices'):
        return jax.devices()


def choose(devices: list, per_process: int) -> list:
    """Returns the first `per_process` devices of every process, all of them if 0."""
    if not per_process:
        return devices
    chosen = []
    for process in sorted({d.process_index for d in devices}):
        own = [d for d in devices if d.process_index == process]
        if len(own) < per_process:
            raise UserError(
                f'config.devices is {per_process}, but process {process} has {len(own)} '
                f'{own[0].platform} device(s). Set it to at most {len(own)}, or to 0 for all.'
            )
        chosen += own[:per_process]
    return chosen


def _try_update(option: str, value) -> None:
    import jax

    if 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', ''):
        return
    # JAX may have started already (a test, a notebook): `choose` looks at what there is.
    with contextlib.suppress(RuntimeError):
        jax.config.update(option, value)


def _enable_cache(setting: str) -> None:
    """Keeps compiled programs between runs, however small and quick to compile."""
    import jax

    if setting == 'off':
        return
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    folder = home / APPLICATION / 'xla' if setting == 'auto' else Path(setting)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # A cache that cannot be written is no reason not to train.
    with contextlib.suppress(OSError):  # where it may only be read
        _remove_halves(folder)
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _remove_halves(folder: Path) -> None:
    """Removes entries of the cache that a killed run or a full disk left half written.

    JAX writes an entry where it stays, and never again: at half of one it would warn in every run,
    and compile anew. An entry is looked at once, by the first run after the one that wrote it.
    """
    looked = folder / 'looked_at'
    since = looked.stat().st_mtime if looked.exists() else 0.0
    looked.touch()
    for entry in folder.glob('*-cache'):
        if entry.stat().st_mtime < since:
            continue
        content = entry.read_bytes()
        if content[:1] in (b'', ZLIB):  # with the package zstandard JAX packs otherwise
            try:
                zlib.decompress(content)
            except zlib.error:
                entry.unlink(missing_ok=True)


def _connect(setting: str, timeout: float) -> None:
    """Joins the other processes, if there are any."""
    import jax

    if setting == 'off' or (setting == 'auto' and not several_processes(os.environ)):
        return
    place = parse_address(setting) if setting != 'auto' else {}
    from distributed import rollcall, watchdog

    if not jax.distributed.is_initialized():
        try:
            place = place or _detected(timeout)
            left = rollcall.hold(*place.values(), timeout)
            jax.distributed.initialize(
                **place,
                initialization_timeout=math.ceil(max(left, MEETING)),
                # The watchdog is sooner, and bears that all are suspended together for a while.
                heartbeat_timeout_seconds=math.ceil(max(timeout, HEARTBEAT)),
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f'config.distributed={setting}: the processes could not be connected: {error}'
            ) from error
    watchdog.start(timeout)


def _detected(timeout: float) -> dict:
    """Where this process stands, by the environment: JAX's own variables, or a launcher's."""
    from jax._src import clusters  # what jax.distributed.initialize finds by itself

    given = [os.environ.get(f'JAX_{name}') for name in ('NUM_PROCESSES', 'PROCESS_ID')]
    known = [int(text) if text else None for text in given]
    address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    if None in (address, *known):
        address, *known, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            address, *known, None, None, math.ceil(timeout)
        )
    found = {
        'coordinator_address': address,
        'num_processes': known[0],
        'process_id': known[1],
    }
    for name, value in found.items():
        if value is None:
            raise ValueError(f'set JAX_{name.upper()}, which no launcher says.')
    return found


def several_processes(environment) -> bool:
    """Whether a launcher says that this process is one of several."""
    counts = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'JAX_NUM_PROCESSES')
    if any(environment.get(name, '1').isdigit() and int(environment.get(name, '1')) > 1
           for name in counts):  # fmt: skip
        return True
    return len(environment.get('TPU_WORKER_HOSTNAMES', '').split(',')) > 1


def parse_address(setting: str) -> dict:
    """Parses 'host:port,processes,index'.

    Raises:
      UserError: it is not of that form.
    """
    match = re.fullmatch(r'([^,\s]+:\d+),(\d+),(\d+)', setting)
    if not match or int(match[3]) >= int(match[2]):
        raise UserError(
            f'config.distributed must be auto, off, or host:port,processes,index with index below '
            f'processes, such as 10.0.0.1:1234,2,0; not {setting!r}.'
        )
    return {
        'coordinator_address': match[1],
        'num_processes': int(match[2]),
        'process_id': int(match[3]),
    }


def memory_limit(device) -> int | None:
    """Returns the bytes that a device has, None where it does not say (a CPU: the host's own)."""
    return (device.memory_stats() or {}).get('bytes_limit')


def peak_memory(devices: list) -> tuple[int, str]:
    """Returns (bytes, of what): the most that was in use at a time since the process started.

    Of 'device', the fullest of these; or of 'host', this process's resident memory, where the
    devices are the CPU's or do not say.
    """
    stats = [device.memory_stats() or {} for device in devices]
    found = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
    if found:
        return max(found), 'device'
    return most_resident(resource.getrusage(resource.RUSAGE_SELF)), 'host'


def most_resident(usage: resource.struct_rusage) -> int:
    """Returns the bytes of resident memory at most; the system counts in a unit of its own."""
    return usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def describe(devices: list) -> str:
    """Returns what the devices are, such as '2 CPU cores (AMD EPYC)' or 'NVIDIA H100'."""
    device = devices[0]
    if device.platform != 'cpu':
        return device.device_kind
    return describe_cpu()


def describe_cpu() -> str:
    """Returns the cores that this process may use, and their model; JAX need not have started."""
    model = ''
    try:
        text = Path('/proc/cpuinfo').read_text()
        found = re.search(r'model name\s*:\s*(.+)', text)
        model = f' ({found.group(1).strip()})' if found else ''
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return f'{cores} CPU cores{model}'
