"""The folder of a run: may this configuration go on there? Its config.json, extensions.json."""

import errno
import fcntl
import json
import os
from pathlib import Path

import files
from configs import base, reading, schema
from errors import UserError
from training import checkpoints, records

CONFIG = 'config.json'
EXTENSIONS = 'extensions.json'
RESULT = 'result.json'
LOCK = '.lock'
LENGTH = ('epochs', 'steps')
# What a run would write over.
OWN = (records.METRICS_FILE, RESULT, checkpoints.FOLDER)


def check_own(workdir) -> None:
    """Checks that nothing in the folder would be lost that is not this run's.

    Raises:
      UserError: it has records, checkpoints or a result, but no configuration they belong to.
    """
    folder = Path(workdir)
    if (folder / CONFIG).exists():
        return
    for path in (folder / name for name in OWN):
        # A run that died before its first checkpoint leaves that folder empty.
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise UserError(
                f'{path} is there, but no {CONFIG} that it belongs to. Nothing was touched: choose '
                'another --workdir.'
            )


def check_writable(workdir, option: str = '--workdir') -> None:
    """Makes the folder, and writes and removes a file there.

    Raises:
      UserError: that failed.
    """
    probe = Path(workdir) / f'.probe.{os.getpid()}'
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text('')
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'{option}={workdir} is not writable: {error.strerror}. Choose another folder.'
        ) from error


def lock(workdir):
    """Takes the folder for this process; returns an open file that holds it until it is closed.

    The system closes it when the process ends, however it ends.

    Raises:
      UserError: another run is at work there.
    """
    # Append mode: neither a reader nor the next run finds anything changed.
    file = (Path(workdir) / LOCK).open('a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            f'Another run is at work in {workdir}. Wait for it, stop it, or choose another '
            '--workdir.'
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return file


def load_config(workdir):
    """Returns the checked configuration of a run that was started in `workdir`.

    Raises:
      UserError: there is none, or it does not fit this version of the schema.
    """
    path = Path(workdir) / CONFIG
    if not path.is_file():
        raise UserError(f'{workdir} holds no run: {CONFIG} is missing.')
    return schema.validate(reading.load(str(path)), base.fields())


def compare(workdir, config, extend: bool) -> dict[str, tuple]:
    """Compares a configuration with the one stored in `workdir`, if there is one.

    Returns:
      {field: (stored, new)} of a longer run that --extend allows; empty if nothing differs.

    Raises:
      UserError: an experiment field differs; names the fields.
    """
    if not (Path(workdir) / CONFIG).exists():
        return {}
    stored = load_config(workdir)
    changed = schema.differences(stored, config, base.fields(), base.EXPERIMENT)
    length = {name: pair for name, pair in changed.items() if name in LENGTH}
    others = {name: pair for name, pair in changed.items() if name not in LENGTH}
    if others or (length and not extend):
        listed = ', '.join(f'{name} ({old} there, {new} now)'
                           for name, (old, new) in {**others, **length}.items())  # fmt: skip
        hint = ' --extend makes the run longer.' if not others else ''
        raise UserError(
            f'{workdir} holds a run of another experiment, which differs in {listed}.{hint} '
            'Choose another --workdir, or give the stored values.'
        )
    return length


def store(workdir, config) -> None:
    """Writes config.json.

    The address and number of a process are left out: whoever reads the file, such as evaluate.py,
    would wait for the other processes.
    """
    values = schema.plain(config)
    if ':' in values['distributed']:
        values['distributed'] = 'auto'
    files.write_json(Path(workdir) / CONFIG, values)


def extensions(workdir) -> list[dict]:
    """Returns the recorded extensions of the run: at which step, from how many to how many."""
    path = Path(workdir) / EXTENSIONS
    return json.loads(path.read_text()) if path.exists() else []


def record_extension(workdir, step: int, old_steps: int, new_steps: int) -> None:
    """Adds to extensions.json that the run was made longer; once, if it died soon after."""
    entry = {'at_step': step, 'from_steps': old_steps, 'to_steps': new_steps}
    earlier = extensions(workdir)
    if entry not in earlier:
        files.write_json(Path(workdir) / EXTENSIONS, [*earlier, entry])
