"""Says before hours are booked whether a run can go, what it takes, how long. Nothing is written.

    python -m tools.preflight --config=configs/mnist_lenet.py
    python -m tools.preflight --config=configs/imagenet_resnet50.py --hosts=4 --devices=8
    python -m tools.preflight --config=configs/digits_lenet.py --workdir=/scratch/digits --json

Everything is done as train.py does it: the data are opened and records of them decoded, the step is
compiled and makes some tens of updates. Memory and time are those of a first run, which compiles; a
later one finds its programs in the cache. For a run of several processes start it as train.py is
started, once for each.

exit codes: 0 go, 2 no-go: sentences say why, 69 another process did not come, hangs, or is gone
"""

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import command
from distributed import watchdog
from errors import UserError
from tools.preflight.findings import Finding, Findings

if TYPE_CHECKING:  # JAX is imported when the configuration has been read
    from tools.preflight.footprint import Footprint


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
    add(
        '--devices',
        metavar='N',
        type=command.positive,
        help='devices of each host in the run to come [config.devices, or those that are here]; '
        'where there are fewer, what is measured is the part of the run that falls to them',
    )
    add('--hosts', metavar='N', type=command.positive, help='hosts of the run to come [these]')
    add('--json', action='store_true', help='everything as JSON, in bytes and seconds')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    begin = time.monotonic()
    arguments, overrides = command.parse(parser(), argv)
    import psutil

    memory = psutil.virtual_memory().available  # before this process takes its own
    preflight = _Preflight(arguments, overrides, begin, memory)
    with watchdog.reporting_errors():
        preflight.go()
    found = preflight.findings
    if not preflight.first:
        return found.exit_code
    print(preflight.as_json() if arguments.json else preflight.ending())
    if found.problems:
        raise found.failure('no-go. ' + ' '.join(found.problems))
    return 0


class _Preflight:
    """The checks, in the order in which they are made, and what each leaves for the next.

    Args:
      arguments: of the command.
      overrides: '--config.NAME=VALUE' of the command.
      begin: when it began, by time.monotonic.
      memory: bytes of the host that were free then.

    Attributes:
      findings: of the checks so far.
      first: whether this is the process that prints.
    """

    def __init__(self, arguments, overrides: list[str], begin: float, memory: int):
        self._arguments, self._overrides = arguments, overrides
        self._begin, self._memory = begin, memory
        self._disk = shutil.disk_usage(_existing(Path(arguments.workdir))).free
        self._kept: list[str] | None = []  # lines, until it is known which process prints
        self._footprint: Footprint | None = None
        self.first, self.findings = True, Findings(self._say)

    def go(self) -> None:
        """Makes all checks that can be made."""
        connected = self.findings.alone('config', self._check_config) and self.findings.alone(
            'devices', self._check_devices
        )
        self._print_kept()
        if not connected:
            return
        check = self.findings.everywhere
        check('collective', self._check_collective)
        check('batch', self._check_batch)
        check('data', self._check_data)
        check('model', self._check_model, needs=['data'])
        check('compile', self._check_compile, needs=['model'])
        check('memory', self._check_memory, needs=['compile'])
        check('disk', self._check_disk, needs=['compile'])
        check('records', self._check_records, needs=['data'])
        check('overfit', self._check_overfit, needs=['memory'])
        check('speed', self._check_speed, needs=['memory'])
        check('time', self._check_time, needs=['speed'])

    def _say(self, line: str) -> None:
        if self._kept is not None:
            self._kept.append(line)
        elif self.first and not self._arguments.json:
            print(line, flush=True)

    def _print_kept(self) -> None:
        lines, self._kept = self._kept, None
        for line in lines:
            self._say(line)

    def _check_config(self) -> Finding:
        from configs import reading

        config = reading.from_arguments(self._arguments.config, self._overrides)
        if self._arguments.devices:
            config.devices = self._arguments.devices
        config.compilation_cache = 'off'  # a first run finds nothing there
        from training import checks

        checks.check(config)
        self._config = config
        return Finding(f'{self._arguments.config} is valid')

    def _check_devices(self) -> Finding:
        from distributed import devices, hosts

        found = devices.connect(self._config)
        self.first = hosts.is_first()
        processes = len({device.process_index for device in found})
        wanted, each = self._arguments.devices, len(found) // processes
        fewer = wanted is not None and wanted > each
        self._devices = devices.choose(found, each if fewer else self._config.devices)
        here = len(self._devices)
        self._hosts = self._arguments.hosts or processes
        if self._hosts < processes:
            raise UserError(f'--hosts={self._hosts}, but {processes} processes were started.')
        self._planned = self._hosts * (wanted or here // processes)
        # How many times as many of each the run is to have.
        self._more_hosts, self._more_devices = self._hosts / processes, self._planned / here
        text = f'{_count(here, "device")} of {devices.describe(found)}'
        if processes > 1:
            text += f', in {processes} processes'
        return Finding(text, {'devices': here, 'processes': processes})

    def _check_collective(self) -> Finding:
        from distributed import hosts

        hosts.check_sum(self._devices)
        return Finding(f'the sum over {_count(len(self._devices), "device")} is right')

    def _check_batch(self) -> Finding:
        from distributed import hosts
        from tools.preflight import prepared
        from training import checks, run

        hosts.check_same(run.shared_settings(self._config), 'configurations')
        whole, here = self._config, len(self._devices)
        self._config = prepared.part_of(whole, here, self._planned)
        part = self._config.batch_size
        checks.check_devices(whole, self._planned)
        hosts = f'{self._hosts} hosts x ' if self._hosts > 1 else ''
        each = _count(self._planned // self._hosts, 'device')
        text = f'{whole.batch_size} = {hosts}{each} x {whole.batch_size // self._planned}'
        figures = {'batch_size': whole.batch_size, 'devices': self._planned, 'hosts': self._hosts}
        if part == whole.batch_size:
            return Finding(text, figures)
        text += f'; what follows is a part of it, {part} images on {_count(here, "device")}'
        return Finding(text, figures, note=True)

    def _check_data(self) -> Finding:
        from tools.preflight import footprint, prepared

        self._libraries = footprint.of_libraries()
        self._experiment, self._splits = prepared.open_splits(self._config)
        sizes = {name: split.size for name, split in self._splits.items()}
        listed = ', '.join(f'{size:,} {name}' for name, size in sizes.items())
        shape = 'x'.join(map(str, self._experiment.image_shape))
        classes = len(self._experiment.class_names)
        return Finding(f'{listed}; {shape}, {classes} classes', {**sizes, 'classes': classes})

    def _check_model(self) -> Finding:
        from tools.preflight import prepared

        self._spec = self._experiment.spec()
        self._source = prepared.weights(self._experiment, self._spec)
        start = f', from {self._config.init_from}' if self._config.init_from else ''
        return Finding(f'{self._config.model.name}{start}')

    def _check_compile(self) -> Finding:
        from tools.preflight import footprint, prepared

        self._start_seconds = time.monotonic() - self._begin
        with prepared.memory_named('for a step'):
            self._run = prepared.prepare(
                self._experiment, self._spec, self._splits, self._devices, self._source
            )
        self._footprint = footprint.of(self._run, self._libraries)
        seconds = self._run.compile_seconds
        return Finding(f'step and evaluation in {seconds:.1f} s', {'seconds': seconds})

    def _check_memory(self) -> Finding:
        found = self._footprint
        _raise(memory_problems(found, self._memory))
        text = f'{size(found.host_peak)} at most; {size(self._memory)} are free'
        if found.device_limit is not None:
            text += f'; {size(found.device_peak)} of each device, of {size(found.device_limit)}'
        return Finding(text)

    def _check_disk(self) -> Finding:
        found = self._footprint
        _raise(disk_problems(found, self._disk))
        return Finding(
            f'{size(found.disk)} for {found.checkpoints} checkpoints; {size(self._disk)} are free'
        )

    def _check_records(self) -> Finding:
        from tools.preflight import sampling

        return sampling.check(self._splits, self._config.data.on_bad_record == 'skip')

    def _check_overfit(self) -> Finding:
        from tools.preflight import overfit, prepared

        with prepared.memory_named('to train', together=True):
            return overfit.check(self._run)

    def _check_speed(self) -> Finding:
        from tools.preflight import prepared, speed

        if self._config.linear_probe:
            text = 'not measured: a linear probe trains on features, which it computes once'
            return Finding(text, note=True)
        with prepared.memory_named('to train', together=True):
            self._speed = speed.measure(self._run, self._more_devices, self._more_hosts)
        return self._speed.finding()

    def _check_time(self) -> Finding:
        from tools.preflight import speed

        if self._config.linear_probe:
            return Finding('not estimated, for the same reason', note=True)
        return speed.wall_time(self._run, self._speed, self._start_seconds)

    def ending(self) -> str:
        """Returns the footprint, if it is known, and the verdict."""
        parts = ['']
        if self._footprint is not None:
            parts += [as_text(self._footprint, self._config, self._memory, self._disk), '']
        return '\n'.join([*parts, 'no-go' if self.findings.problems else 'go'])

    def as_json(self) -> str:
        """Returns everything as JSON: bytes, seconds, FLOPs, counts."""
        found = {}
        if self._footprint is not None:
            peaks = ('host_peak', 'device_peak', 'disk')
            found = dataclasses.asdict(self._footprint)
            found |= {name: getattr(self._footprint, name) for name in peaks}
        found |= {'memory_free': self._memory, 'disk_free': self._disk}
        found |= {'no_go': self.findings.problems}
        found['checks'] = [check.as_dict() for check in self.findings.checks]
        return json.dumps(found, indent=1)


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(' '.join(problems))


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + 's' * (number != 1)


def memory_problems(found: 'Footprint', memory: int) -> list[str]:
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


def disk_problems(found: 'Footprint', disk: int) -> list[str]:
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
