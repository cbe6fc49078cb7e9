"""A whole training run in a folder: start or resume, train, test once, write the result."""

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import input_pipeline
from configs import schema
from distributed import devices, hosts, watchdog
from distributed.preemption import EXIT_CODE, Preemption
from tasks import registry
from training import checks, experiment, linear_probe, outcome, records, start, transfer
from training.checkpoints import Checkpoints
from training.evaluation import Evaluator
from training.loop import Loop
from training.meter import Window
from training.profiling import Profile
from training.progress import Progress, python_as_typed
from training.state import TrainState


def train(
    config: Any,
    folder: str | Path,
    resume: str = 'auto',
    extend: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Trains in `folder`, from its newest sound checkpoint if it has one.

    Args:
      config: a validated configuration.
      folder: the workdir.
      resume: 'auto' resumes a run if there is one, 'must' refuses to start a new one, 'never'
        refuses to resume one.
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
    # Signals are caught before anything is written, so that none of it is left half done.
    with Preemption() as preemption, contextlib.ExitStack() as stack, watchdog.reporting_errors():
        run, *splits = hosts.on_each(lambda: start.opened(config, Path(folder), all_devices, say))
        old_steps = hosts.on_first(lambda: start.check_folder(run, resume, extend, stack))
        # The source of weights is read while the run has no checkpoint, and never again.
        source = hosts.on_first(lambda: transfer.open_source(config, run.folder))
        run = dataclasses.replace(run, source=source)
        return _train(run, splits, old_steps, preemption, stack)


def shared_settings(config: Any) -> str:
    """Returns the part of the configuration that has to be the same on all processes, as text."""
    own = ('distributed', 'distributed_timeout', 'compilation_cache')
    own += ('data.dir', 'data.threads', 'data.workers', 'data.prefetch')
    values = {k: v for k, v in schema.flatten(config).items() if k not in own}
    return json.dumps(values, sort_keys=True)


def _silent(text: str) -> None:
    """Prints nothing: only process 0 speaks."""


def _train(
    run: start.Run,
    splits: Sequence[Any],
    old_steps: int | None,
    preemption: Preemption,
    stack: contextlib.ExitStack,
) -> int:
    """Trains to the end or until preempted; returns the exit code."""
    checkpoints = hosts.on_first(lambda: _open_checkpoints(run, stack))
    with checkpoints or contextlib.nullcontext():
        step, state = start.state_of(run, checkpoints)
        # Only now: a run whose start is refused leaves no configuration behind.
        hosts.on_first(lambda: start.store_config(run, step, old_steps))
        if outcome.is_finished(run, step, state):
            return 0
        run.say(_opening(run, step))
        reached = _train_from(run, splits, step, state, checkpoints, preemption)
    if reached.reason and reached.step < run.experiment.steps:
        run.say(_how_to_resume(run, reached.reason, reached.step))
        return EXIT_CODE
    _test(run, reached)
    return 0


def _open_checkpoints(run: start.Run, stack: contextlib.ExitStack) -> Checkpoints:
    best, keep = registry.best_metric(run.config), run.config.checkpoint.keep
    checkpoints = Checkpoints(run.folder, best, keep, warn=run.say)
    # Should another process be lost, the save under way is finished before this one ends.
    stack.enter_context(watchdog.finishing(checkpoints.wait))
    return checkpoints


def _train_from(
    run: start.Run,
    splits: Sequence[Any],
    step: int,
    state: TrainState,
    checkpoints: Checkpoints | None,
    preemption: Preemption,
) -> outcome.Reached:
    """Trains from a state after `step` updates to the end, or until preempted."""
    exp, first = run.experiment, hosts.is_first()
    log = hosts.on_first(lambda: records.Records(run.folder, step or None))
    log = log or records.Records(run.folder, enabled=False)
    progress = Progress(exp.steps, exp.steps_per_epoch, metrics=run.task.metrics, enabled=first)
    window = hosts.on_first(lambda: Window(checkpoints.window(step)))
    with log, progress:
        if run.config.linear_probe:
            splits = hosts.on_each(lambda: _features(run, splits, state))
        profile = Profile(run.folder, run.config.profile.steps, progress.message)
        loop = Loop(exp, run.runner, *splits, log, progress, checkpoints, window, profile)
        placed = run.runner.replicate(state)
        if step:
            loop.catch_up(placed, step)
        hyper = run.runner.replicate(experiment.hyperparameters(run.config))
        placed, step, reason = loop.run(placed, step, hyper, preemption)
        return outcome.Reached(placed, step, reason, log.wall_seconds, loop)


def _features(
    run: start.Run, splits: Sequence[Any], state: TrainState
) -> list[linear_probe.Features]:
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    fixed = (run.config, run.runner.spec, variables)
    features = [linear_probe.compute(*fixed, split, run.runner.local) for split in splits]
    for split, computed in zip(splits, features, strict=True):
        if computed.bad:
            run.say(f'{computed.bad} {split.split} record(s) did not decode and are left out')
    return features


def _test(run: start.Run, reached: outcome.Reached) -> None:
    """Reads the test split, for the first and only time, and writes result.json."""
    test_split = hosts.on_each(lambda: input_pipeline.open_split(run.config, 'test'))
    evaluation = Evaluator(run.experiment, run.runner, test_split)(reached.state.variables())
    if evaluation.bad_records:
        run.say(f'{evaluation.bad_records} test record(s) did not decode and were not counted')
    hosts.on_first(lambda: outcome.write(run, reached, evaluation))


def _opening(run: start.Run, step: int) -> str:
    exp, config, all_devices = run.experiment, run.config, run.runner.devices
    height, width, channels = exp.image_shape
    epochs = round(exp.steps / exp.steps_per_epoch, 1)
    how_many = f'{len(all_devices)} device' + ('s' if len(all_devices) > 1 else '')
    classes = f', {len(exp.class_names)} classes' if exp.class_names else ''
    lines = [
        f'{config.model.name} on {config.data.name}: {exp.train_examples:,} training images of '
        f'{height}x{width}x{channels}{classes}',
        f'{exp.steps:,} steps of {config.batch_size} images ({epochs:g} epochs) on {how_many}: '
        f'{devices.describe(all_devices)}',
    ]
    if run.source:
        lines.append(f'weights from {run.source}; the head is new')
    if step:
        lines.append(f'resuming from the checkpoint of step {step}')
    return '\n'.join(lines)


def _how_to_resume(run: start.Run, reason: str, step: int) -> str:
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
