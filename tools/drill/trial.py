"""What all kinds of trials share: how one is drawn, fails, and starts commands of the project."""

import dataclasses
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import processes

LONGEST = 600.0  # seconds; a command that takes longer hangs
# A run of a second: 40 updates, a checkpoint after every fourth.
TINY = (
    '--config=configs/digits_lenet.py',
    '--config.model.name=fcn',
    '--config.batch_size=32',
    '--config.steps=40',
    '--config.log_every=2',
    '--config.eval_every=0.25',
    '--config.checkpoint.every_steps=4',
    '--config.schedule.warmup=0',
)


class DidNotHoldError(Exception):
    """A promise was broken; the message says how.

    Args:
      message: what happened, and where it can be looked at.
      done, held: how many things were done, and how many of them were survived.
    """

    def __init__(self, message: str, done: int = 1, held: int = 0):
        super().__init__(message)
        self.done, self.held = done, held


@dataclasses.dataclass(frozen=True)
class Ground:
    """Where a kind's trials take place.

    Attributes:
      folder: a folder that all its trials share.
      seed: of the whole drill.
    """

    folder: Path
    seed: int

    @property
    def cache(self) -> str:
        """The argument that gives the trials a compilation cache of their own."""
        return f'--config.compilation_cache={self.folder.parent / "cache"}'

    def draw(self, number: int) -> random.Random:
        """Returns the source of all draws of a trial."""
        return random.Random(f'{self.seed} {self.folder.name} {number}')


@dataclasses.dataclass(frozen=True)
class Held:
    """What a trial that held has done.

    Attributes:
      count: how many things were survived, such as kills.
      peak_memory: bytes that its readers used at most, where that is limited.
    """

    count: int = 1
    peak_memory: int = 0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of trials.

    Attributes:
      name: one of tools.drill.KINDS.
      promise: what is done, and what has to hold.
      prepare: makes what the trials share; its result is passed to each of them.
      trial: does trial `number` in a folder of its own.
    """

    name: str
    promise: str
    prepare: Callable[[Ground], object]
    trial: Callable[[Ground, object, Path, int], Held]


class Command:
    """A command of the project in a process of its own, which ends with the context.

    Args:
      argv: its arguments, the script first.
      log: the file for what it prints.
      options: those of Popen.
    """

    def __init__(self, argv: Sequence[str], log: Path, **options):
        self._argv, self.log, self._options = argv, log, options

    def __enter__(self) -> 'Command':
        self._file = self.log.open('wb')
        options = {'stdout': self._file, 'env': {**os.environ, 'PYTHONFAULTHANDLER': '1'}}
        self._context = processes.child([sys.executable, *self._argv], **options, **self._options)
        self.process: subprocess.Popen = self._context.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._context.__exit__(*exc_info)
        self._file.close()

    def wait(self) -> int:
        """Waits for its end; returns its exit code.

        Raises:
          DidNotHoldError: it hangs.
        """
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired as error:
            raise DidNotHoldError(f'it did not end in {LONGEST:.0f} s ({self.log})') from error

    def wait_until(self, happened: Callable[[], bool]) -> bool:
        """Waits for something that it does; returns False if it ended before that was seen."""
        end = time.monotonic() + LONGEST
        while not happened():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise DidNotHoldError(f'nothing happened in {LONGEST:.0f} s ({self.log})')
            time.sleep(0.005)
        return True


def run(argv: Sequence[str], log: Path, **options) -> int:
    """Runs a command of the project to its end; returns its exit code."""
    with Command(argv, log, **options) as command:
        return command.wait()


def check_sentence(code: int, log: Path) -> None:
    """Checks that a command which failed said so in a sentence, with one of our exit codes.

    Raises:
      DidNotHoldError: it did not.
    """
    text = log.read_text(errors='replace')
    if code not in (2, 75):
        raise DidNotHoldError(f'exit code {code}: {processes.last_line(text)} ({log})')
    if 'Traceback' in text or (code == 2 and 'error: ' not in text):
        raise DidNotHoldError(f'a traceback, or no sentence ({log})')
