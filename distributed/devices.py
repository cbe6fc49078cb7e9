"""Starts JAX: virtual CPU devices, several processes and the compilation cache.

Its functions run before anything else uses JAX, which reads most of these settings only once.
"""

import contextlib
import math
import os
import re
import resource
import stat
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import UserError, shown

if TYPE_CHECKING:  # JAX is imported once its environment has been set
    import jax
    from ml_collections import ConfigDict

APPLICATION = 'functional-cnn'
CONNECT_SECONDS = 10.0  # the least time to connect in, once all processes are known to be there
HEARTBEAT_SECONDS = 100.0  # JAX's default: without a heartbeat for so long, it ends a process
LAST_PORT, MOST_PROCESSES = 65_535, 100_000
ZLIB = b'\x78'  # the first byte of everything that zlib compresses
# The names that JAX gives to the programs in its cache: that of the function, and a SHA-256.
CACHE_ENTRY = re.compile(r'(jit|pmap)_[\w.)( -]*-[0-9a-f]{64}-cache', re.ASCII)


def prepare_environment(config: 'ConfigDict') -> None:
    """Sets the environment variables that XLA reads when it loads; JAX must not have started.

    XLA's CPU client needs two threads per virtual device; with fewer it may deadlock in a
    collective.
    """
    virtual = config.devices
    flags = os.environ.get('XLA_FLAGS', '')
    match = re.search(r'--xla_force_host_platform_device_count=(\d+)', flags)
    virtual = max(virtual, int(match[1]) if match else 0)
    if virtual > 1:
        os.environ.setdefault('PJRT_NPROC', str(max(2 * virtual, os.cpu_count() or 1)))
    if config.deterministic and '--xla_gpu_deterministic_ops' not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()


def start(config: 'ConfigDict') -> list['jax.Device']:
    """Starts JAX as configured and returns the devices of all processes that the run uses.

    Raises:
      UserError: there are fewer devices than configured, or the address is malformed.
      PeerError: another process did not start, or the coordinator cannot be reached.
    """
    return choose(connect(config), config.devices)


def connect(config: 'ConfigDict') -> list['jax.Device']:
    """Starts JAX like `start`, but returns all devices there are, however many.

    Raises:
      UserError: the address is malformed, or the processes cannot be connected.
      PeerError: another process did not start, or the coordinator cannot be reached.
    """
    # The order matters: XLA's variables are read when JAX loads, the number of CPU devices when its
    # backend starts, and the processes must be connected before jax.devices() starts the backend.
    prepare_environment(config)
    import jax

    jax.config.update('jax_threefry_partitionable', True)
    if config.devices:
        # Only the CPU client reads this, and only before it has started.
        _try_update('jax_num_cpu_devices', config.devices)
    _enable_cache(config.compilation_cache)
    _connect(config.distributed, config.distributed_timeout)
    from distributed import watchdog

    # A process gets its devices only once all other processes ask for theirs.
    with watchdog.reporting_errors(), watchdog.waiting('the start of the devices'):
        return jax.devices()


def choose(devices: list['jax.Device'], per_process: int) -> list['jax.Device']:
    """Returns the first `per_process` devices of every process, or all devices if it is 0.

    Raises:
      UserError: a process has fewer devices.
    """
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


def _try_update(option: str, value: Any) -> None:
    import jax

    if 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', ''):
        return
    # In a test or a notebook, JAX may have started already; `choose` then checks what there is.
    with contextlib.suppress(RuntimeError):
        jax.config.update(option, value)


def _enable_cache(setting: str) -> None:
    """Keeps all compiled programs between runs, even small ones that compile quickly."""
    import jax

    if setting == 'off':
        return
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    folder = home / APPLICATION / 'xla' if setting == 'auto' else Path(setting)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # training works without a cache
    with contextlib.suppress(OSError):  # the cache may be read-only
        _remove_truncated_entries(folder)
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _remove_truncated_entries(folder: Path) -> None:
    """Removes cache entries that a killed run or a full disk left half written.

    JAX does not write an entry atomically and never overwrites one, so it would warn about a
    truncated entry and recompile in every run. Each entry is checked once, by the first run after
    the one that wrote it. Whatever else is in the folder is somebody's own and stays.
    """
    marker = folder / 'looked_at'
    last_check = marker.stat().st_mtime if marker.exists() else 0.0
    marker.touch()
    for entry in folder.iterdir():
        about = entry.lstat()
        # JAX writes neither links nor pipes. Links lead to other folders, and pipes have no end.
        if not CACHE_ENTRY.fullmatch(entry.name) or not stat.S_ISREG(about.st_mode):
            continue
        if about.st_mtime < last_check:
            continue
        content = entry.read_bytes()
        if content[:1] in (b'', ZLIB):  # where zstandard is installed, JAX compresses with that
            try:
                zlib.decompress(content)
            except zlib.error:
                entry.unlink(missing_ok=True)


def _connect(setting: str, timeout: float) -> None:
    """Connects this process with the others, if there are any."""
    import jax

    if setting == 'off' or (setting == 'auto' and not several_processes(os.environ)):
        return
    address = parse_address(setting) if setting != 'auto' else {}
    from distributed import rollcall, watchdog

    if not jax.distributed.is_initialized():
        try:
            address = address or _detect_address(timeout)
            # First the roll call, which names the processes that are missing; then JAX's own
            # connection, which ends a process that waits in vain without naming any.
            seconds_left = rollcall.hold(*address.values(), timeout)
            jax.distributed.initialize(
                **address,
                initialization_timeout=math.ceil(max(seconds_left, CONNECT_SECONDS)),
                # Longer than the watchdog's limits: the watchdog names the process, and tolerates
                # a suspension of all processes together.
                heartbeat_timeout_seconds=math.ceil(max(timeout, HEARTBEAT_SECONDS)),
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f'config.distributed={setting}: the processes could not be connected: {error}'
            ) from error
    watchdog.start(timeout)


def _detect_address(timeout: float) -> dict[str, Any]:
    """Returns the arguments of jax.distributed.initialize from the environment.

    They come from JAX's own variables or from those of a launcher.
    """
    from jax._src import clusters  # jax.distributed.initialize detects launchers by it

    texts = [os.environ.get(f'JAX_{name}') for name in ('NUM_PROCESSES', 'PROCESS_ID')]
    numbers = [int(text) if text else None for text in texts]
    coordinator = os.environ.get('JAX_COORDINATOR_ADDRESS')
    if None in (coordinator, *numbers):
        coordinator, *numbers, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            coordinator, *numbers, None, None, math.ceil(timeout)
        )
    address = {
        'coordinator_address': coordinator,
        'num_processes': numbers[0],
        'process_id': numbers[1],
    }
    for name, value in address.items():
        if value is None:
            raise ValueError(f'no launcher sets it: set JAX_{name.upper()}.')
    return address


def several_processes(environment: Mapping[str, str]) -> bool:
    """Whether a launcher's variables say that this process is one of several."""
    counts = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'JAX_NUM_PROCESSES')
    texts = [environment.get(name, '') for name in counts]
    if any(re.fullmatch('[0-9]{1,9}', text) and int(text) > 1 for text in texts):
        return True
    return len(environment.get('TPU_WORKER_HOSTNAMES', '').split(',')) > 1


def parse_address(setting: str) -> dict[str, Any]:
    """Parses 'host:port,processes,index' into the arguments of jax.distributed.initialize.

    Raises:
      UserError: the text does not have that form.
    """
    match = re.fullmatch(r'([^,\s]+):([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})', setting)
    port, count, index = map(int, match.groups()[1:]) if match else (0, 0, 0)
    if index >= count:
        raise UserError(
            f'config.distributed={shown(setting)} is invalid: it must be auto, off, or '
            'host:port,processes,index with index below processes, such as 10.0.0.1:1234,2,0.'
        )
    if not 0 < port <= LAST_PORT or count > MOST_PROCESSES:
        raise UserError(
            f'config.distributed={shown(setting)} is invalid: a port is at most {LAST_PORT} and '
            f'above 0, and there are at most {MOST_PROCESSES:,} processes.'
        )
    return {
        'coordinator_address': f'{match[1]}:{port}',
        'num_processes': count,
        'process_id': index,
    }


def memory_limit(device: 'jax.Device') -> int | None:
    """Returns the memory of a device in bytes; None where unknown, as for a CPU."""
    return (device.memory_stats() or {}).get('bytes_limit')


def host_memory() -> int:
    """Returns the memory of this machine in bytes."""
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def peak_memory(devices: list['jax.Device']) -> tuple[int, str]:
    """Returns (peak memory in bytes since the process started, 'device' or 'host').

    'device' means the memory of the fullest device. 'host' means the resident memory of this
    process, where the devices are CPUs or do not report their memory.
    """
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
    if peaks:
        return max(peaks), 'device'
    return peak_resident_bytes(resource.getrusage(resource.RUSAGE_SELF)), 'host'


def peak_resident_bytes(usage: resource.struct_rusage) -> int:
    """Returns the peak resident memory in bytes, whichever unit this system counts in."""
    return usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def describe(devices: list['jax.Device']) -> str:
    """Returns the kind of the devices, such as '2 CPU cores (AMD EPYC)' or 'NVIDIA H100'."""
    device = devices[0]
    if device.platform != 'cpu':
        return device.device_kind
    return describe_cpu()


def describe_cpu() -> str:
    """Returns the number and model of the CPU cores that this process may use; needs no JAX."""
    model = ''
    try:
        text = Path('/proc/cpuinfo').read_text()
        match = re.search(r'model name\s*:\s*(.+)', text)
        model = f' ({match[1].strip()})' if match else ''
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return f'{cores} CPU cores{model}'
