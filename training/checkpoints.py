"""Checkpoints by Orbax: asynchronous, atomic, the latest few and the best one.

A checkpoint is a flat {path: array} of the state, written by process 0. Beside what Orbax writes,
each finished one gets a manifest of its files' SHA-256, so that damage on the disk is noticed
before a run builds on it.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from errors import UserError
from training.state import TrainState, named_leaves

FOLDER = 'checkpoints'
MANIFEST = 'manifest.json'


class Checkpoints:
    """The checkpoints of one run; only process 0 makes one of these.

    Args:
      workdir: the run's folder.
      keep: how many of the latest to keep.
      best: 'validation/accuracy' or 'validation/loss'; the best by it is kept as well.
      warn: called with a sentence when something is wrong that is not fatal.
    """

    def __init__(self, workdir, keep: int = 2, best: str = 'validation/accuracy', warn=print):
        self.folder = Path(workdir).absolute() / FOLDER
        self._warn = warn
        self._best = best
        self._saving: int | None = None
        logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax says much at every save
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manager = self._make_manager(keep)

    def _make_manager(self, keep: int) -> ocp.CheckpointManager:
        falling = self._best.endswith('loss')
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=self._rank, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        # Only this process takes part: the others have the same state, and nothing to add.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix='checkpoints',
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics[self._best],
            best_mode='min' if falling else 'max',
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=alone if jax.process_count() > 1
            else ocp.options.MultiprocessingOptions(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )  # fmt: skip
        # One file per array: OCDBT's database costs more than it saves for small models.
        handler = ocp.PyTreeCheckpointHandler(
            use_ocdbt=False, multiprocessing_options=options.multiprocessing_options
        )
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

    def _rank(self, metrics) -> float:
        value = metrics[self._best]
        return -value if self._best.endswith('loss') else value

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint by validation, or None before there is one."""
        return self._manager.best_step()

    def save(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Starts to write a checkpoint; returns when the arrays are copied.

        Args:
          step: number of updates done.
          state: host arrays; must not be written to until the save has finished.
          metrics: validation metrics of this step, or None.

        Raises:
          UserError: this or the previous save failed; names the last good checkpoint.
        """
        if step in self.steps():
            return
        self.wait()
        self._saving = step
        if metrics is not None:
            metrics = {name: float(value) for name, value in metrics.items()}
        try:
            arrays = dict(named_leaves(state))
            self._manager.save(step, args=ocp.args.PyTreeSave(arrays), metrics=metrics, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

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
        last = max(self.steps(), default=None)
        kept = f'The last good checkpoint is step {last}' if last is not None else 'There is none'
        reason = ' '.join(str(error).split())[:300]
        return UserError(
            f'The checkpoint of step {self._saving} could not be written to {self.folder}: '
            f'{reason}. {kept}; make room or choose another --workdir, and start again.'
        )

    def close(self) -> None:
        """Waits for the save under way and stops Orbax's threads."""
        self.wait()
        self._manager.close()

    def _write_manifest(self) -> None:
        """Runs in Orbax's thread when all arrays are written, before the folder gets its name."""
        for folder in self.folder.glob(f'{self._saving}.*'):
            (folder / MANIFEST).write_text(json.dumps(_digests(folder), indent=1))

    def restore_latest(self, template: TrainState) -> tuple[int, TrainState] | None:
        """Returns (step, state) of the newest sound checkpoint, or None if there is none at all.

        A damaged one is warned about by name and moved to damaged_checkpoints/, not deleted.

        Raises:
          UserError: there are checkpoints, but no sound one, or they are of another model.
        """
        steps = self.steps()
        for step in reversed(steps):
            problem = damage(self.folder / str(step))
            if problem is None:
                try:
                    return step, read(self.folder / str(step), template)
                except UserError:
                    raise
                except Exception as error:
                    problem = ' '.join(str(error).split())[:200]
            moved = self._set_aside(step)
            self._warn(
                f'warning: checkpoint {self.folder / str(step)} is damaged ({problem}); it was '
                f'moved to {moved}, and the one before is used.'
            )
        if steps:
            raise UserError(
                f'None of the checkpoints in {self.folder} is sound. Choose another --workdir to '
                'start from the beginning.'
            )
        return None

    def _set_aside(self, step: int) -> Path:
        folder = self.folder.parent / 'damaged_checkpoints'
        folder.mkdir(exist_ok=True)
        number = 0
        while (target := folder / f'{step}.{number}').exists():
            number += 1
        shutil.move(self.folder / str(step), target)
        self._manager.reload()
        return target


def _digests(folder: Path) -> dict[str, str]:
    """{relative path: SHA-256} of the files of a checkpoint, but for what Orbax adds at the end."""
    late = (MANIFEST, '_CHECKPOINT_METADATA', 'commit_success.txt')
    files = sorted(p for p in folder.rglob('*') if p.is_file() and p.name not in late)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's files, or None."""
    manifest = folder / MANIFEST
    try:
        expected = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        return f'{MANIFEST} is unreadable: {error}'
    found = _digests(folder)
    for name, digest in expected.items():
        if name not in found:
            return f'{name} is missing'
        if found[name] != digest:
            return f'{name} has changed'
    return None


def read(folder: Path, template: TrainState) -> TrainState:
    """Reads one checkpoint into the shape of `template`, as host arrays.

    Raises:
      UserError: its arrays are not those of the template: it is of another model or optimiser.
      Exception: whatever Orbax raises on a damaged one.
    """
    logging.getLogger('absl').setLevel(logging.ERROR)
    expected = dict(named_leaves(template))
    found = _restore(folder)
    wrong = sorted(set(expected) ^ set(found)) or [
        name for name, leaf in expected.items()
        if found[name].shape != leaf.shape or found[name].dtype != leaf.dtype
    ]  # fmt: skip
    if wrong:
        raise UserError(
            f'The checkpoint {folder} is of another model or optimiser than the configuration '
            f'says: {", ".join(wrong[:3])} differ{"s" if len(wrong) == 1 else ""}.'
        )
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths]
    return jax.tree.unflatten(structure, [found[name] for name in names])


def _restore(folder: Path) -> dict[str, Any]:
    """The flat {path: NumPy array} of a checkpoint."""
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False))
    item = folder / 'default'
    names = checkpointer.metadata(item).item_metadata.tree
    arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    return checkpointer.restore(item, args=ocp.args.PyTreeRestore(restore_args=arguments))


def best_of(folder: Path, steps: list[int], metric: str) -> int:
    """Returns the step of the best checkpoint by `metric`, read from the files Orbax keeps.

    Raises:
      UserError: no checkpoint has the metric.
    """
    values = {}
    for step in steps:
        path = folder / str(step) / 'metrics' / 'metrics'
        if path.exists():
            value = json.loads(path.read_text()).get(metric)
            if value is not None:
                values[step] = -value if metric.endswith('loss') else value
    if not values:
        raise UserError(f'No checkpoint in {folder} was validated; use --checkpoint=last.')
    # The latest of equals, as Orbax's own rule has it.
    return max(values, key=lambda step: (values[step], step))
