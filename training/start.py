"""The start of a run: checks of its folder, and the state that it starts or resumes from."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

import input_pipeline
from distributed import hosts
from errors import UserError
from printing import Output
from tasks.task import Task
from training import checks, experiment, facts, transfer, workdir
from training.checkpoints import FOLDER, Checkpoints, check_not_removed
from training.experiment import Experiment, Split
from training.records import TENSORBOARD_FOLDER, read_metrics
from training.runner import Runner
from training.state import TrainState

# What a run may create in its folder before its first step.
OWN = (
    workdir.LOCK,
    workdir.CONFIG,
    workdir.EXTENSIONS,
    transfer.RECORD,
    TENSORBOARD_FOLDER,
    *workdir.OWN,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """An open run: the things that do not change from its start to its end.

    Attributes:
      experiment: what is trained, with its configuration.
      folder: the workdir.
      runner: the step over the devices.
      say: prints a line for the user.
      source: the weights that it starts from, on process 0; None for new weights.
      printed: standard output, which knows whether something was lost.
      claim: on its folder; kept from the first step on.
    """

    experiment: Experiment
    folder: Path
    runner: Runner
    say: Callable[[str], None]
    source: transfer.WeightSource | None = None
    printed: Output | None = None
    claim: workdir.Claim | None = None

    @property
    def config(self) -> ConfigDict:
        """The checked configuration."""
        return self.experiment.config

    @property
    def task(self) -> Task:
        """The task that is learned."""
        return self.runner.spec.task


def opened(
    config: ConfigDict,
    folder: Path,
    all_devices: Sequence[jax.Device],
    say: Callable[[str], None],
) -> tuple[Run, Split, Split]:
    """Opens the data; returns (the run, its training split, its validation split).

    Raises:
      UserError: the data set is missing or damaged, or does not fit the configuration.
    """
    exp, train_split = experiment.open_train(config)
    # A missing test split would otherwise be noticed after hours of training.
    input_pipeline.check_test_split(config)
    validation_split = input_pipeline.open_split(config, 'validation')
    runner = Runner(exp.spec(), config.runner, all_devices)
    run = Run(exp, folder, runner, say, claim=workdir.Claim(folder, OWN))
    return run, train_split, validation_split


def check_folder(run: Run, resume: str, extend: bool, stack: contextlib.ExitStack) -> int | None:
    """Locks the folder of a run; returns the steps before an extension, or None without one.

    Args:
      run: the run to be trained there.
      resume: 'auto', 'must' or 'never'; see run.train.
      extend: whether the run may become longer.
      stack: keeps the lock until the run ends.

    Raises:
      UserError: this run may not be started or resumed there. Nothing in the folder was changed.
    """
    workdir.check_own(run.folder)
    has_run = (run.folder / workdir.CONFIG).exists()
    if resume == 'must' and not has_run:
        raise UserError(
            f'--resume=must, but {run.folder} holds no run to resume. Choose another --workdir, or '
            'leave --resume out to start one.'
        )
    if resume == 'never' and has_run:
        raise UserError(f'--resume=never, but {run.folder} holds a run. Choose another --workdir.')
    stack.push(run.claim.leave_folders)
    workdir.check_writable(run.folder)
    # The stored configuration is read under the lock: another run could be writing it.
    stack.enter_context(workdir.lock(run.folder))
    run.claim.locked()
    stack.push(run.claim.leave)
    longer = workdir.compare(run.folder, run.config, extend)
    facts.check(run.folder, run.experiment)
    if has_run:
        has_records = (run.folder / workdir.RESULT).exists() or bool(read_metrics(run.folder))
        check_not_removed(run.folder, run.folder / FOLDER, has_records)
    if not longer:
        return None
    stored = workdir.load_config(run.folder)
    old = experiment.total_steps(stored, run.experiment.train_examples)
    new = run.experiment.steps
    if old > new:
        raise UserError(
            f'--extend makes a run longer, but {run.folder} was to have {old} steps and the '
            f'configuration now says {new}. Choose at least as many, or another --workdir.'
        )
    return old if old < new else None


def state_of(run: Run, checkpoints: Checkpoints | None) -> tuple[int, TrainState]:
    """Returns (step, state): the restored state, or the one before the first update.

    It is the same on every process.

    Args:
      run: the run.
      checkpoints: the checkpoints of its folder, on process 0.

    Raises:
      UserError: no checkpoint is sound, or the newest is beyond the end of the run.
    """
    exp = run.experiment
    template = exp.abstract_state(run.runner.spec)
    checks.check_memory(run.config, exp.image_shape, template, run.runner.devices)
    restored = hosts.on_first(lambda: checkpoints.restore_latest(template))
    step = int(hosts.broadcast(np.int32(restored[0] if restored else 0)))
    if not step:
        return 0, _first_state(run, template)
    if step > run.experiment.steps:
        raise UserError(
            f'{run.folder} has a checkpoint of step {step}, but the run ends at step '
            f'{run.experiment.steps}. Choose another --workdir.'
        )
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
    return step, hosts.broadcast(restored[1] if restored else blank)


def _first_state(run: Run, template: TrainState) -> TrainState:
    """Returns the state before the first update, with the weights of config.init_from if given."""
    if not run.config.init_from:
        return run.experiment.initial_state(run.runner.spec)
    # Process 0 alone has read the source. The others receive its state.
    source, model = run.source, run.config.model.name
    convolutional = run.runner.spec.model.headless().convolutional
    hosts.on_first(lambda: transfer.check_fits(source, template, model, convolutional))
    state = run.experiment.initial_state(run.runner.spec)
    return hosts.broadcast(transfer.applied(source, state) if source else state)


def store_config(
    run: Run, step: int, old_steps: int | None, checkpoints: Checkpoints | None
) -> None:
    """Writes config.json and what lies beside it; records an extension and the source of weights.

    config.json comes last of these: until it is written, the next start sees the old length and
    records the extension again. Only data.json comes after it, because a folder without config.json
    holds no run, and a data.json in it is somebody else's; so does history.json.
    """
    if old_steps is not None:
        new_steps = run.experiment.steps
        workdir.record_extension(run.folder, step, old_steps, new_steps)
        text = f'extended from {old_steps} to {new_steps} steps at step {step}'
        if run.config.schedule.name == 'cosine':
            text += (
                '; the cosine schedule now spans the longer run, so the learning rate before the '
                'extension differs from that of a run of this length'
            )
        run.say(text)
    if run.source:
        transfer.record(run.folder, run.source)
    workdir.store(run.folder, run.config)
    facts.store(run.folder, run.experiment)
    checkpoints.keep_history()
