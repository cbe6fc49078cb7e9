"""The folder of a run: its lock, config.json and extensions.json, and whether a run may use it."""

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ml_collections import ConfigDict

import files
from configs import base, reading, schema
from errors import UserError
from training import checkpoints, facts, records

CONFIG = 'config.json'
EXTENSIONS = 'extensions.json'
RESULT = 'result.json'
LOCK = '.lock'
LENGTH = ('epochs', 'steps')  # the fields that --extend may change
_KEPT_OF_RUN = 'It belongs to the run: copy it again from a copy of the folder.'
# Files and folders that a run overwrites.
OWN = (records.METRICS_FILE, RESULT, checkpoints.FOLDER, checkpoints.HISTORY, facts.FILE)


def check_own(workdir: str | os.PathLike) -> None:
    """Checks that a run in this folder would not overwrite the files of another program.

    Raises:
      UserError: it has files of a run, but no configuration that they belong to.
    """
    folder = Path(workdir)
    if (folder / CONFIG).exists():
        return
    for path in (folder / name for name in OWN):
        # A run that died before its first checkpoint leaves that folder empty.
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise UserError(
                f'{path} exists, but there is no {CONFIG} that it belongs to. Nothing was changed: '
                'choose another --workdir.'
            )


def check_writable(
    workdir: str | os.PathLike,
    option: str = '--workdir',
    remedy: str = 'Choose another folder.',
) -> None:
    """Creates the folder, and writes and removes a file in it.

    Args:
      workdir: the folder.
      option: the option that names it, for the message.
      remedy: the sentence that says what to do.

    Raises:
      UserError: the folder is not writable.
    """
    probe = Path(workdir) / f'.probe.{os.getpid()}'
    try:
        files.check_no_pipes(Path(workdir))
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text('')
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'{option}={workdir} is not writable: {error.strerror}. {remedy}'
        ) from error


def lock(workdir: str | os.PathLike, name: str = LOCK) -> TextIO:
    """Locks the folder; returns an open file that keeps the lock until it is closed.

    The system closes the file when the process ends, even if it is killed.

    Args:
      workdir: the folder.
      name: of the file in it that is locked.

    Raises:
      UserError: another run is using the folder.
    """
    path = Path(workdir) / name
    # Append mode, so that opening changes nothing.
    file = path.open('a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            f'Another run is using {workdir}. Wait for it, stop it, or choose another --workdir.'
        ) from error
    except OSError as error:
        # Some file systems have no locks; a run there goes without.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    # A run that was refused removes the lock that it had created; perhaps this was that one.
    if not files.is_open_at(file, path):
        file.close()
        return lock(workdir, name)
    return file


class Claim:
    """What a run creates in its folder before its first step, so that a refused one leaves nothing.

    It is made before anything is created; `leave` and `leave_folders` are exits for an ExitStack.

    Args:
      folder: the workdir; it need not exist.
      names: of the files and folders that the run may create there.
    """

    def __init__(self, folder: str | os.PathLike, names: Iterable[str]):
        self._folder = Path(folder).absolute()
        way = (self._folder, *self._folder.parents)
        self._made = list(itertools.takewhile(lambda path: not os.path.lexists(path), way))
        paths = [self._folder / name for name in names]
        self._new = [path for path in paths if not os.path.lexists(path)]
        self._kept = False

    def locked(self) -> None:
        """Must be called when the folder is locked: what is there is of a run that came before."""
        self._new = [p for p in self._new if p.name == LOCK or not os.path.lexists(p)]

    def keep(self) -> None:
        """Must be called after the first step: the folder holds a run from now on."""
        self._kept = True

    def leave(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Removes what the run has created if it was refused; the folder is locked."""
        if self._refused(error):
            for path in self._new:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def leave_folders(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Removes the folders that were created, if they are empty."""
        if self._refused(error):
            with contextlib.suppress(OSError):
                for folder in self._made:
                    folder.rmdir()

    def _refused(self, error: BaseException | None) -> bool:
        return isinstance(error, UserError) and not self._kept


def load_config(workdir: str | os.PathLike) -> ConfigDict:
    """Returns the checked configuration of the run in `workdir`.

    Raises:
      UserError: there is none, or it does not fit this version of the schema.
    """
    path = Path(workdir) / CONFIG
    if not path.is_file():
        raise UserError(f'{workdir} holds no run: {CONFIG} is missing. Check --workdir.')
    return schema.validate(reading.load(str(path)), base.fields())


def compare(
    workdir: str | os.PathLike, config: ConfigDict, extend: bool
) -> dict[str, tuple[Any, Any]]:
    """Compares a configuration with the one stored in `workdir`, if there is one.

    Args:
      workdir: the folder.
      config: the new configuration.
      extend: whether the length of the run may differ.

    Returns:
      {field: (stored, new)} of a length that differs; empty if no field does.

    Raises:
      UserError: a field of the experiment differs; names the fields.
    """
    if not (Path(workdir) / CONFIG).exists():
        return {}
    stored = load_config(workdir)
    changed = schema.differences(stored, config, base.fields(), base.EXPERIMENT)
    length = {name: pair for name, pair in changed.items() if name in LENGTH}
    others = {name: pair for name, pair in changed.items() if name not in LENGTH}
    if others or (length and not extend):
        listed = ', '.join(
            f'{name} ({_value(old)} there, {_value(new)} now)'
            for name, (old, new) in {**others, **length}.items()
        )
        hint = ' --extend makes the run longer.' if not others else ''
        raise UserError(
            f'{workdir} holds a run of another experiment, which differs in {listed}.{hint} '
            'Choose another --workdir, or give the stored values.'
        )
    return length


def _value(value: Any) -> str:
    return 'not set' if value is None else str(value)


def store(workdir: str | os.PathLike, config: ConfigDict) -> None:
    """Writes config.json.

    The address and number of a process are left out, because a command that reads the file, such as
    evaluate.py, would wait for the other processes.
    """
    values = base.stored(config)
    if ':' in values['distributed']:
        values['distributed'] = 'auto'
    files.write_json(Path(workdir) / CONFIG, values)


def extensions(workdir: str | os.PathLike) -> list[dict[str, int]]:
    """Returns the recorded extensions of the run: {'at_step', 'from_steps', 'to_steps'} each."""
    path = Path(workdir) / EXTENSIONS
    entry = {'at_step': int, 'from_steps': int, 'to_steps': int}
    return files.read_json(path, [entry], _KEPT_OF_RUN) if path.exists() else []


def record_extension(workdir: str | os.PathLike, step: int, old_steps: int, new_steps: int) -> None:
    """Adds an extension of the run to extensions.json, unless it is the same as an earlier one."""
    entry = {'at_step': step, 'from_steps': old_steps, 'to_steps': new_steps}
    earlier = extensions(workdir)
    # A run that is killed before config.json is written records the same extension again.
    if entry not in earlier:
        files.write_json(Path(workdir) / EXTENSIONS, [*earlier, entry])
