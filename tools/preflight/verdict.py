"""The checks, in their order, and the results that each passes to the next ones."""

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from ml_collections import ConfigDict

from errors import UserError
from tools.preflight.findings import Finding, Findings

if TYPE_CHECKING:
    from tools.preflight.footprint import Footprint
    from tools.preflight.prepared import Prepared
    from tools.preflight.speed import Speed
    from training.experiment import Experiment, Split

# JAX is imported by the checks themselves, because a wrong configuration is reported without it.


@dataclasses.dataclass(frozen=True)
class Asked:
    """The command line, and the free memory and disk when the command started.

    Attributes:
      arguments: options of the command.
      overrides: its '--config.NAME=VALUE' arguments.
      begin: when it started, by time.monotonic.
      memory: free bytes of the host's memory.
      disk: free bytes of the workdir's disk.
    """

    arguments: argparse.Namespace
    overrides: list[str]
    begin: float
    memory: int
    disk: int

    @classmethod
    def now(cls, arguments: argparse.Namespace, overrides: list[str], begin: float) -> 'Asked':
        """Returns the command line with the memory and disk that are free now."""
        folder = Path(arguments.workdir).absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        memory, disk = psutil.virtual_memory().available, shutil.disk_usage(existing).free
        return cls(arguments, overrides, begin, memory, disk)


class Printer:
    """Prints lines as soon as it is known whether this process is the first."""

    def __init__(self, silent: bool):
        self._kept: list[str] | None = []
        self._silent = silent

    def __call__(self, line: str) -> None:
        """Prints a line, or keeps it until `start` is called."""
        if self._kept is not None:
            self._kept.append(line)
        elif not self._silent:
            print(line, flush=True)

    def start(self, first: bool) -> None:
        """Prints the lines so far if this process is the first; otherwise drops all lines."""
        lines, self._kept = self._kept, None
        self._silent = self._silent or not first
        for line in lines:
            self(line)


@dataclasses.dataclass(frozen=True)
class DevicePlan:
    """The available devices, and those of the planned run.

    Attributes:
      config: the configuration that is checked: that of the run, or of the part that the available
        devices have in it.
      devices: the available devices of all processes.
      processes: number of processes.
      hosts: number of hosts in the planned run.
      planned: number of devices in the planned run.
      first: whether this is the process that prints.
    """

    config: ConfigDict
    devices: list
    processes: int
    hosts: int
    planned: int
    first: bool


@dataclasses.dataclass(frozen=True)
class Verdict:
    """All findings, and the footprint of the run if it is known."""

    findings: Findings
    asked: Asked
    config: ConfigDict | None
    footprint: 'Footprint | None'
    first: bool

    def ending(self) -> str:
        """Returns the footprint, if it is known, and the verdict, as text."""
        lines = ['']
        if self.footprint is not None:
            from tools.preflight import texts

            asked = self.asked
            lines += [texts.as_text(self.footprint, self.config, asked.memory, asked.disk), '']
        return '\n'.join([*lines, 'no-go' if self.findings.problems else 'go'])

    def as_json(self) -> str:
        """Returns everything as JSON, in bytes, seconds and FLOPs."""
        values = {}
        if self.footprint is not None:
            peaks = ('host_peak', 'device_peak', 'disk')
            values = dataclasses.asdict(self.footprint)
            values |= {name: getattr(self.footprint, name) for name in peaks}
        values |= {'memory_free': self.asked.memory, 'disk_free': self.asked.disk}
        values |= {'no_go': self.findings.problems}
        values['checks'] = [check.as_dict() for check in self.findings.checks]
        return json.dumps(values, indent=1)


def run(asked: Asked) -> Verdict:
    """Does all checks that can be done; a failed one only skips those that need its result."""
    printer = Printer(asked.arguments.json)
    findings = Findings(printer)
    # The first two are done by each process for itself, because the second connects them.
    config = findings.alone('config', lambda: _config(asked))
    plan = config and findings.alone('devices', lambda: _devices(asked, config))
    printer.start(plan.first if plan else True)
    if not plan:
        return Verdict(findings, asked, config, None, True)
    check = findings.everywhere
    check('collective', lambda: _collective(plan))
    plan = check('batch', lambda: _batch(plan)) or plan
    opened = check('data', lambda: _data(plan))
    model = check('model', lambda: _model(plan, opened), needs=['data'])
    compiled = check('compile', lambda: _compile(asked, plan, opened, model), needs=['model'])
    footprint = compiled and compiled.footprint
    check('memory', lambda: _memory(asked, footprint), needs=['compile'])
    check('disk', lambda: _disk(asked, footprint), needs=['compile'])
    check('records', lambda: _records(plan, opened), needs=['data'])
    check('overfit', lambda: _overfit(compiled), needs=['memory'])
    speed = check('speed', lambda: _speed(plan, compiled), needs=['memory'])
    check('time', lambda: _time(plan, compiled, speed), needs=['speed'])
    return Verdict(findings, asked, plan.config, footprint, plan.first)


def _config(asked: Asked) -> Finding:
    from configs import reading

    config = reading.from_arguments(asked.arguments.config, asked.overrides)
    if asked.arguments.devices:
        config.devices = asked.arguments.devices
    config.compilation_cache = 'off'  # the time of a first run includes compilation
    from training import checks

    checks.check(config)
    return Finding(f'{asked.arguments.config} is valid', value=config)


def _devices(asked: Asked, config: ConfigDict) -> Finding:
    from distributed import devices, hosts

    connected = devices.connect(config)
    processes = len({device.process_index for device in connected})
    wanted, available = asked.arguments.devices, len(connected) // processes
    too_few = wanted is not None and wanted > available
    chosen = devices.choose(connected, available if too_few else config.devices)
    planned_hosts = asked.arguments.hosts or processes
    if planned_hosts < processes:
        raise UserError(
            f'--hosts={planned_hosts}, but {processes} processes were started: choose at least as '
            'many.'
        )
    planned = planned_hosts * (wanted or len(chosen) // processes)
    text = f'{_count(len(chosen), "device")} of {devices.describe(connected)}'
    if processes > 1:
        text += f', in {processes} processes'
    figures = {'devices': len(chosen), 'processes': processes}
    plan = DevicePlan(config, chosen, processes, planned_hosts, planned, hosts.is_first())
    return Finding(text, figures, value=plan)


def _collective(plan: DevicePlan) -> Finding:
    from distributed import hosts

    hosts.check_sum(plan.devices)
    return Finding(f'the sum over {_count(len(plan.devices), "device")} is right')


def _batch(plan: DevicePlan) -> Finding:
    from distributed import hosts
    from tools.preflight import prepared
    from training import checks, run

    whole, available = plan.config, len(plan.devices)
    hosts.check_same(run.shared_settings(whole), 'configurations')
    part = prepared.part_of(whole, available, plan.planned)
    checks.check_devices(whole, plan.planned)
    several = f'{plan.hosts} hosts x ' if plan.hosts > 1 else ''
    each = _count(plan.planned // plan.hosts, 'device')
    text = f'{whole.batch_size} = {several}{each} x {whole.batch_size // plan.planned}'
    figures = {'batch_size': whole.batch_size, 'devices': plan.planned, 'hosts': plan.hosts}
    plan = dataclasses.replace(plan, config=part)
    if part.batch_size == whole.batch_size:
        return Finding(text, figures, value=plan)
    text += (
        f'; the rest checks a part of it, {part.batch_size} images on {_count(available, "device")}'
    )
    return Finding(text, figures, note=True, value=plan)


@dataclasses.dataclass(frozen=True)
class Opened:
    """The open data set.

    Attributes:
      experiment: the experiment.
      splits: {name: open split}.
      libraries: bytes of memory that Python and libraries had taken before.
    """

    experiment: 'Experiment'
    splits: 'dict[str, Split]'
    libraries: int


def _data(plan: DevicePlan) -> Finding:
    from tools.preflight import footprint, prepared

    libraries = footprint.of_libraries()
    experiment, splits = prepared.open_splits(plan.config)
    sizes = {name: split.size for name, split in splits.items()}
    listed = ', '.join(f'{size:,} {name}' for name, size in sizes.items())
    shape = 'x'.join(map(str, experiment.image_shape))
    classes = len(experiment.class_names)
    text = f'{listed}; {shape}' + (f', {classes} classes' if classes else '')
    if experiment.note:
        text = f'{text}; {experiment.note}'
    if experiment.warning:
        text = f'{text}. {experiment.warning}'
    figures = {**sizes, 'classes': classes}
    opened = Opened(experiment, splits, libraries)
    return Finding(text, figures, note=bool(experiment.warning), value=opened)


def _model(plan: DevicePlan, opened: Opened) -> Finding:
    from tools.preflight import prepared

    spec = opened.experiment.spec()
    source = prepared.weights(opened.experiment, spec)
    start = f', from {plan.config.init_from}' if plan.config.init_from else ''
    return Finding(f'{plan.config.model.name}{start}', value=(spec, source))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiled run.

    Attributes:
      run: the run with its programs.
      footprint: its memory, disk and arithmetic.
      start_seconds: duration of everything before the compilation.
    """

    run: 'Prepared'
    footprint: 'Footprint'
    start_seconds: float


def _compile(asked: Asked, plan: DevicePlan, opened: Opened, model: tuple) -> Finding:
    from tools.preflight import footprint, prepared

    spec, source = model
    start_seconds = time.monotonic() - asked.begin
    with prepared.memory_named('for a step'):
        ready = prepared.prepare(opened.experiment, spec, opened.splits, plan.devices, source)
    compiled = Compiled(ready, footprint.of(ready, opened.libraries), start_seconds)
    seconds = ready.compile_seconds
    return Finding(f'step and evaluation in {seconds:.1f} s', {'seconds': seconds}, value=compiled)


def _memory(asked: Asked, footprint: 'Footprint') -> Finding:
    from tools.preflight.texts import memory_problems, size

    _raise(memory_problems(footprint, asked.memory))
    text = f'{size(footprint.host_peak)} at most; {size(asked.memory)} are free'
    if footprint.device_limit is not None:
        text += f'; {size(footprint.device_peak)} of each device, of {size(footprint.device_limit)}'
    return Finding(text)


def _disk(asked: Asked, footprint: 'Footprint') -> Finding:
    from tools.preflight.texts import disk_problems, size

    _raise(disk_problems(footprint, asked.disk))
    return Finding(
        f'{size(footprint.disk)} for {footprint.checkpoints} checkpoints; {size(asked.disk)} are '
        'free'
    )


def _records(plan: DevicePlan, opened: Opened) -> Finding:
    from tools.preflight import sampling

    return sampling.check(opened.splits, plan.config.data.on_bad_record == 'skip')


def _overfit(compiled: Compiled) -> Finding:
    from tools.preflight import overfit, prepared

    with prepared.memory_named('to train', together=True):
        return overfit.check(compiled.run)


def _speed(plan: DevicePlan, compiled: Compiled) -> Finding:
    from tools.preflight import prepared, speed

    if plan.config.linear_probe:
        text = 'not measured: a linear probe trains on features, which are computed once'
        return Finding(text, note=True)
    # The planned numbers divided by the available ones.
    more_devices, more_hosts = plan.planned / len(plan.devices), plan.hosts / plan.processes
    with prepared.memory_named('to train', together=True):
        measured = speed.measure(compiled.run, more_devices, more_hosts)
    return dataclasses.replace(measured.finding(), value=measured)


def _time(plan: DevicePlan, compiled: Compiled, measured: 'Speed') -> Finding:
    from tools.preflight import speed

    if plan.config.linear_probe:
        return Finding('not estimated, for the same reason', note=True)
    return speed.wall_time(compiled.run, measured, compiled.start_seconds)


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(' '.join(problems))


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + 's' * (number != 1)
