"""The checks, in the order in which they are made, and what each gives to the next."""

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import psutil

from errors import UserError
from tools.preflight.findings import Finding, Findings

# JAX is imported by the checks themselves, once the configuration has been read.


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command was told, and what the machine had free when it began.

    Attributes:
      arguments: of the command.
      overrides: its '--config.NAME=VALUE'.
      begin: when it began, by time.monotonic.
      memory: free bytes of the host.
      disk: free bytes of the workdir's disk.
    """

    arguments: argparse.Namespace
    overrides: list[str]
    begin: float
    memory: int
    disk: int

    @classmethod
    def now(cls, arguments: argparse.Namespace, overrides: list[str], begin: float) -> 'Asked':
        """Returns the request with what is free at this moment."""
        folder = Path(arguments.workdir).absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        memory, disk = psutil.virtual_memory().available, shutil.disk_usage(existing).free
        return cls(arguments, overrides, begin, memory, disk)


class Printer:
    """Prints lines, once it is known whether this process is the one that does."""

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
        """Prints what was kept, if this process is the first; nothing at all otherwise."""
        lines, self._kept = self._kept, None
        self._silent = self._silent or not first
        for line in lines:
            self(line)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The devices that are here, and those of the run to come.

    Attributes:
      config: of what is checked here: the run, or the part that falls to these devices.
      devices: those that are here, of all processes.
      processes: how many there are.
      hosts: of the run to come.
      planned: devices of the run to come.
      first: whether this is the process that prints.
    """

    config: Any
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
    config: Any
    footprint: Any
    first: bool

    def ending(self) -> str:
        """Returns the footprint, if it is known, and the verdict."""
        parts = ['']
        if self.footprint is not None:
            from tools.preflight import texts

            asked = self.asked
            parts += [texts.as_text(self.footprint, self.config, asked.memory, asked.disk), '']
        return '\n'.join([*parts, 'no-go' if self.findings.problems else 'go'])

    def as_json(self) -> str:
        """Returns everything as JSON: bytes, seconds, FLOPs, counts."""
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
    """Makes all checks that can be made."""
    printer = Printer(asked.arguments.json)
    findings = Findings(printer)
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
    config.compilation_cache = 'off'  # a first run finds nothing there
    from training import checks

    checks.check(config)
    return Finding(f'{asked.arguments.config} is valid', value=config)


def _devices(asked: Asked, config: Any) -> Finding:
    from distributed import devices, hosts

    connected = devices.connect(config)
    processes = len({device.process_index for device in connected})
    wanted, each = asked.arguments.devices, len(connected) // processes
    fewer = wanted is not None and wanted > each
    here = devices.choose(connected, each if fewer else config.devices)
    planned_hosts = asked.arguments.hosts or processes
    if planned_hosts < processes:
        raise UserError(f'--hosts={planned_hosts}, but {processes} processes were started.')
    planned = planned_hosts * (wanted or len(here) // processes)
    text = f'{_count(len(here), "device")} of {devices.describe(connected)}'
    if processes > 1:
        text += f', in {processes} processes'
    figures = {'devices': len(here), 'processes': processes}
    plan = Plan(config, here, processes, planned_hosts, planned, hosts.is_first())
    return Finding(text, figures, value=plan)


def _collective(plan: Plan) -> Finding:
    from distributed import hosts

    hosts.check_sum(plan.devices)
    return Finding(f'the sum over {_count(len(plan.devices), "device")} is right')


def _batch(plan: Plan) -> Finding:
    from distributed import hosts
    from tools.preflight import prepared
    from training import checks, run

    whole, here = plan.config, len(plan.devices)
    hosts.check_same(run.shared_settings(whole), 'configurations')
    part = prepared.part_of(whole, here, plan.planned)
    checks.check_devices(whole, plan.planned)
    several = f'{plan.hosts} hosts x ' if plan.hosts > 1 else ''
    each = _count(plan.planned // plan.hosts, 'device')
    text = f'{whole.batch_size} = {several}{each} x {whole.batch_size // plan.planned}'
    figures = {'batch_size': whole.batch_size, 'devices': plan.planned, 'hosts': plan.hosts}
    plan = dataclasses.replace(plan, config=part)
    if part.batch_size == whole.batch_size:
        return Finding(text, figures, value=plan)
    text += f'; what follows is a part of it, {part.batch_size} images on {_count(here, "device")}'
    return Finding(text, figures, note=True, value=plan)


@dataclasses.dataclass(frozen=True)
class Opened:
    """The experiment, its splits by name, and what Python and libraries take of memory."""

    experiment: Any
    splits: dict[str, Any]
    libraries: int


def _data(plan: Plan) -> Finding:
    from tools.preflight import footprint, prepared

    libraries = footprint.of_libraries()
    experiment, splits = prepared.open_splits(plan.config)
    sizes = {name: split.size for name, split in splits.items()}
    listed = ', '.join(f'{size:,} {name}' for name, size in sizes.items())
    shape = 'x'.join(map(str, experiment.image_shape))
    classes = len(experiment.class_names)
    text = f'{listed}; {shape}' + (f', {classes} classes' if classes else '')
    return Finding(text, {**sizes, 'classes': classes}, value=Opened(experiment, splits, libraries))


def _model(plan: Plan, opened: Opened) -> Finding:
    from tools.preflight import prepared

    spec = opened.experiment.spec()
    source = prepared.weights(opened.experiment, spec)
    start = f', from {plan.config.init_from}' if plan.config.init_from else ''
    return Finding(f'{plan.config.model.name}{start}', value=(spec, source))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The run with its programs, its footprint, and the seconds before they were compiled."""

    run: Any
    footprint: Any
    start_seconds: float


def _compile(asked: Asked, plan: Plan, opened: Opened, model: tuple) -> Finding:
    from tools.preflight import footprint, prepared

    spec, source = model
    start_seconds = time.monotonic() - asked.begin
    with prepared.memory_named('for a step'):
        ready = prepared.prepare(opened.experiment, spec, opened.splits, plan.devices, source)
    compiled = Compiled(ready, footprint.of(ready, opened.libraries), start_seconds)
    seconds = ready.compile_seconds
    return Finding(f'step and evaluation in {seconds:.1f} s', {'seconds': seconds}, value=compiled)


def _memory(asked: Asked, footprint: Any) -> Finding:
    from tools.preflight.texts import memory_problems, size

    _raise(memory_problems(footprint, asked.memory))
    text = f'{size(footprint.host_peak)} at most; {size(asked.memory)} are free'
    if footprint.device_limit is not None:
        text += f'; {size(footprint.device_peak)} of each device, of {size(footprint.device_limit)}'
    return Finding(text)


def _disk(asked: Asked, footprint: Any) -> Finding:
    from tools.preflight.texts import disk_problems, size

    _raise(disk_problems(footprint, asked.disk))
    return Finding(
        f'{size(footprint.disk)} for {footprint.checkpoints} checkpoints; {size(asked.disk)} are '
        'free'
    )


def _records(plan: Plan, opened: Opened) -> Finding:
    from tools.preflight import sampling

    return sampling.check(opened.splits, plan.config.data.on_bad_record == 'skip')


def _overfit(compiled: Compiled) -> Finding:
    from tools.preflight import overfit, prepared

    with prepared.memory_named('to train', together=True):
        return overfit.check(compiled.run)


def _speed(plan: Plan, compiled: Compiled) -> Finding:
    from tools.preflight import prepared, speed

    if plan.config.linear_probe:
        text = 'not measured: a linear probe trains on features, which it computes once'
        return Finding(text, note=True)
    # How many times as many of each the run is to have.
    more_devices, more_hosts = plan.planned / len(plan.devices), plan.hosts / plan.processes
    with prepared.memory_named('to train', together=True):
        measured = speed.measure(compiled.run, more_devices, more_hosts)
    return dataclasses.replace(measured.finding(), value=measured)


def _time(plan: Plan, compiled: Compiled, measured: Any) -> Finding:
    from tools.preflight import speed

    if plan.config.linear_probe:
        return Finding('not estimated, for the same reason', note=True)
    return speed.wall_time(compiled.run, measured, compiled.start_seconds)


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError(' '.join(problems))


def _count(number: int, what: str) -> str:
    return f'{number} {what}' + 's' * (number != 1)
