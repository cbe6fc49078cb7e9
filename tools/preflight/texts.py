"""What the footprint of a run means in words: whether it fits, and what takes how much."""

from typing import Any

from tools.preflight.footprint import Footprint


def memory_problems(found: Footprint, memory: int) -> list[str]:
    """Returns why the memory does not suffice, in sentences; nothing if it does.

    Args:
      found: what the run takes.
      memory: bytes of the host that are free.
    """
    problems = []
    if found.host_peak > memory:
        problems.append(
            f'The run takes about {size(found.host_peak)} of memory and {size(memory)} are free: '
            'lower config.batch_size or config.eval_batch_size.'
        )
    if found.device_limit is not None and found.device_peak > found.device_limit:
        problems.append(
            f'The run takes about {size(found.device_peak)} of each device, which has '
            f'{size(found.device_limit)}: lower config.batch_size or config.eval_batch_size, or '
            'raise config.accumulate.'
        )
    return problems


def disk_problems(found: Footprint, disk: int) -> list[str]:
    """Returns why the disk does not suffice, in a sentence; nothing if it does.

    Args:
      found: what the run takes.
      disk: bytes of the workdir's disk that are free.
    """
    if found.disk <= disk:
        return []
    return [
        f'The checkpoints take up to {size(found.disk)} and {size(disk)} of the disk are free: '
        'make room, choose another --workdir, or lower config.checkpoint.keep.'
    ]


def size(count: float) -> str:
    """Returns a number of bytes as a person says it."""
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'


def as_text(found: Footprint, config: Any, memory: int, disk: int) -> str:
    """Returns the footprint as lines."""
    compiled = ''
    if found.compiled_flops:
        compiled = f'; as compiled, with augmentation and update: {found.compiled_flops:.3g}'
    lines = [
        f'{config.model.name} on {config.data.name}, {found.device_count} device(s) of '
        f'{found.devices}',
        '',
        f'parameters       {found.parameters:,}',
        f'steps            {found.steps:,} of {config.batch_size} images, '
        f'{found.examples:,} in an epoch',
        f'FLOPs in a step  {found.model_flops:.3g} of the model{compiled}',
        f'disk             {size(found.checkpoint_bytes)} a checkpoint, {size(found.disk)} for '
        f'{found.checkpoints}; {size(disk)} are free',
        f'memory           {size(found.host_peak)} at most; {size(memory)} are free',
        *_parts(found.host),
    ]
    if found.compiling >= sum(found.host.values()):
        lines.append(f'  {size(found.compiling):>9}  at most while the programs are compiled')
    if found.device_limit is not None:
        lines += [
            f'on each device   {size(found.device_peak)} at most, of {size(found.device_limit)}',
            *_parts(found.device),
        ]
    return '\n'.join(lines)


def _parts(parts: dict[str, int]) -> list[str]:
    return [f'  {size(count):>9}  {name}' for name, count in parts.items() if count]
