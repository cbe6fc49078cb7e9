"""history.json: the run that a folder holds, and the checkpoints that it has saved.

Each checkpoint has a note with its run, its step and the checkpoint that it followed, and the
SHA-256 of its files is in history.json before it gets its final name. So a checkpoint of another
step or run, whatever its name, is known for what it is, and so is a folder whose checkpoints are
gone.
"""

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import files
from errors import UserError
from training.checkpoints import stored

HISTORY = 'history.json'
_LIKE = {'run': str, 'checkpoints': dict}
_REMEDY = 'Remove it: the run then takes the checkpoints in its folder for its own.'


@dataclasses.dataclass
class History:
    """The run in a folder and its checkpoints.

    Attributes:
      path: the file.
      run: a name that no other run has.
      saved: {step: `stored.identity`} of the checkpoints that the run has saved.
      on_disk: whether the file is there.
    """

    path: Path
    run: str
    saved: dict[int, str]
    on_disk: bool = False

    def check_there(self) -> None:
        """Checks that the folder is still that of the run.

        Raises:
          UserError: it was removed, moved or replaced.
        """
        if self.on_disk and (files.usable_json(self.path, _LIKE) or {}).get('run') != self.run:
            raise UserError(
                f'{self.path.parent} was removed, moved or replaced while the run was using it, so '
                'the run has stopped. If the folder is elsewhere, the run resumes there from its '
                'last checkpoint.'
            )

    def note(self, step: int) -> dict[str, Any]:
        """Returns the note of the checkpoint that is saved now."""
        before = max((s for s in self.saved if s < step), default=None)
        return {'run': self.run, 'step': step, 'follows': before and [before, self.saved[before]]}

    def add(self, step: int, identity: str, existing: list[int]) -> None:
        """Writes that a checkpoint is saved, and leaves out those that are gone.

        Raises:
          OSError: the file cannot be written.
        """
        self.saved = {s: self.saved[s] for s in existing if s in self.saved} | {step: identity}
        self.write()

    def write(self) -> None:
        """Writes the file, unless it says the same already.

        Raises:
          OSError: it cannot be written.
        """
        saved = {str(step): self.saved[step] for step in sorted(self.saved)}
        text = json.dumps({'run': self.run, 'checkpoints': saved}, indent=1).encode() + b'\n'
        if not self.path.exists() or self.path.read_bytes() != text:
            files.replace(self.path, text)
        self.on_disk = True

    def problem(self, step: int, note: Mapping[str, Any], identity: str) -> str | None:
        """Returns why a checkpoint is not the one that the run has saved at `step`, or None."""
        if note and note['run'] != self.run:
            return 'it is of another run'
        if step not in self.saved:
            return 'this run has not saved it'
        return None if self.saved[step] == identity else 'it is not the one that this run saved'


def read(workdir: Path) -> History | None:
    """Returns the history of the run in a folder, or None if it has none.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / HISTORY
    if not path.exists():
        return None
    values = files.read_json(path, _LIKE, _REMEDY)
    if not all(_is_saved(step, what) for step, what in values['checkpoints'].items()):
        raise UserError(f'{path} cannot be used: "checkpoints" are not steps and texts. {_REMEDY}')
    saved = {int(step): identity for step, identity in values['checkpoints'].items()}
    return History(path, values['run'], saved, on_disk=True)


def _is_saved(step: str, identity: Any) -> bool:
    """Whether an entry of history.json is one: a step in plain digits, and a text."""
    return bool(re.fullmatch('[0-9]{1,10}', step)) and isinstance(identity, str)


def of(workdir: Path, folder: Path) -> History:
    """Returns the history of the run in `workdir`, whose checkpoints are in `folder`.

    Without history.json, as before there was one, the run takes those that are there for its own if
    their notes agree.
    """
    found = read(workdir)
    if found is not None:
        for step in unfinished(found, folder):
            del found.saved[step]
        return found
    run, saved = None, {}
    for step in stored.steps_in(folder):
        try:
            manifest, note = _facts(folder / str(step))
        except UserError:
            continue
        run = run or note.get('run')
        before = note.get('follows')
        agrees = not before or saved.get(before[0], before[1]) == before[1]
        if note.get('run', run) == run and note.get('step', step) == step and agrees:
            saved[step] = stored.identity(manifest)
    return History(workdir / HISTORY, run or uuid.uuid4().hex, saved)


def _facts(checkpoint: Path) -> tuple[dict[str, str], dict[str, Any]]:
    return stored.read_manifest(checkpoint), stored.read_note(checkpoint)


def foreign(checkpoint: Path, history: History | None) -> str | None:
    """Returns why a checkpoint is not that of its name and run, or None.

    Args:
      checkpoint: its folder, named by its step.
      history: that of its run, if it has one.
    """
    try:
        manifest, note = _facts(checkpoint)
    except UserError as error:
        return str(error).rstrip('.')
    step = int(checkpoint.name)
    if note.get('step', step) != step:
        return f'it is of step {note["step"]}'
    return history and history.problem(step, note, stored.identity(manifest))


def damage(checkpoint: Path, history: History | None = None) -> str | None:
    """Returns what is wrong with a checkpoint, or None.

    Args:
      checkpoint: its folder, named by its step.
      history: that of its run; None: as history.json says, if there is one.

    Raises:
      UserError: history.json is damaged.
    """
    problem = foreign(checkpoint, history or read(checkpoint.parent.parent))
    return problem or stored.damage(checkpoint, stored.read_manifest(checkpoint))


def unfinished(history: History, folder: Path) -> set[int]:
    """Returns the steps of saves that were cut short: only their temporary folder is there."""
    missing = set(history.saved) - set(stored.steps_in(folder))
    return {step for step in missing if any(folder.glob(f'{step}{stored.UNFINISHED}*'))}


def check_not_removed(workdir: Path, folder: Path, has_records: bool) -> None:
    """Checks that a run which has saved checkpoints still has one.

    A run that was killed before its first checkpoint begins anew. One that was not would do so as
    well if its checkpoints are gone, and would lose its records.

    Args:
      workdir: the folder of a run.
      folder: that of its checkpoints.
      has_records: whether there are records, for a run without a history.

    Raises:
      UserError: all are gone.
    """
    if stored.steps_in(folder):
        return
    history = read(workdir)
    lost = set() if history is None else set(history.saved) - unfinished(history, folder)
    saving = any(folder.glob(f'*{stored.UNFINISHED}*'))
    if lost or (history is None and has_records and not saving):
        which = f'that it has saved, the last at step {max(lost)}' if lost else 'of this run'
        raise UserError(
            f'{folder} has no checkpoint any more {which}, but its records are there. Nothing was '
            'changed: put the checkpoints back, or repeat the run in another folder by '
            f'--config={workdir / "config.json"} --workdir=ANOTHER.'
        )
