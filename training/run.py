"""A whole training run in a folder: start or resume, train, test once, write the result.

The order of `train` matters: the configuration is checked first, then the devices start, then the
data are opened, and only then is the folder touched. Whatever is wrong is found as early as it can
be, and a refused start changes nothing in the folder.
"""

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

import input_pipeline
import printing
from configs import schema
from distributed import devices, hosts, watchdog
from distributed.preemption import EXIT_CODE, Preemption
from tasks import registry
from training import checks, experiment, linear_probe, outcome, records, start, transfer
from training.checkpoints import Checkpoints
from training.evaluation import Evaluator
from training.experiment import Split
from training.loop import Loop
from training.meter import Window
from training.profiling import Profile
from training.progress import Progress, python_as_typed
from training.state import TrainState


def train(
    config: ConfigDict,
    folder: str | Path,
    resume: str = 'auto',
    extend: bool = False,
    say: Callable[[str], None] = print,
    preemption: Preemption | None = None,
) -> int:
    """Trains in `folder`, from its newest sound checkpoint if it has one.

    Args:
      config: a validated configuration.
      folder: the workdir.
      resume: 'auto' resumes a run if there is one, 'must' refuses to start a new one, 'never'
        refuses to resume one.
      extend: allows a configuration with more steps than the stored one.
      say: prints a line for the user.
      preemption: catches signals already; None: they are caught from now on.

    Returns:
      The exit code: 0 when done, 75 when preempted after saving.

    Raises:
      UserError: something that the user can correct.
    """
    checks.check(config)
    with contextlib.ExitStack() as stack:
        printed = stack.enter_context(printing.lasting())
        # Signals are caught before anything is written, so that nothing is left half done.
        preemption = preemption or stack.enter_context(Preemption())
        all_devices = devices.start(config)
        preemption.connected()
        if not hosts.is_first():
            say = _silent
        # Compared before any other exchange: processes with different configurations would wait
        # for each other at different places.
        hosts.check_same(shared_settings(config), 'configurations')
        checks.check_devices(config, len(all_devices))
        stack.enter_context(watchdog.reporting_errors())
        run, *splits = hosts.on_each(lambda: start.opened(config, Path(folder), all_devices, say))
        # The folder is locked before its checkpoints are looked at: no other run may write to it
        # between the two.
        old_steps = hosts.on_first(lambda: start.check_folder(run, resume, extend, stack))
        # The source of weights is read only while the run has no checkpoint.
        source = hosts.on_first(lambda: transfer.open_source(config, run.folder))
        run = dataclasses.replace(run, source=source, printed=printed)
        return _train(run, splits, old_steps, preemption, stack)


def shared_settings(config: ConfigDict) -> str:
    """Returns the fields that have to be the same on all processes, as text."""
    own = ('distributed', 'distributed_timeout', 'compilation_cache')
    own += ('data.dir', 'data.threads', 'data.workers', 'data.prefetch')
    values = {k: v for k, v in schema.flatten(config).items() if k not in own}
    return json.dumps(values, sort_keys=True)


def _silent(text: str) -> None:
    """Prints nothing; only process 0 prints."""


def _train(
    run: start.Run,
    splits: Sequence[Split],
    old_steps: int | None,
    preemption: Preemption,
    stack: contextlib.ExitStack,
) -> int:
    """Trains to the end or until preempted; returns the exit code."""
    checkpoints = hosts.on_first(lambda: _open_checkpoints(run, stack))
    with checkpoints or contextlib.nullcontext():
        step, state = start.state_of(run, checkpoints)
        # Stored only now, so that a run whose start is refused leaves no configuration behind; but
        # before the first record and checkpoint, which are of no use without it.
        hosts.on_first(lambda: start.store_config(run, step, old_steps, checkpoints))
        if outcome.is_finished(run, step, state):
            return 0
        run.say(_opening(run, step))
        reached = _train_from(run, splits, step, state, checkpoints, preemption)
    # A run that was stopped at its last step has nothing left but the test, so it does that.
    if reached.reason and reached.step < run.experiment.steps:
        run.say(_how_to_resume(run, reached.reason, reached.step))
        return EXIT_CODE
    _test(run, reached)
    return 0


def _open_checkpoints(run: start.Run, stack: contextlib.ExitStack) -> Checkpoints:
    best, keep = registry.best_metric(run.config), run.config.checkpoint.keep
    checkpoints = Checkpoints(run.folder, best, keep, warn=run.say)
    # If another process is lost, the save under way is finished before this one ends.
    stack.enter_context(watchdog.finishing(checkpoints.wait))
    return checkpoints


def _train_from(
    run: start.Run,
    splits: Sequence[Split],
    step: int,
    state: TrainState,
    checkpoints: Checkpoints | None,
    preemption: Preemption,
) -> outcome.Reached:
    """Trains from a state after `step` updates to the end, or until preempted."""
    exp, first = run.experiment, hosts.is_first()
    # Read first: a damaged one stops the run, and records that are open would stay so.
    window = hosts.on_first(lambda: Window(checkpoints.window(step)))
    # Opening the records drops those beyond the restored step. The window has the sums since the
    # last one that is kept, so that the next record is that of a run that was never stopped.
    log = hosts.on_first(lambda: records.Records(run.folder, step or None))
    log = log or records.Records(run.folder, enabled=False)
    progress = Progress(exp.steps, exp.steps_per_epoch, metrics=run.task.metrics, enabled=first)
    with log, progress:
        if run.config.linear_probe:
            splits = hosts.on_each(lambda: _features(run, splits, state))
        profile = Profile(run.folder, run.config.profile.steps, progress.message)
        loop = Loop(exp, run.runner, *splits, log, progress, checkpoints, window, profile)
        placed = run.runner.replicate(state)
        # Before the first call, which takes the memory of the restored state.
        if step:
            loop.catch_up(placed, step)
        hyper = run.runner.replicate(experiment.hyperparameters(run.config))
        try:
            placed, step, reason = loop.run(placed, step, hyper, preemption)
        finally:
            if loop.began:
                run.claim.keep()
        return outcome.Reached(placed, step, reason, log.wall_seconds, loop)


def _features(
    run: start.Run, splits: Sequence[Split], state: TrainState
) -> list[linear_probe.Features]:
    """Returns the splits as features, which the frozen part of the network computes once."""
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    network = (run.config, run.runner.spec, variables)
    features = [linear_probe.compute(*network, split, run.runner.local) for split in splits]
    for split, computed in zip(splits, features, strict=True):
        if computed.bad:
            run.say(f'{computed.bad} {split.split} record(s) did not decode and are left out')
    return features


def _test(run: start.Run, reached: outcome.Reached) -> None:
    """Evaluates the test split, once and for the first time, and writes result.json."""
    # Opened only now: nothing before this line can depend on the test split.
    test_split = hosts.on_each(lambda: input_pipeline.open_split(run.config, 'test'))
    evaluation = Evaluator(run.experiment, run.runner, test_split)(reached.state.variables())
    if evaluation.bad_records:
        run.say(f'{evaluation.bad_records} test record(s) did not decode and were not counted')
    hosts.on_first(lambda: reached.loop.checkpoints.check_there())
    hosts.on_first(lambda: outcome.write(run, reached, evaluation))


def _opening(run: start.Run, step: int) -> str:
    """Returns the lines that a run prints before it trains."""
    exp, config, all_devices = run.experiment, run.config, run.runner.devices
    height, width, channels = exp.image_shape
    epochs = round(exp.steps / exp.steps_per_epoch, 1)
    count = f'{len(all_devices)} device' + ('s' if len(all_devices) > 1 else '')
    number = len(exp.class_names)
    classes = f', {number} class' + 'es' * (number > 1) if number else ''
    lines = [
        f'{config.model.name} on {config.data.name}: {exp.train_examples:,} training images of '
        f'{height}x{width}x{channels}{classes}',
        f'{exp.steps:,} steps of {config.batch_size} images ({epochs:g} epochs) on {count}: '
        f'{devices.describe(all_devices)}',
    ]
    lines += filter(None, (exp.note, exp.warning))
    if run.source:
        lines.append(f'weights from {run.source}; the head is new')
    if step:
        lines.append(f'resuming from the checkpoint of step {step}')
    return '\n'.join(lines)


def _how_to_resume(run: start.Run, reason: str, step: int) -> str:
    """Returns the last lines of a run that was stopped, with the command that resumes it."""
    folder = shlex.quote(str(run.folder))
    command = f'{shlex.quote(python_as_typed())} train.py --workdir={folder}'
    address, _, rest = run.config.distributed.partition(',')
    if rest:
        processes = rest.partition(',')[0]
        command += f' --config.distributed={address},{processes},INDEX   (one for each INDEX)'
    return (
        f'{reason}: stopped after step {step} of {run.experiment.steps} and saved. To resume:\n'
        f'  {command}'
    )
