"""Trials of training: kills, signals, damaged folders and full disks. The bits decide."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import files
from tools.drill import damage
from tools.drill.trial import (
    TINY,
    Command,
    DidNotHoldError,
    Ground,
    Held,
    Kind,
    check_sentence,
    run,
)
from training.records import METRICS_FILE

SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')
_STOPPED = 75
_LAST, _BEFORE = 40, 24  # steps of a tiny run, and of the checkpoint in a stopped one


class Reference:
    """The tiny run, left alone.

    Attributes:
      sha256: hash of its parameters.
      seconds: its duration from the start of the process.
    """

    def __init__(self, ground: Ground):
        workdir = ground.folder / 'reference'
        # Twice: the first one compiles.
        for _ in range(2):
            shutil.rmtree(workdir, ignore_errors=True)
            start = time.monotonic()
            code = run(_training(ground, workdir), ground.folder / 'reference.log')
            self.seconds = time.monotonic() - start
            if code:
                raise DidNotHoldError(f'the undisturbed run failed ({ground.folder}/reference.log)')
        self.sha256 = _sha256(workdir)
        self.workdir = workdir


def _training(ground: Ground, workdir: Path) -> list[str]:
    return ['train.py', *TINY, ground.cache, f'--workdir={workdir}', '--config.checkpoint.keep=3']


def _sha256(workdir: Path) -> str:
    return files.read_json(workdir / 'result.json', {'params_sha256': str})['params_sha256']


def _check_finished(ground: Ground, reference: Reference, workdir: Path, log: Path) -> None:
    """Resumes a run to its end, and checks that its parameters are those of the reference."""
    if code := run(_training(ground, workdir), log):
        raise DidNotHoldError(f'it cannot be resumed: exit code {code} ({log})')
    if _sha256(workdir) != reference.sha256:
        raise DidNotHoldError(f'other bits ({workdir})')


def _wait(command: Command, workdir: Path, reference: Reference, draw: random.Random) -> bool:
    """Waits for a drawn moment of a run; returns False if the run ended before.

    A quarter of the moments lie anywhere. The others lie behind the first new record, because most
    of the time of a tiny run is its start.
    """
    if draw.random() < 0.25:
        end = time.monotonic() + draw.uniform(0, reference.seconds)
        return command.wait_until(lambda: time.monotonic() > end)
    metrics = workdir / METRICS_FILE
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    if not command.wait_until(
        lambda: metrics.exists() and metrics.stat().st_mtime_ns > before and metrics.stat().st_size
    ):
        return False
    end = time.monotonic() + draw.uniform(0, 0.3 * reference.seconds)
    return command.wait_until(lambda: time.monotonic() > end)


def _kill(ground: Ground, reference: Reference, folder: Path, number: int) -> Held:
    """Kills a run up to four times, and resumes it to its end."""
    draw, kills = ground.draw(number), 0
    for attempt in range(draw.randint(1, 4)):
        with Command(_training(ground, folder / 'run'), folder / f'log{attempt}') as command:
            if not _wait(command, folder / 'run', reference, draw):
                break
            command.process.kill()
            kills += command.wait() == -signal.SIGKILL
    _check_finished(ground, reference, folder / 'run', folder / 'log')
    return Held(kills)


def _signal(ground: Ground, reference: Reference, folder: Path, number: int) -> Held:
    """Sends a signal to a run, which has to save and exit, and resumes it."""
    draw = ground.draw(number)
    name = draw.choice(SIGNALS)
    log = folder / 'log0'
    with Command(_training(ground, folder / 'run'), log) as command:
        # Before the program has come to itself, a signal ends it like any other program.
        if not command.wait_until(lambda: log.stat().st_size):
            raise DidNotHoldError(f'it printed nothing ({log})')
        end = time.monotonic() + draw.uniform(0, 0.6 * reference.seconds)
        sent = command.wait_until(lambda: time.monotonic() > end)
        if sent:
            command.process.send_signal(signal.Signals[name])
        code = command.wait()
    if code == -signal.Signals[name] and (folder / 'run' / 'result.json').exists():
        return Held(0)  # it was done, and the program was just being left
    if code not in (0, _STOPPED):
        raise DidNotHoldError(f'exit code {code} at {name} ({log})')
    if code:
        check_sentence(code, log)
    _check_finished(ground, reference, folder / 'run', folder / 'log')
    return Held(int(sent))


def _stopped_run(ground: Ground) -> tuple[Reference, Path]:
    """Returns the reference, and the folder of a run that was killed in the middle."""
    reference, stopped = Reference(ground), ground.folder / 'stopped'
    with Command(_training(ground, stopped), ground.folder / 'stopped.log') as command:
        whole = stopped / 'checkpoints' / str(_BEFORE) / 'manifest.json'
        command.wait_until(whole.exists)
        command.process.kill()
        command.wait()
    return reference, stopped


def _damaged(ground: Ground, shared: tuple[Reference, Path], folder: Path, number: int) -> Held:
    """Damages the folder of a stopped run: it falls back to sound files, or refuses."""
    reference, stopped = shared
    workdir, log = folder / 'run', folder / 'log'
    shutil.copytree(stopped, workdir)
    done = damage.damage(workdir, ground.draw(number))
    (folder / 'damage').write_text(done + '\n')
    if code := run(_training(ground, workdir), log):
        try:
            check_sentence(code, log)
        except DidNotHoldError as error:
            raise DidNotHoldError(f'{done}: {error}') from error
    elif _sha256(workdir) != reference.sha256:
        raise DidNotHoldError(f'{done}: other bits ({workdir})')
    return Held()


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Makes a file system of `size` bytes at the folder; yields whether that was allowed."""
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'drill', str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, check=False).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(['umount', '-l', str(folder)], check=False)


def _full(ground: Ground, reference: Reference, folder: Path, number: int) -> Held:
    """Lets a run fill its disk, and resumes it with more room.

    Without the right to mount a small disk, the size of files is limited, which ends the same
    writes.
    """
    size = ground.draw(number).randrange(4, 400) * 1024
    disk, log = folder / 'disk', folder / 'log0'
    workdir = disk / 'run'
    with _small_disk(disk, size) as mounted:

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 10, size // 10))

        with Command(
            _training(ground, workdir), log, preexec_fn=None if mounted else limit
        ) as command:
            code = command.wait()
        if code:
            check_sentence(code, log)
        if mounted:
            subprocess.run(['mount', '-o', 'remount,size=64m', str(disk)], check=True)
        _check_finished(ground, reference, workdir, folder / 'log')
    return Held(int(code != 0))


KINDS = (
    Kind('kills', 'SIGKILL at any moment: the resumed run ends with the same bits', Reference,
         _kill),
    Kind('signals', f'{", ".join(SIGNALS)}: the run saves, exits with 75, and ends with the same '
         'bits when it is resumed', Reference, _signal),
    Kind('damage', 'files of a stopped run cut, zeroed, changed, removed or exchanged: it falls '
         'back or refuses, and never ends with other bits', _stopped_run, _damaged),
    Kind('room', 'the disk is full: a sentence, and the same bits once there is room', Reference,
         _full),
)  # fmt: skip
