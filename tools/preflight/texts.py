"""The footprint of a run as text: whether it fits, and what it consists of."""

from ml_collections import ConfigDict

from tools.preflight.footprint import Footprint


def memory_problems(footprint: Footprint, memory: int) -> list[str]:
    """Returns sentences that say why the memory is too small; none if it is not.

    Args:
      footprint: memory and disk of the run.
      memory: free bytes of the host's memory.
    """
    problems = []
    if footprint.host_peak > memory:
        problems.append(
            f'The run takes about {size(footprint.host_peak)} of memory and {size(memory)} are '
            'free: lower config.batch_size or config.eval_batch_size.'
        )
    if footprint.device_limit is not None and footprint.device_peak > footprint.device_limit:
        problems.append(
            f'The run takes about {size(footprint.device_peak)} of each device, which has '
            f'{size(footprint.device_limit)}: lower config.batch_size or config.eval_batch_size, '
            'or raise config.accumulate.'
        )
    return problems


def disk_problems(footprint: Footprint, disk: int) -> list[str]:
    """Returns a sentence that says why the disk is too small; none if it is not.

    Args:
      footprint: memory and disk of the run.
      disk: free bytes of the workdir's disk.
    """
    if footprint.disk <= disk:
        return []
    return [
        f'The checkpoints take up to {size(footprint.disk)} and {size(disk)} of the disk are free: '
        'make room, choose another --workdir, or lower config.checkpoint.keep.'
    ]


def size(count: float) -> str:
    """Returns a number of bytes as text: '12.3 MB', '1.2 GB'."""
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'


def as_text(footprint: Footprint, config: ConfigDict, memory: int, disk: int) -> str:
    """Returns the footprint as lines.

    Args:
      footprint: memory, disk and arithmetic of the run.
      config: its configuration.
      memory: free bytes of the host's memory.
      disk: free bytes of the workdir's disk.
    """
    compiled = ''
    if footprint.compiled_flops:
        compiled = f'; as compiled, with augmentation and update: {footprint.compiled_flops:.3g}'
    known = footprint.model_flops is not None
    model_flops = f'{footprint.model_flops:.3g}' if known else 'an unknown number'
    lines = [
        f'{config.model.name} on {config.data.name}, {footprint.device_count} device(s) of '
        f'{footprint.devices}',
        '',
        f'parameters       {footprint.parameters:,}',
        f'steps            {footprint.steps:,} of {config.batch_size} images, '
        f'{footprint.examples:,} in an epoch',
        f'FLOPs in a step  {model_flops} of the model{compiled}',
        f'disk             {size(footprint.checkpoint_bytes)} a checkpoint, '
        f'{size(footprint.disk)} for {footprint.checkpoints}; {size(disk)} are free',
        f'memory           {size(footprint.host_peak)} at most; {size(memory)} are free',
        *_parts(footprint.host),
    ]
    if footprint.compiling >= sum(footprint.host.values()):
        lines.append(f'  {size(footprint.compiling):>9}  at most while the programs are compiled')
    if footprint.device_limit is not None:
        peak, limit = size(footprint.device_peak), size(footprint.device_limit)
        lines += [f'on each device   {peak} at most, of {limit}', *_parts(footprint.device)]
    return '\n'.join(lines)


def _parts(parts: dict[str, int]) -> list[str]:
    """Returns a line for each part that is not empty."""
    return [f'  {size(count):>9}  {name}' for name, count in parts.items() if count]
