"""Checkpoints by Orbax: asynchronous and atomic; the latest few and the best one are kept.

A checkpoint is a flat {path: array} of the state, written by process 0. Besides the files of Orbax
it has a manifest with the SHA-256 of each file, so that damage on the disk is noticed before a run
continues from it, and the sums of the training metrics that were not on record yet.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

import files
from errors import UserError
from tasks.task import Metric
from training.state import TrainState, named_leaves

FOLDER = 'checkpoints'
MANIFEST = 'manifest.json'
WINDOW = 'window.json'
DAMAGED_FOLDER = 'damaged_checkpoints'


class Checkpoints:
    """The checkpoints of one run; used on process 0 only, as a context manager.

    Args:
      workdir: the run's folder.
      best: the metric of the validation split that the best checkpoint is chosen by.
      keep: how many of the latest checkpoints to keep besides the best one.
      warn: called with a sentence if something is wrong but not fatal.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        best: Metric,
        keep: int = 2,
        warn: Callable[[str], None] = print,
    ):
        self.folder = Path(workdir).absolute() / FOLDER
        self._warn = warn
        self._best = best
        # Of the save under way, for the manifest, which Orbax's thread writes at its end.
        self._saving: int | None = None
        self._window: dict[str, Any] | None = None
        with files.explaining_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        files.check_no_pipes(self.folder, '**/*')  # Orbax reads some files at once
        self._manager = self._make_manager(keep)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *exc_info: object) -> None:
        # A caller that needs the save under way has called wait(). If the block was left by an
        # error, that error must not be replaced by one of closing.
        with contextlib.suppress(Exception):
            self._manager.close()

    def _make_manager(self, keep: int) -> ocp.CheckpointManager:
        _silence_orbax()
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=self._rank, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=self._rank,
            best_mode='max',
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=_this_process_only(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )  # fmt: skip
        # The arrays are copies already. Orbax would copy them once more while training waits.
        arrays = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
        registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, arrays))
        # One file per array: OCDBT's database costs more than it saves for small models.
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=False,
            multiprocessing_options=_this_process_only(),
            type_handler_registry=registry,
        )
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

    def _rank(self, metrics: Mapping[str, float]) -> float:
        """Returns a number that is higher for a better checkpoint, whatever the metric."""
        value = metrics[f'validation/{self._best.name}']
        return value if self._best.higher_is_better else -value

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending."""
        return steps_in(self.folder)

    def save(
        self,
        step: int,
        state: TrainState,
        metrics: dict[str, float] | None = None,
        window: dict[str, Any] | None = None,
    ) -> None:
        """Starts to write a checkpoint, directly from the arrays, without a copy.

        Args:
          step: number of updates done.
          state: host arrays; must not be modified until the save has finished (`wait`).
          metrics: validation metrics of this step, or None.
          window: sums of the training metrics since the last record; see `window`.

        Raises:
          UserError: this or the previous save failed; names the last good checkpoint.
        """
        # Saving an existing step would fail: Orbax returns False and writes nothing.
        if step in self.steps():
            return
        # One save at a time: the manifest is written for `_saving`.
        self.wait()
        self._saving, self._window = step, window
        if metrics is not None:
            metrics = {name: float(value) for name, value in metrics.items()}
        arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(state)}
        try:
            self.check_room(arrays)
            self._manager.save(step, args=ocp.args.PyTreeSave(arrays), metrics=metrics, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def check_room(self, arrays: dict[str, np.ndarray]) -> None:
        """Checks that the disk has room for the arrays.

        Orbax would notice only in one of its threads, after pages of tracebacks.

        Raises:
          OSError: it does not.
        """
        needed = sum(array.nbytes for array in arrays.values())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(f'No space left on device: {needed:,} bytes needed, {free:,} free')

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
          UserError: it failed.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> UserError:
        """Returns the error of the save under way, as a sentence for the user."""
        last = max(self.steps(), default=None)
        kept = f'The last good checkpoint is step {last}' if last is not None else 'There is none'
        # Orbax repeats the path three times before the reason that the system gives.
        reason = re.sub(r' ?"/[^"]*"', '', ' '.join(str(error).split()))[:300]
        return UserError(
            f'The checkpoint of step {self._saving} could not be written to {self.folder}: '
            f'{reason}. {kept}; make room or choose another --workdir, and start again.'
        )

    def _write_manifest(self) -> None:
        """Writes the window and the manifest into the checkpoint that is being finished.

        Runs in Orbax's thread when all arrays are written, but before the folder gets its final
        name. So a checkpoint without a manifest never counts as finished.
        """
        for folder in self.folder.glob(f'{self._saving}.*'):
            # The window comes first, because the manifest has its hash as well.
            if self._window:
                (folder / WINDOW).write_text(json.dumps(self._window))
            (folder / MANIFEST).write_text(json.dumps(_digests(folder), indent=1))

    def restore_latest(self, template: TrainState) -> tuple[int, TrainState] | None:
        """Returns (step, state) of the newest sound checkpoint, or None if there are none at all.

        Newer ones that are damaged are moved to damaged_checkpoints/, not deleted, with a warning
        that names them.

        Raises:
          UserError: there are checkpoints, but none is sound, or they are of another model.
        """
        problems = {}
        for step in reversed(self.steps()):
            state = self._try(step, template, problems)
            if state is not None:
                # Only now: while no sound checkpoint is known, none may be moved away.
                for damaged, problem in problems.items():
                    moved = self._set_aside(damaged)
                    self._warn(
                        f'warning: checkpoint {self.folder / str(damaged)} is damaged ({problem}); '
                        f'it was moved to {moved}, and the previous one is used.'
                    )
                return step, state
        # If none is sound, all stay where they are. Otherwise the next start would find no
        # checkpoints, begin anew and overwrite the run's records.
        if problems:
            listed = '; '.join(f'{step}: {problem}' for step, problem in problems.items())
            raise UserError(
                f'None of the checkpoints in {self.folder} is sound ({listed}). Choose another '
                '--workdir to start from the beginning.'
            )
        return None

    def _try(self, step: int, template: TrainState, problems: dict[int, str]) -> TrainState | None:
        """Returns the state of a checkpoint; None, and an entry in `problems`, if it is damaged."""
        folder = self.folder / str(step)
        problem = damage(folder)
        if problem is None:
            try:
                return read(folder, template)
            except UserError:
                raise
            except Exception as error:
                problem = ' '.join(str(error).split())[:200]
        problems[step] = problem
        return None

    def window(self, step: int) -> dict[str, Any]:
        """Returns the sums that were passed to `save` with this step; {} if there were none."""
        path = self.folder / str(step) / WINDOW
        return files.read_json(path) if path.exists() else {}

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Adds validation metrics to a checkpoint that a preempted run saved without them."""
        folder = self.folder / str(step) / 'metrics'
        if folder.exists():
            return
        # Renamed when complete, so that Orbax never reads half a file.
        temporary = folder.with_name('metrics.tmp')
        with files.explaining_errors(folder):
            temporary.mkdir(exist_ok=True)
            (temporary / 'metrics').write_text(json.dumps(metrics))
            temporary.rename(folder)
        self._manager.reload()

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint to the damaged ones; returns its new path."""
        folder = self.folder.parent / DAMAGED_FOLDER
        with files.explaining_errors(folder):
            folder.mkdir(exist_ok=True)
            number = 0
            while (target := folder / f'{step}.{number}').exists():
                number += 1
            shutil.move(self.folder / str(step), target)
        self._manager.reload()
        return target


def steps_in(folder: Path) -> list[int]:
    """Returns the steps of the finished checkpoints in a folder of them, ascending."""
    # Orbax writes plain digits; Python takes those of every script for digits.
    return sorted(int(p.name) for p in folder.glob('*') if re.fullmatch('[0-9]{1,10}', p.name))


def _digests(folder: Path) -> dict[str, str]:
    """Returns {relative path: SHA-256} of a checkpoint's files, without those added at the end."""
    late = (MANIFEST, '_CHECKPOINT_METADATA', 'commit_success.txt')
    files = sorted(p for p in folder.rglob('*') if p.is_file() and p.name not in late)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's files, or None."""
    try:
        files.check_no_pipes(folder, '**/*')
        expected = files.read_json(folder / MANIFEST)
    except UserError as error:
        return str(error).rstrip('.')
    actual = _digests(folder)
    for name, digest in expected.items():
        if name not in actual:
            return f'{name} is missing'
        if actual[name] != digest:
            return f'{name} has changed'
    return None


def read(folder: Path, template: TrainState) -> TrainState:
    """Reads one checkpoint into the shape of `template`, as host arrays.

    Raises:
      UserError: its arrays are not those of the template: it is of another model or optimizer.
      Exception: whatever Orbax raises on a damaged one.
    """
    expected = dict(named_leaves(template))
    arrays = read_arrays(folder)
    wrong = sorted(set(expected) ^ set(arrays)) or [
        name for name, leaf in expected.items()
        if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype
    ]  # fmt: skip
    if wrong:
        raise UserError(
            f'The checkpoint {folder} is of another model or optimizer than the configuration '
            f'says: {", ".join(wrong[:3])} differ{"s" if len(wrong) == 1 else ""}. Choose the '
            'configuration that it was saved with, or another --workdir.'
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths]
    return jax.tree.unflatten(structure, [arrays[name] for name in names])


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Returns the flat {path: array} of a checkpoint."""
    _silence_orbax()
    own = _this_process_only()
    checkpointer = ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(use_ocdbt=False, multiprocessing_options=own),
        multiprocessing_options=own,
    )
    item = folder / 'default'
    names = checkpointer.metadata(item).item_metadata.tree
    arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    return checkpointer.restore(item, args=ocp.args.PyTreeRestore(restore_args=arguments))


def _this_process_only() -> ocp.options.MultiprocessingOptions:
    """Returns options by which Orbax leaves the other processes out; their state is the same.

    Otherwise Orbax would wait for all processes, and its collectives would get mixed up with those
    that the other processes run meanwhile.
    """
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix='checkpoints',
    )


def _silence_orbax() -> None:
    """Turns off Orbax's log, which is long at every save and repeats every error it raises."""
    logging.getLogger('absl').setLevel(logging.CRITICAL)


def best_of(folder: Path, steps: list[int], metric: Metric) -> int:
    """Returns the step of the best checkpoint by `metric`, read from the files that Orbax wrote.

    Raises:
      UserError: no checkpoint has the metric.
    """
    values = {}
    for step in steps:
        path = folder / str(step) / 'metrics' / 'metrics'
        if path.exists():
            value = files.read_json(path).get(f'validation/{metric.name}')
            if isinstance(value, int | float):
                values[step] = value if metric.higher_is_better else -value
    if not values:
        raise UserError(f'No checkpoint in {folder} was validated; use --checkpoint=last.')
    # The latest of equal ones, as Orbax chooses.
    return max(values, key=lambda step: (values[step], step))
