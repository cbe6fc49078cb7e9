"""Checkpoints on the disk: their files, whether they are sound, and what they hold."""

import hashlib
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

import files
from errors import UserError
from tasks.answer import Metric
from training.state import TrainState, named_leaves

MANIFEST = 'manifest.json'
NOTE = 'note.json'
WINDOW = 'window.json'
METRICS = 'metrics/metrics'  # Orbax's name
ORBAX = '_CHECKPOINT_METADATA'  # what Orbax notes for itself
UNFINISHED = ocp.utils.TMP_DIR_SUFFIX  # in the name of a checkpoint that is being written


class WrongStepError(UserError):
    """A checkpoint holds the state of another step than its name says."""


def steps_in(folder: Path) -> list[int]:
    """Returns the steps of the finished checkpoints in a folder of them, ascending."""
    # Orbax writes plain digits; Python takes those of every script for digits.
    names = (p.name for p in folder.glob('*'))
    return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]{0,9}', name))


def digests(folder: Path) -> dict[str, str]:
    """Returns {relative path: SHA-256} of a checkpoint's files, without those added at the end."""
    late = (MANIFEST, ORBAX, 'commit_success.txt')
    paths = sorted(p for p in folder.rglob('*') if p.is_file() and p.name not in late)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def read_manifest(folder: Path) -> dict[str, str]:
    """Returns {relative path: SHA-256} as it was when the checkpoint was saved.

    Raises:
      UserError: the manifest is missing or damaged.
    """
    files.check_no_pipes(folder, '**/*')
    manifest = files.read_json(folder / MANIFEST)
    if not all(isinstance(digest, str) for digest in manifest.values()):
        raise UserError(f'{folder / MANIFEST} cannot be used: not all of its values are texts.')
    return manifest


def read_note(folder: Path) -> dict[str, Any]:
    """Returns the note of a checkpoint; {} if it is of an earlier version, which had none.

    It says run, step, and 'follows': [step, identity] of the checkpoint before it.

    Raises:
      UserError: the note is damaged.
    """
    path = folder / NOTE
    if not path.exists():
        return {}
    note = files.read_json(path, {'run': str, 'step': int, 'follows': object})
    match note['follows']:
        case None | [int(), str()]:
            return note
    raise UserError(f'{path} cannot be used: "follows" is neither null nor a step and a text.')


def identity(manifest: dict[str, str]) -> str:
    """Returns one hash for all that a checkpoint was saved with; metrics may be added later."""
    saved = {name: digest for name, digest in manifest.items() if not _is_of_metrics(name)}
    return hashlib.sha256(json.dumps(saved, sort_keys=True).encode()).hexdigest()


def _is_of_metrics(name: str) -> bool:
    return name.startswith('metrics/')


def has_metrics(folder: Path) -> bool:
    """Whether a checkpoint has metrics of its own, not a copy of others'.

    Earlier versions did not list metrics that they added to a checkpoint.
    """
    if not (folder / METRICS).exists():
        return False
    manifest = files.usable_json(folder / MANIFEST) or {}
    return METRICS in manifest or not (folder / NOTE).exists()


def check_readable(folder: Path) -> None:
    """Checks the files that Orbax reads of all checkpoints in a folder before any is restored.

    Raises:
      UserError: one of them is damaged.
    """
    for step in steps_in(folder):
        for name in (ORBAX, METRICS):
            path = folder / str(step) / name
            if path.exists():
                remedy = f'Move {folder / str(step)} out of that folder to go on without it.'
                files.read_json(path, dict, remedy)


def damage(folder: Path, manifest: dict[str, str]) -> str | None:
    """Returns which of a checkpoint's files is not as it was saved, or None."""
    actual = digests(folder)
    for name, digest in manifest.items():
        if name not in actual:
            return f'{name} is missing'
        if actual[name] != digest:
            return f'{name} has changed'
    added = [name for name in (NOTE, WINDOW) if name in actual and name not in manifest]
    return f'{added[0]} is not of this checkpoint' if added else None


def read(folder: Path, template: TrainState) -> TrainState:
    """Reads one checkpoint into the shape of `template`, as host arrays.

    Raises:
      UserError: its arrays are not those of the template: it is of another model or optimizer.
      WrongStepError: it is of another step than its name says.
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
    """Returns the flat {path: array} of a checkpoint.

    Raises:
      WrongStepError: there is no note, and they are of another step than the folder's name says.
      Exception: whatever Orbax raises on a damaged one.
    """
    silence_orbax()
    own = this_process_only()
    checkpointer = ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(use_ocdbt=False, multiprocessing_options=own),
        multiprocessing_options=own,
    )
    item = folder / 'default'
    names = checkpointer.metadata(item).item_metadata.tree
    arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    arrays = checkpointer.restore(item, args=ocp.args.PyTreeRestore(restore_args=arguments))
    # Earlier versions wrote no note, by which `damage` knows the step.
    if not (folder / NOTE).exists() and folder.name != str(arrays.get('step', folder.name)):
        raise WrongStepError(f'The checkpoint {folder} holds the state of step {arrays["step"]}.')
    return arrays


def this_process_only() -> ocp.options.MultiprocessingOptions:
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


def silence_orbax() -> None:
    """Turns off Orbax's log, which is long at every save and repeats every error it raises.

    After an error, TensorStore's threads still report to an event loop that Orbax has closed, and
    each of them prints a traceback about that. The error itself is raised where it is waited for.
    """
    global _unraisable
    logging.getLogger('absl').setLevel(logging.CRITICAL)
    if sys.unraisablehook is not _but_for_closed_loops:
        _unraisable, sys.unraisablehook = sys.unraisablehook, _but_for_closed_loops


_unraisable = sys.unraisablehook


def _but_for_closed_loops(unraisable: Any) -> None:
    if str(unraisable.exc_value) != 'Event loop is closed':
        _unraisable(unraisable)


def best_of(folder: Path, steps: list[int], metric: Metric) -> int:
    """Returns the step of the best checkpoint by `metric`, read from the files that Orbax wrote.

    Raises:
      UserError: no checkpoint has the metric.
    """
    values = {}
    for step in steps:
        checkpoint = folder / str(step)
        if has_metrics(checkpoint):
            value = files.read_json(checkpoint / METRICS).get(f'validation/{metric.name}')
            if isinstance(value, int | float):
                values[step] = value if metric.higher_is_better else -value
    if not values:
        raise UserError(f'No checkpoint in {folder} was validated; use --checkpoint=last.')
    # The latest of equal ones, as Orbax chooses.
    return max(values, key=lambda step: (values[step], step))
