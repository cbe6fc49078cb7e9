"""Trials of hyperparameter sweeps: kills."""

import csv
import time
from pathlib import Path

from tools.drill.trial import TINY, Command, DidNotHoldError, Ground, Held, Kind, run

SWEEP = """\
from configs.search import Float, Int, Objective, Sweep


def get_sweep():
    space = {'optimizer.learning_rate': Float(1e-3, 1e-1, log=True), 'seed': Int(0, 9)}
    return Sweep(space, Objective(of='last'), trials=6)
"""
_KEYS = ('trial', 'state', 'optimizer.learning_rate', 'seed', 'steps')


class Reference:
    """The sweep, left alone.

    Attributes:
      trials: what each of its trials was, and how it ended.
      seconds: its duration.
    """

    def __init__(self, ground: Ground):
        (ground.folder / 'space.py').write_text(SWEEP)
        workdir = ground.folder / 'reference'
        start = time.monotonic()
        if run(_sweep(ground, workdir), ground.folder / 'reference.log'):
            raise DidNotHoldError(f'the undisturbed sweep failed ({ground.folder}/reference.log)')
        self.seconds = time.monotonic() - start
        self.trials = _trials(workdir)


def _sweep(ground: Ground, workdir: Path) -> list[str]:
    return [
        'sweep.py', *TINY, ground.cache, f'--sweep={ground.folder / "space.py"}',
        f'--workdir={workdir}', '--sampler=random', '--pruner=none', '--lanes=2',
    ]  # fmt: skip


def _trials(workdir: Path) -> list[tuple[str, ...]]:
    with (workdir / 'trials.csv').open(newline='') as file:
        return [tuple(row[key] for key in _KEYS) for row in csv.DictReader(file)]


def _kill(ground: Ground, reference: Reference, folder: Path, number: int) -> Held:
    """Kills a sweep behind a drawn number of lines of its journal, and finishes it."""
    draw, kills = ground.draw(number), 0
    workdir = folder / 'sweep'
    journal = workdir / 'study.journal'

    def lines() -> int:
        return journal.read_bytes().count(b'\n') if journal.exists() else 0

    for attempt in range(draw.randint(1, 3)):
        limit = lines() + draw.randint(1, 40)
        moment = time.monotonic() + draw.uniform(0.5, 1) * reference.seconds
        with Command(_sweep(ground, workdir), folder / f'log{attempt}') as command:
            if command.wait_until(
                lambda limit=limit, moment=moment: lines() > limit or time.monotonic() > moment
            ):
                command.process.kill()
                kills += command.wait() < 0
    if code := run(_sweep(ground, workdir), folder / 'log'):
        raise DidNotHoldError(f'it cannot go on: exit code {code} ({folder}/log)')
    if _trials(workdir) != reference.trials:
        raise DidNotHoldError(f'other trials than the undisturbed sweep ({workdir}/trials.csv)')
    return Held(kills)


KIND = Kind(
    'sweeps',
    'SIGKILL of a sweep: it is finished with the trials of an undisturbed one, each once',
    Reference,
    _kill,
)
