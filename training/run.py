"""A whole training run in a folder: start or go on, train, test once, write the result."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shlex
from pathlib import Path

import jax
import numpy as np

import files
import input_pipeline
from configs import schema
from distributed import devices, hosts, watchdog
from distributed.preemption import EXIT_CODE, Preemption
from errors import UserError
from training import checks, curves, experiment, linear_probe, records, transfer, workdir
from training.checkpoints import Checkpoints
from training.evaluation import Evaluator
from training.loop import Loop
from training.meter import Window
from training.profiling import Profile
from training.progress import Progress, python_as_typed, summary
from training.runner import Runner
from training.state import TrainState, sha256


def train(config, folder, resume: str = 'auto', extend: bool = False, say=print) -> int:
    """Trains in `folder`, going on from its newest sound checkpoint if it has one.

    Args:
      config: a validated configuration.
      folder: the workdir.
      resume: 'auto' goes on if there is something to go on from, 'must' refuses if there is not,
        'never' refuses if there is.
      extend: allows a configuration with more steps than the stored one.
      say: prints a line for the user.

    Returns:
      The exit code: 0 when done, 75 when preempted after saving.

    Raises:
      UserError: anything the user can mend.
    """
    checks.check(config)
    all_devices = devices.start(config)
    if not hosts.is_first():
        say = _silent
    hosts.check_same(shared_settings(config), 'configurations')
    checks.check_devices(config, len(all_devices))
    with Preemption() as preemption, contextlib.ExitStack() as held, watchdog.reporting_errors():
        run = _Run(config, Path(folder), all_devices, say, held)
        return run.go(resume, extend, preemption)


def shared_settings(config) -> str:
    """Returns the part of the configuration that has to be the same on all processes, as text."""
    own = ('distributed', 'distributed_timeout', 'compilation_cache')
    own += ('data.dir', 'data.threads', 'data.workers', 'data.prefetch')
    values = {k: v for k, v in schema.flatten(config).items() if k not in own}
    return json.dumps(values, sort_keys=True)


def _silent(text: str) -> None:
    """Says nothing: only process 0 speaks."""


@dataclasses.dataclass
class _Run:
    """The pieces of one call of `train`."""

    config: object
    folder: Path
    devices: list
    say: object
    held: contextlib.ExitStack

    def go(self, resume: str, extend: bool, preemption: Preemption) -> int:
        """Trains to the end or until preempted; returns the exit code."""
        splits = hosts.on_each(self._open_splits)
        self.spec = self.experiment.spec()
        old_steps = hosts.on_first(lambda: self._check_folder(resume, extend))
        self.source = hosts.on_first(lambda: transfer.open_source(self.config, self.folder))
        self.runner = Runner(self.spec, self.config.runner, self.devices)
        checkpoints = hosts.on_first(self._open_checkpoints)
        with checkpoints or contextlib.nullcontext():
            step, state = self._start_state(checkpoints)
            hosts.on_first(lambda: self._store_config(step, old_steps))
            if self._is_finished(step, state):
                return 0
            placed, step, reason = self._train(checkpoints, splits, step, state, preemption)
        if reason and step < self.experiment.steps:
            self.say(self._how_to_go_on(reason, step))
            return EXIT_CODE
        self._finish(placed)
        return 0

    def _open_splits(self) -> tuple:
        self.experiment, train_split = experiment.open_train(self.config)
        input_pipeline.check_test_split(self.config)
        return train_split, input_pipeline.open_split(self.config, 'validation')

    def _train(self, checkpoints, splits, step: int, state: TrainState, preemption: Preemption):
        """Trains; returns what `Loop.run` does."""
        exp, first = self.experiment, hosts.is_first()
        self.say(_opening(exp, self.devices, step, self.source))
        self.records = hosts.on_first(lambda: records.Records(self.folder, step or None))
        self.records = self.records or records.Records(self.folder, enabled=False)
        progress = Progress(exp.steps, exp.steps_per_epoch, enabled=first)
        window = hosts.on_first(lambda: Window(**checkpoints.window(step)))
        with self.records, progress:
            if self.config.linear_probe:
                splits = hosts.on_each(lambda: self._features(splits, state))
            profile = Profile(self.folder, self.config.profile.steps, progress.message)
            reports = (self.records, progress, checkpoints)
            self.loop = Loop(exp, self.runner, *splits, *reports, window, profile)
            placed = self.runner.replicate(state)
            if step:
                self.loop.catch_up(placed, step)
            hyper = self.runner.replicate(experiment.hyperparameters(self.config))
            return self.loop.run(placed, step, hyper, preemption)

    def _features(self, splits, state: TrainState) -> list[linear_probe.Features]:
        variables = {'params': state.params, 'batch_stats': state.batch_stats}
        fixed = (self.config, self.spec, variables)
        found = [linear_probe.compute(*fixed, split, self.runner.local) for split in splits]
        for split, features in zip(splits, found, strict=True):
            if features.bad:
                self.say(f'{features.bad} {split.split} record(s) did not decode and are left out')
        return found

    def _check_folder(self, resume: str, extend: bool) -> int | None:
        """Refuses what may not go on there; returns the steps before an extension, else None."""
        workdir.check_own(self.folder)
        has_run = (self.folder / workdir.CONFIG).exists()
        if resume == 'must' and not has_run:
            raise UserError(f'--resume=must, but {self.folder} holds no run to go on with.')
        if resume == 'never' and has_run:
            raise UserError(
                f'--resume=never, but {self.folder} holds a run. Choose another --workdir.'
            )
        workdir.check_writable(self.folder)
        self.held.enter_context(workdir.lock(self.folder))
        if not workdir.compare(self.folder, self.config, extend):
            return None
        stored = workdir.load_config(self.folder)
        old, new = (
            experiment.total_steps(stored, self.experiment.train_examples),
            self.experiment.steps,
        )
        if old > new:
            raise UserError(
                f'--extend makes a run longer, but {self.folder} was to have {old} steps and '
                f'the configuration now says {new}.'
            )
        return old if old < new else None

    def _open_checkpoints(self) -> Checkpoints:
        settings = self.config.checkpoint
        checkpoints = Checkpoints(self.folder, settings.keep, settings.best, warn=self.say)
        self.held.enter_context(watchdog.finishing(checkpoints.wait))
        return checkpoints

    def _start_state(self, checkpoints: Checkpoints | None) -> tuple[int, TrainState]:
        """The restored state, the same on every process, or the initial one."""
        template = self.experiment.abstract_state(self.spec)
        found = hosts.on_first(lambda: checkpoints.restore_latest(template))
        step = int(hosts.broadcast(np.int32(found[0] if found else 0)))
        if not step:
            return 0, self._first_state(template)
        if step > self.experiment.steps:
            raise UserError(
                f'{self.folder} has a checkpoint of step {step}, but the run ends at step '
                f'{self.experiment.steps}.'
            )
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
        return step, hosts.broadcast(found[1] if found else blank)

    def _first_state(self, template: TrainState) -> TrainState:
        """The initial state; process 0 puts the weights in that the run starts from."""
        if not self.config.init_from:
            return self.experiment.initial_state(self.spec)
        source, model = self.source, self.config.model.name
        hosts.on_first(lambda: transfer.check_fits(source, template, model))
        state = self.experiment.initial_state(self.spec)
        return hosts.broadcast(transfer.applied(source, state) if source else state)

    def _store_config(self, step: int, old_steps: int | None) -> None:
        if old_steps is not None:
            new_steps = self.experiment.steps
            workdir.record_extension(self.folder, step, old_steps, new_steps)
            text = f'extended from {old_steps} to {new_steps} steps at step {step}'
            if self.config.schedule.name == 'cosine':
                text += (
                    '; the cosine schedule now stretches over the longer run, so the learning rate '
                    'differs from a run of that length from the start'
                )
            self.say(text)
        if self.source:
            transfer.record(self.folder, self.source)
        workdir.store(self.folder, self.config)

    def _is_finished(self, step: int, state: TrainState) -> bool:
        """Whether there is nothing left to do; then says the result once more."""

        def look() -> bool:
            result = self._earlier_result()
            finished = step == self.experiment.steps == result.get('steps') and result.get(
                'params_sha256'
            ) == sha256(state.params)
            if finished:
                self.say(f'The run in {self.folder} is finished; there is nothing left to train.')
                self._say_result(result)
            return finished

        return bool(hosts.broadcast(np.int32(hosts.on_first(look) or 0)))

    def _how_to_go_on(self, reason: str, step: int) -> str:
        command = (
            f'{shlex.quote(python_as_typed())} train.py --workdir={shlex.quote(str(self.folder))}'
        )
        address, _, place = self.config.distributed.partition(',')
        if place:
            processes = place.partition(',')[0]
            command += f' --config.distributed={address},{processes},INDEX   (one for each INDEX)'
        return (
            f'{reason}: stopped after step {step} of {self.experiment.steps} and saved. To go on:\n'
            f'  {command}'
        )

    def _finish(self, state) -> None:
        """Reads the test split, for the first and only time, and writes result.json."""
        test_split = hosts.on_each(lambda: input_pipeline.open_split(self.config, 'test'))
        sums = Evaluator(self.experiment, self.runner, test_split)(state.variables())
        if sums.get('bad'):
            self.say(f'{int(sums["bad"])} test record(s) did not decode and were not counted')
        hosts.on_first(lambda: self._write_result(state, sums))

    def _write_result(self, state, sums) -> None:
        exp, config = self.experiment, self.config
        means = self.spec.task.summarise(sums)
        cost = self.runner.cost()
        peak_memory, peak_memory_of = devices.peak_memory(self.runner.local)
        result = {
            'config': schema.plain(config),
            'seed': config.seed,
            'steps': exp.steps,
            'epochs': exp.steps / exp.steps_per_epoch,
            'test_accuracy': means['accuracy'],
            'test_loss': means['loss'],
            'test_correct': int(sums['correct']),
            'test_examples': int(sums['count']),
            'test_bad_records': int(sums.get('bad', 0)),
            'params_sha256': sha256(self.runner.fetch(state.params)),
            'init_from_sha256': transfer.recorded_sha256(self.folder),
            'parameters': sum(x.size for x in jax.tree.leaves(state.params)),
            'wall_seconds': self.records.wall_seconds,
            # 0.0 where this part of a resumed run had no or one call left to do.
            'examples_per_second': self.loop.examples_per_second,
            # XLA's figures for one update, all devices together; null where it had none to do.
            'step_flops': cost['flops'],
            'step_bytes': cost['bytes'],
            'model_flops_per_image': self.loop.model_flops_per_image,
            'peak_memory_bytes': peak_memory,
            'peak_memory_of': peak_memory_of,
            'device': devices.describe(self.devices),
            'devices': len(self.devices),
            'processes': jax.process_count(),
            'extensions': workdir.extensions(self.folder),
            'versions': versions(),
        }
        files.write_json(self.folder / workdir.RESULT, result)
        self._say_result(result)

    def _say_result(self, result: dict) -> None:
        curves.plot_curves(self.folder, self.experiment.steps_per_epoch)
        self.say(
            summary(
                workdir=self.folder,
                test_correct=result['test_correct'],
                test_examples=result['test_examples'],
                wall_seconds=result['wall_seconds'],
                device=result['device'],
            )
        )

    def _earlier_result(self) -> dict:
        try:
            return json.loads((self.folder / workdir.RESULT).read_text())
        except (OSError, ValueError):
            return {}


def _opening(
    exp: experiment.Experiment, all_devices: list, step: int, source: transfer.Source | None
) -> str:
    config = exp.config
    height, width, channels = exp.image_shape
    epochs = round(exp.steps / exp.steps_per_epoch, 1)
    how_many = f'{len(all_devices)} device' + ('s' if len(all_devices) > 1 else '')
    lines = [
        f'{config.model.name} on {config.data.name}: {exp.train_examples:,} training images of '
        f'{height}x{width}x{channels}, {len(exp.class_names)} classes',
        f'{exp.steps:,} steps of {config.batch_size} images ({epochs:g} epochs) on {how_many}: '
        f'{devices.describe(all_devices)}',
    ]
    if source:
        lines.append(f'weights from {source}; the head is new')
    if step:
        lines.append(f'going on from the checkpoint of step {step}')
    return '\n'.join(lines)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that decide the numbers."""
    names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets')
    found = {name: importlib.metadata.version(name) for name in names}
    return {'python': platform.python_version(), **found}
