"""Says before a run what it will take, and whether it can go. Nothing is trained or written.

    python -m tools.preflight --config=configs/mnist_lenet.py
    python -m tools.preflight --config=configs/imagenet_resnet50.py --config.batch_size=256
    python -m tools.preflight --config=configs/digits_lenet.py --workdir=/scratch/digits --json

The data set is opened and the step is compiled as train.py does it. Memory is that of a first run,
which compiles; a later one finds its programs in the cache and takes less.

exit codes: 0 go, 2 no-go: a sentence says why
"""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from training import command

if TYPE_CHECKING:  # JAX is imported when the configuration has been read
    from training.footprint import Footprint


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.preflight',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE', required=True, help='a file of configs/, or a config.json')
    add('--workdir', metavar='DIR', default='.', help='of the run to come: its disk counts [.]')
    add('--json', action='store_true', help='everything as JSON, in bytes')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    from configs import schema

    config = schema.from_arguments(arguments.config, overrides)
    import psutil

    from training import footprint

    memory = psutil.virtual_memory().available  # before this process takes its own
    found = footprint.of(config)
    disk = shutil.disk_usage(_existing(Path(arguments.workdir))).free
    problems = no_go(found, memory, disk)
    if arguments.json:
        print(as_json(found, memory, disk, problems))
    else:
        print(as_text(found, config, memory, disk))
    if problems:
        raise UserError('no-go. ' + ' '.join(problems))
    return 0


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def no_go(found: 'Footprint', memory: int, disk: int) -> list[str]:
    """Returns why the run cannot go, in sentences; nothing if it can.

    Args:
      found: what it takes.
      memory: bytes of the host that are free.
      disk: bytes of the workdir's disk that are free.
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
    if found.disk > disk:
        problems.append(
            f'The checkpoints take up to {size(found.disk)} and {size(disk)} of the disk are free: '
            'make room, choose another --workdir, or lower config.checkpoint.keep.'
        )
    return problems


def size(count: float) -> str:
    """Returns a number of bytes as a person says it."""
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'


def as_text(found: 'Footprint', config, memory: int, disk: int) -> str:
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


def as_json(found: 'Footprint', memory: int, disk: int, problems: list[str]) -> str:
    """Returns everything as JSON: bytes, FLOPs, counts."""
    peaks = {name: getattr(found, name) for name in ('host_peak', 'device_peak', 'disk')}
    free = {'memory_free': memory, 'disk_free': disk}
    return json.dumps({**dataclasses.asdict(found), **peaks, **free, 'no_go': problems}, indent=1)


if __name__ == '__main__':
    command.run(main)
