"""A whole training run in a folder: start or go on, train, test once, write the result."""

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path

import jax
import numpy as np

import input_pipeline
from configs import schema
from errors import UserError
from training import devices, experiment, hosts, records, workdir
from training.checkpoints import Checkpoints
from training.loop import Evaluator, Loop
from training.preemption import EXIT_CODE, Preemption
from training.progress import Progress, summary
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
    experiment.check(config)
    all_devices = devices.start(config)
    if not hosts.is_first():
        say = _silent
    experiment.check_devices(config, len(all_devices))
    with Preemption() as preemption:
        return _Run(config, Path(folder), all_devices, say).go(resume, extend, preemption)


def _silent(text: str) -> None:
    """Says nothing: only process 0 speaks."""


@dataclasses.dataclass
class _Run:
    """The pieces of one call of `train`."""

    config: object
    folder: Path
    devices: list
    say: object

    def go(self, resume: str, extend: bool, preemption: Preemption) -> int:
        """Trains to the end or until preempted; returns the exit code."""
        self.experiment, train_split = experiment.open_train(self.config)
        validation_split = input_pipeline.open_split(self.config, 'validation')
        length_change = hosts.on_first(lambda: self._check_folder(resume, extend))
        self.spec = self.experiment.spec()
        self.runner = Runner(self.spec, self.config.runner, self.devices)
        checkpoints = hosts.on_first(self._open_checkpoints)
        step, state = self._start_state(checkpoints)
        hosts.on_first(lambda: self._store_config(step, length_change))
        exp = self.experiment
        self.say(_opening(exp, self.devices, step))
        first = hosts.is_first()
        with (
            records.Records(self.folder, step or None, enabled=first) as self.records,
            Progress(exp.steps, exp.steps_per_epoch, enabled=first) as progress,
        ):
            loop = Loop(
                exp, self.runner, train_split, validation_split, self.records, progress, checkpoints
            )
            placed = self.runner.replicate(state)
            if step and loop.due.evaluates(step):
                loop.evaluate(placed, step)  # a preempted run may have had no time for it
            hyper = self.runner.replicate(experiment.hyperparameters(self.config))
            placed, step, reason = loop.run(placed, step, hyper, preemption)
            if checkpoints is not None:
                checkpoints.close()
        if reason and step < exp.steps:
            self.say(self._how_to_go_on(reason, step))
            return EXIT_CODE
        self._finish(placed, loop.examples_per_second)
        return 0

    def _check_folder(self, resume: str, extend: bool) -> dict:
        workdir.check_writable(self.folder)
        has_run = (self.folder / workdir.CONFIG).exists()
        if resume == 'must' and not has_run:
            raise UserError(f'--resume=must, but {self.folder} holds no run to go on with.')
        if resume == 'never' and has_run:
            raise UserError(
                f'--resume=never, but {self.folder} holds a run. Choose another --workdir.'
            )
        change = workdir.compare(self.folder, self.config, extend)
        if change:
            stored = workdir.load_config(self.folder)
            old = experiment.total_steps(stored, self.experiment.train_examples)
            if old > self.experiment.steps:
                raise UserError(
                    f'--extend makes a run longer, but {self.folder} was to have {old} steps and '
                    f'the configuration now says {self.experiment.steps}.'
                )
            return {'old': old}
        return change

    def _open_checkpoints(self) -> Checkpoints:
        settings = self.config.checkpoint
        return Checkpoints(self.folder, settings.keep, settings.best, warn=self.say)

    def _start_state(self, checkpoints: Checkpoints | None) -> tuple[int, TrainState]:
        """The restored state, the same on every process, or the initial one."""
        template = self.experiment.abstract_state(self.spec)
        found = hosts.on_first(lambda: checkpoints.restore_latest(template))
        step = int(hosts.broadcast(np.int32(found[0] if found else 0)))
        if not step:
            return 0, self.experiment.initial_state(self.spec)
        if step > self.experiment.steps:
            raise UserError(
                f'{self.folder} has a checkpoint of step {step}, but the run ends at step '
                f'{self.experiment.steps}.'
            )
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
        return step, hosts.broadcast(found[1] if found else blank)

    def _store_config(self, step: int, length_change: dict) -> None:
        if length_change:
            old, new = length_change['old'], self.experiment.steps
            workdir.record_extension(self.folder, step, old, new)
            text = f'extended from {old} to {new} steps at step {step}'
            if self.config.schedule.name == 'cosine':
                text += (
                    '; the cosine schedule now stretches over the longer run, so the learning rate '
                    'differs from a run of that length from the start'
                )
            self.say(text)
        workdir.store(self.folder, self.config)

    def _how_to_go_on(self, reason: str, step: int) -> str:
        return (
            f'{reason}: stopped after step {step} of {self.experiment.steps} and saved. To go on:\n'
            f'  python train.py --workdir={self.folder}'
        )

    def _finish(self, state, examples_per_second: float) -> None:
        """Reads the test split, for the first and only time, and writes result.json."""
        test_split = input_pipeline.open_split(self.config, 'test')
        sums = Evaluator(self.experiment, self.runner, test_split)(state.variables())
        hosts.on_first(lambda: self._write_result(state, sums, examples_per_second))

    def _write_result(self, state, sums, examples_per_second: float) -> None:
        exp, config = self.experiment, self.config
        means = self.spec.task.summarise(sums)
        earlier = _earlier_result(self.folder)
        device = devices.describe(self.devices)
        result = {
            'config': schema.plain(config),
            'seed': config.seed,
            'steps': exp.steps,
            'epochs': exp.steps / exp.steps_per_epoch,
            'test_accuracy': means['accuracy'],
            'test_loss': means['loss'],
            'test_correct': int(sums['correct']),
            'test_examples': int(sums['count']),
            'params_sha256': sha256(self.runner.fetch(state.params)),
            'parameters': sum(x.size for x in jax.tree.leaves(state.params)),
            'wall_seconds': self.records.wall_seconds,
            # A run that was found finished has trained nothing this time.
            'examples_per_second': examples_per_second or earlier.get('examples_per_second', 0.0),
            'device': device,
            'devices': len(self.devices),
            'processes': jax.process_count(),
            'extensions': workdir.extensions(self.folder),
            'versions': versions(),
        }
        records.write_json_atomically(self.folder / workdir.RESULT, result)
        records.plot_curves(self.folder, exp.steps_per_epoch)
        self.say(
            summary(
                workdir=self.folder,
                test_correct=result['test_correct'],
                test_examples=result['test_examples'],
                wall_seconds=result['wall_seconds'],
                device=device,
            )
        )


def _earlier_result(folder: Path) -> dict:
    path = folder / workdir.RESULT
    return json.loads(path.read_text()) if path.exists() else {}


def _opening(exp: experiment.Experiment, all_devices: list, step: int) -> str:
    config = exp.config
    height, width, channels = exp.image_shape
    how_many = f'{len(all_devices)} device' + ('s' if len(all_devices) > 1 else '')
    lines = [
        f'{config.model.name} on {config.data.name}: {exp.train_examples:,} training images of '
        f'{height}x{width}x{channels}, {len(exp.class_names)} classes',
        f'{exp.steps:,} steps of {config.batch_size} images ({exp.steps / exp.steps_per_epoch:.3g} '
        f'epochs) on {how_many}: {devices.describe(all_devices)}',
    ]
    if step:
        lines.append(f'going on from the checkpoint of step {step}')
    return '\n'.join(lines)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that decide the numbers."""
    names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets')
    found = {name: importlib.metadata.version(name) for name in names}
    return {'python': platform.python_version(), **found}
