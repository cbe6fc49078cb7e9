"""What engines have in common: the sweep as they see it, and what a user is told meanwhile."""

import dataclasses
import importlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs import base, schema
from configs.search import Sweep
from distributed.preemption import Preemption
from errors import UserError
from sweeps.study import OpenTrial, Study
from training import checks

INTERVAL = 5.0  # seconds between two lines of progress


def extra(package: str, engine: str):
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
    """What an engine is given.

    Attributes:
      config: the sweep's own configuration.
      sweep, study: what is looked for, and the trials.
      folder: the sweep's.
      stop: asked whether the user or the scheduler wants the sweep to end.
      say: prints a line.
      options: of the engine, from the command line.
    """

    config: Any
    sweep: Sweep
    study: Study
    folder: Path
    stop: Preemption
    say: Callable[[str], None]
    options: dict[str, Any]

    def __post_init__(self):
        self._told = 0.0
        self.broken = threading.Event()

    def stopping(self) -> bool:
        """Whether to end now: the user or the scheduler wants it, or an engine's part failed."""
        return self.broken.is_set() or self.stop.reason() is not None

    def ended(self, trial: OpenTrial, how: str, running: int) -> None:
        """Says that a trial ended; not every one of many, but every one that is the best yet."""
        best = self.study.best()
        new = best is not None and best.number == trial.number
        self.tell(running, f'trial {trial.number}: {how}', now=new)

    def tell(self, running: int, news: str, now: bool = False) -> None:
        """Says how far the sweep is, and the news; seldom unless it has to be now."""
        if not now and time.monotonic() - self._told < INTERVAL:
            return
        self._told = time.monotonic()
        ended, best = len(self.study.finished()), self.study.best()
        text = f'{ended}/{self.study.trials} trials ended, {running} under way'
        if best is not None:
            text += f'; best {best.value:.4f} (trial {best.number})'
        self.say(f'{text}; {news}')


def configuration(config, parameters: dict[str, Any]):
    """Returns a trial's configuration: the sweep's own with the trial's values in it.

    Raises:
      UserError: a value is not fit, or contradicts another.
    """
    # Imported here because it imports JAX.

    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        for name, value in parameters.items():
            schema.assign(config, name, value)
    config = schema.validate(config, base.fields())
    checks.check(config)
    return config
