"""The common parts of the engines: the sweep that they run, and its progress messages."""

import dataclasses
import importlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from configs import base, schema
from configs.search import Sweep
from distributed.preemption import Preemption
from errors import UserError
from sweeps import conditions
from sweeps.study import OpenTrial, Study
from training import checks

INTERVAL = 5.0  # seconds between two lines of progress


def extra(package: str, engine: str) -> ModuleType:
    """Imports a package that only one engine needs.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f'--engine={engine} needs {package}: pip install -r requirements-{engine}.txt'
        ) from error


@dataclasses.dataclass
class Work:
    """A sweep, with everything that an engine needs to run its trials.

    Attributes:
      config: the configuration into which the values of a trial are put.
      sweep: the space and the objective.
      study: the trials.
      folder: the workdir of the sweep.
      stop: tells whether the user or the scheduler wants the sweep to end.
      say: prints a line.
      options: options of the command line, by name.
      broken: set if a part of the engine has failed.
    """

    config: ConfigDict
    sweep: Sweep
    study: Study
    folder: Path
    stop: Preemption
    say: Callable[[str], None]
    options: dict[str, Any]

    def __post_init__(self):
        self._last_line = 0.0  # when progress was last printed, by time.monotonic
        self.broken = threading.Event()

    def stopping(self) -> bool:
        """Returns whether the sweep is to end: on request, or because part of the engine failed."""
        return self.broken.is_set() or self.stop.reason() is not None

    def ended(self, trial: OpenTrial, how: str, running: int) -> None:
        """Prints that a trial ended: at once if it is the best so far, else every few seconds.

        Args:
          trial: the trial.
          how: its outcome, in a few words.
          running: number of trials that are still running.
        """
        best = self.study.best()
        is_best = best is not None and best.number == trial.number
        self.tell(running, f'trial {trial.number}: {how}', now=is_best)

    def tell(self, running: int, news: str, now: bool = False) -> None:
        """Prints the progress of the sweep and the news, at most once in INTERVAL unless `now`."""
        if not now and time.monotonic() - self._last_line < INTERVAL:
            return
        self._last_line = time.monotonic()
        ended, best = len(self.study.finished()), self.study.best()
        text = f'{ended}/{self.study.trials} trials ended, {running} running'
        if best is not None:
            text += f'; best {best.value:.4f} (trial {best.number})'
        self.say(f'{text}; {news}')


def configuration(config: ConfigDict, parameters: dict[str, Any]) -> ConfigDict:
    """Returns a trial's configuration: that of the sweep with the trial's values.

    What means nothing beside these values, such as the momentum of the configuration in a trial
    of adam, is left out.

    Raises:
      UserError: a value is invalid, or contradicts another.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        for name, value in parameters.items():
            schema.assign(config, name, value)
    config = conditions.settled(schema.validate(config, base.fields()), parameters)
    checks.check(config)
    return config
