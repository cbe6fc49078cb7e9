"""Checkpoints by Orbax: asynchronous and atomic; the latest few and the best one are kept.

A checkpoint is a flat {path: array} of the state, written by process 0. Besides the files of Orbax
it has a manifest with the SHA-256 of each file and a note of its place in the run, so that damage
on the disk, or another checkpoint under its name, is noticed before a run continues from it, and
the sums of the training metrics that were not on record yet.
"""

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

import files
from errors import UserError
from tasks.answer import Metric
from training.checkpoints import history, stored
from training.checkpoints.stored import MANIFEST, METRICS, NOTE, WINDOW
from training.state import TrainState, named_leaves

FOLDER = 'checkpoints'
BLOCK = 4096  # bytes; files take whole blocks of a disk
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
        self._best, self._keep = best, keep
        # Of the save under way, for the manifest, which Orbax's thread writes at its end.
        self._saving: int | None = None
        self._window: dict[str, Any] | None = None
        with files.explaining_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        stored.silence_orbax()
        files.check_no_pipes(self.folder, '**/*')  # Orbax reads some files at once
        self._history = history.of(self.folder.parent, self.folder)
        # Before the temporary folders are removed, which say that a save was cut short.
        self.keep_history(only_known=True)
        # Not by Orbax, which would do it in a thread that nobody waits for.
        for unfinished in self.folder.glob(f'[0-9]*{stored.UNFINISHED}*'):
            shutil.rmtree(unfinished, ignore_errors=True)
        stored.check_readable(self.folder)
        self._manager = self._make_manager(keep)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *exc_info: object) -> None:
        # A caller that needs the save under way has called wait(). If the block was left by an
        # error, that error must not be replaced by one of closing.
        with contextlib.suppress(Exception):
            self._manager.close()

    def _make_manager(self, keep: int) -> ocp.CheckpointManager:
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
            create=False,
            multiprocessing_options=stored.this_process_only(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )  # fmt: skip
        # The arrays are copies already. Orbax would copy them once more while training waits.
        arrays = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
        registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, arrays))
        # One file per array: OCDBT's database costs more than it saves for small models.
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=False,
            multiprocessing_options=stored.this_process_only(),
            type_handler_registry=registry,
        )
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

    def _rank(self, metrics: Mapping[str, float]) -> float:
        """Returns a number that is higher for a better checkpoint, whatever the metric."""
        value = metrics.get(f'validation/{self._best.name}')
        if not isinstance(value, int | float):
            return -math.inf
        return value if self._best.higher_is_better else -value

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending."""
        return stored.steps_in(self.folder)

    def keep_history(self, only_known: bool = False) -> None:
        """Writes history.json if it has to be written; a run does that before its first step.

        Args:
          only_known: do not write the history of a run that has none.
        """
        path = self._history.path
        if not only_known or path.exists():
            with files.explaining_errors(path):
                self._history.write()

    def check_there(self) -> None:
        """Checks that the workdir is still that of the run; makes the folder in it if it is gone.

        Raises:
          UserError: the workdir was removed, moved or replaced.
        """
        self._history.check_there()
        if not self.folder.is_dir():
            self._warn(f'warning: {self.folder} was removed while the run was using it.')
            with files.explaining_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

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

        Orbax would notice only in one of its threads, and leave half a checkpoint there.

        Raises:
          OSError: it does not.
        """
        # Each array is a folder with two files, and others say what they are.
        needed = sum(_on_disk(array.nbytes) + 2 * BLOCK for array in arrays.values()) + 8 * BLOCK
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
        """Writes window, note and manifest into the checkpoint that is being finished.

        Runs in Orbax's thread when all arrays are written, but before the folder gets its final
        name. So a checkpoint without a manifest never counts as finished, and a finished one is in
        history.json.
        """
        for folder in self.folder.glob(f'{self._saving}{stored.UNFINISHED}*'):
            # The manifest comes last, because it has the hashes of the others.
            if self._window:
                (folder / WINDOW).write_text(json.dumps(self._window))
            (folder / NOTE).write_text(json.dumps(self._history.note(self._saving)))
            manifest = stored.digests(folder)
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
            self._history.add(self._saving, stored.identity(manifest), self.steps())

    def restore_latest(self, template: TrainState) -> tuple[int, TrainState] | None:
        """Returns (step, state) of the newest sound checkpoint, or None if there are none at all.

        Newer ones that are damaged, and older ones that are not of this run, are moved to
        damaged_checkpoints/, not deleted, with a warning that names them. Older ones that a kill
        kept from being deleted are deleted now.

        Raises:
          UserError: there are checkpoints, but none is sound, or they are of another model.
        """
        problems = {}
        for step in reversed(self.steps()):
            state = self._try(step, template, problems)
            if state is not None:
                # Only now: while no sound checkpoint is known, none may be moved or deleted.
                self._tidy(step, problems)
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
        problem = history.damage(folder, self._history)
        if problem is None:
            try:
                return stored.read(folder, template)
            except stored.WrongStepError as error:
                problem = str(error).rstrip('.')
            except UserError:
                raise
            except Exception as error:
                problem = ' '.join(str(error).split())[:200]
        problems[step] = problem
        return None

    def _tidy(self, step: int, problems: dict[int, str]) -> None:
        """Sets aside what is damaged or foreign, and deletes what is kept no longer.

        Args:
          step: the newest sound checkpoint.
          problems: what is wrong with newer ones.
        """
        lost = [s for s in self._history.saved if s > step and s not in self.steps()]
        if lost:
            self._warn(
                f'warning: the checkpoint of step {max(lost)}, which this run has saved, is not in '
                f'{self.folder} any more; that of step {step} is used.'
            )
        for newer, problem in problems.items():
            self._set_aside(newer, problem, ', and the previous one is used')
        older = [s for s in self.steps() if s < step]
        foreign = {s: history.foreign(self.folder / str(s), self._history) for s in older}
        kept = self._kept([*(s for s in older if not foreign[s]), step])
        for s in older:
            # One that was deleted in part, when a kill came, has no manifest.
            whole = (self.folder / str(s) / MANIFEST).exists()
            if s not in kept and s in self._history.saved and not (foreign[s] and whole):
                shutil.rmtree(self.folder / str(s), ignore_errors=True)
            elif foreign[s]:
                self._set_aside(s, foreign[s])
        if not stored.has_metrics(self.folder / str(step)):
            # Added when a kill came, or copied from elsewhere.
            shutil.rmtree((self.folder / str(step) / METRICS).parent, ignore_errors=True)
        existing = self.steps()
        self._history.saved = {s: v for s, v in self._history.saved.items() if s in existing}
        self._manager.reload()

    def _kept(self, steps: list[int]) -> set[int]:
        """Returns which of these checkpoints, ascending, are kept."""
        kept = set(steps[-self._keep :])
        with contextlib.suppress(UserError):  # none has metrics
            kept.add(stored.best_of(self.folder, steps, self._best))
        return kept

    def window(self, step: int) -> dict[str, Any]:
        """Returns the sums that were passed to `save` with this step; {} if there were none.

        Raises:
          UserError: they are damaged.
        """
        path = self.folder / str(step) / WINDOW
        sums = files.read_json(path) if path.exists() else {}
        try:
            numbers = all(np.asarray(value).dtype.kind in 'iuf' for value in sums.values())
        except ValueError:  # lists of several lengths
            numbers = False
        if not numbers:
            raise UserError(f'{path} cannot be used: not all of its members are numbers.')
        return sums

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Adds validation metrics to a checkpoint that a preempted run saved without them."""
        folder = self.folder / str(step)
        if stored.has_metrics(folder):
            return
        path = folder / METRICS
        temporary = path.parent.with_suffix('.tmp')
        with files.explaining_errors(path):
            # Renamed when complete, so that Orbax never reads half a file.
            temporary.mkdir(exist_ok=True)
            (temporary / path.name).write_text(json.dumps(metrics))
            temporary.rename(path.parent)
            manifest = stored.read_manifest(folder)
            manifest |= {METRICS: stored.digests(folder)[METRICS]}
            files.replace(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        self._manager.reload()

    def _set_aside(self, step: int, problem: str, remedy: str = '') -> None:
        """Moves a checkpoint to the damaged ones, and warns."""
        folder = self.folder.parent / DAMAGED_FOLDER
        with files.explaining_errors(folder):
            folder.mkdir(exist_ok=True)
            number = 0
            while (target := folder / f'{step}.{number}').exists():
                number += 1
            shutil.move(self.folder / str(step), target)
        self._warn(
            f'warning: checkpoint {self.folder / str(step)} is damaged ({problem}); it was moved '
            f'to {target}{remedy}.'
        )


def _on_disk(size: int) -> int:
    """Returns the bytes that a file of `size` bytes takes."""
    return -(-size // BLOCK) * BLOCK
