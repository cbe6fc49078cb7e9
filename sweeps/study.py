"""The study of a sweep: its trials and their figures, kept by Optuna; asked, told, gone on with.

A trial is drawn from the sweep's seed and its number alone where the sampler looks at no others
(grid, random). A trial that was running when its process died keeps its number and its values and
starts again: it is neither lost nor counted twice.
"""

import contextlib
import itertools
import json
import math
import os
import random
import threading
import uuid
import zlib
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

import files
from configs import base, schema
from configs.search import Sweep
from errors import UserError
from sweeps.owner import Owner, check_alone, unlock_if_moved

SETTINGS = 'sweep.json'
NAME = 'sweep'
MOST_POINTS = 1_000_000  # of a grid
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def storage_of(folder: Path, url: str | None, alone: bool = True):
    """Returns Optuna's storage: a journal file in the folder, or the data base of a URL.

    Args:
      folder: the sweep's.
      url: of a data base, or None.
      alone: no other process uses the journal.

    Raises:
      UserError: the data base does not answer, or its driver is not installed; or others use the
        journal.
    """
    if url is None:
        lock = folder / 'study.journal.lock'
        if alone:  # a lock that is there is that of a dead process; Optuna waits 30 s for it
            check_alone(folder)
            lock.unlink(missing_ok=True)
        unlock_if_moved(lock)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / 'study.journal'))
        return optuna.storages.JournalStorage(backend)
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:
        text = ' '.join(str(error).split())
        raise UserError(f'--storage={url} cannot be opened: {text}') from error


def make_sampler(name: str, sweep: Sweep, seed: int):
    """Returns one of Optuna's samplers."""
    if name in ('random', 'grid'):  # the points of a grid are there already
        return optuna.samplers.RandomSampler(seed)
    if name == 'cmaes':
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    # Trials that still run count as bad ones, so that those beside them look elsewhere.
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def make_pruner(name: str, sweep: Sweep):
    """Returns one of Optuna's pruners; a trial's steps are the numbers of its evaluations."""
    if name == 'asha':
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=sweep.first_rung, reduction_factor=sweep.reduction
        )
    if name == 'median':
        return optuna.pruners.MedianPruner(n_warmup_steps=sweep.first_rung)
    return optuna.pruners.NopPruner()


class OpenTrial:
    """A trial that this process runs.

    What reports or ends it raises owner.TakenOverError if another process has taken it over.

    Attributes:
      number: from 0.
      parameters: {dotted field: value}.
    """

    def __init__(self, study: 'Study', trial: optuna.Trial, parameters: dict, known: set[int]):
        self._study, self._trial, self._known = study, trial, known
        self.number, self.parameters = trial.number, parameters
        self._values: list[float] = []

    def report(self, value: float, step: int) -> bool:
        """Notes the objective's metric after `step` updates; returns whether to stop the trial."""
        self._values.append(value)
        return self._study.note(self._trial, len(self._values), value, step, self._known)

    def check(self) -> None:
        """Raises owner.TakenOverError if another process has taken the trial over."""
        self._study.check(self.number)

    def note(self, **about) -> None:
        """Keeps what else is to be known of the trial, such as seconds=...; before it ends."""
        self.check()
        for name, value in about.items():
            self._trial.set_user_attr(name, value)

    def complete(self) -> float:
        """Ends the trial; returns its figure."""
        value = self._study.sweep.objective.value(self._values)
        self._study.tell(self.number, TrialState.COMPLETE, value)
        return value

    def prune(self) -> None:
        """Ends the trial early."""
        self._study.tell(self.number, TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """Ends the trial without a figure."""
        self.check()
        self._trial.set_user_attr('reason', reason)
        self._study.tell(self.number, TrialState.FAIL)


class Study:
    """A sweep's trials.

    Args:
      sweep: what is looked for.
      folder: where the sweep lives.
      trials: how many there are to be; a grid may have fewer.
      sampler, pruner: names.
      storage: of `storage_of`.
      about: what the sweep is; see `describe`.
      alone: this process has the trials for itself (it holds the lock of the folder they are in).

    Raises:
      UserError: the storage holds the trials of another sweep, or of the same in another folder.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        trials: int,
        sampler: str,
        pruner: str,
        storage,
        about: dict[str, Any],
        alone: bool = True,
    ):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep, self.folder, self.trials = sweep, folder, trials
        self._sampler, self._lock = sampler, threading.RLock()
        self.optuna = optuna.create_study(
            study_name=NAME,
            storage=storage,
            direction=sweep.objective.direction,
            pruner=make_pruner(pruner, sweep),
            load_if_exists=True,
        )
        stored = self.optuna.user_attrs.get('sweep')
        if stored not in (None, about):
            raise UserError(
                'The --storage holds the trials of another sweep: give this one another data base.'
            )
        if stored is None:
            self.optuna.set_user_attr('sweep', about)
        if about['storage'] is not None:  # a journal is in the folder itself
            self._check_folder()
        self._owner = Owner(folder, alone)
        if sampler == 'grid':
            self._lay_grid()

    def _check_folder(self) -> None:
        # Who is alive, and how far a trial is, stands in the folder.
        own = _identity(self.folder)
        stored = self.optuna.user_attrs.get('folder')
        if stored is None:
            self.optuna.set_user_attr('folder', own)
        elif stored != own:
            raise UserError(
                'The --storage holds the trials of this sweep in another --workdir: give the same, '
                'on a disk that all machines share.'
            )

    def close(self) -> None:
        """Gives up what this process runs; another may take it."""
        self._owner.close()

    def ask(self) -> OpenTrial | None:
        """Returns the next trial: one whose process died, or a new one; None when all are there."""
        with self._lock, self._owner.drawing():
            trial, known = self._orphan() or self._new() or (None, set())
            if trial is None:
                return None
            self._owner.claim(trial)
            parameters = {}
            for name, values in self.sweep.space.items():
                # One that died between two of these draws goes on with the same draws.
                self._seed_sampler(trial.number, name)
                parameters[name] = values.suggest(trial, name)
            return OpenTrial(self, trial, parameters, known)

    def load(self) -> tuple[int, int]:
        """Returns how many trials are under way, and how many could be drawn or taken over."""
        trials = self.optuna.get_trials(deepcopy=False)
        drawn = sum(trial.state != TrialState.WAITING for trial in trials)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        orphans = sum(map(self._owner.takes, running))
        return len(running) - orphans, max(self.trials - drawn, 0) + orphans

    def _seed_sampler(self, *draw: Any) -> None:
        text = f'{self.sweep.seed} {draw}'
        self.optuna.sampler = make_sampler(self._sampler, self.sweep, zlib.crc32(text.encode()))

    def _lay_grid(self) -> None:
        """Lets the trials to come be the points of the grid, in an order drawn from the seed.

        Optuna's own GridSampler is not made for being asked and told.
        """
        values = [v.size for v in self.sweep.space.values()]
        if math.prod(values) > MOST_POINTS:
            raise UserError(
                f'the grid has more than {MOST_POINTS:,} points: choose another --sampler, or '
                'fewer points.'
            )
        points = list(itertools.product(*(v.grid() for v in self.sweep.space.values())))
        random.Random(self.sweep.seed).shuffle(points)
        self.trials = min(self.trials, len(points))
        with self._owner.drawing():
            for number in range(len(self.optuna.get_trials(deepcopy=False)), self.trials):
                self.optuna.enqueue_trial(dict(zip(self.sweep.space, points[number], strict=True)))

    def _new(self) -> tuple[optuna.Trial, set[int]] | None:
        known = self.optuna.get_trials(deepcopy=False)
        count = sum(trial.state != TrialState.WAITING for trial in known)
        if count >= self.trials:
            return None
        self._seed_sampler(count)
        return self.optuna.ask(), set()

    def _orphan(self) -> tuple[optuna.Trial, set[int]] | None:
        for frozen in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._owner.takes(frozen, drawing=True):
                # Its values are in the storage: a trial of the same identity finds them there.
                trial = optuna.Trial(self.optuna, frozen._trial_id)
                return trial, set(frozen.intermediate_values)
        return None

    def check(self, number: int) -> None:
        """Raises owner.TakenOverError if another process has taken a trial of this one over."""
        self._owner.check(self.optuna, number)

    def note(self, trial: optuna.Trial, number: int, value: float, step: int, known: set) -> bool:
        """Reports evaluation `number`, from 1; returns whether the trial should be stopped."""
        with self._lock:
            self.check(trial.number)
            if number not in known:
                trial.report(value, number)
            if number < max(known, default=0):
                return False  # a trial that starts again; what comes later is judged
            trial.set_user_attr('steps', step)
            if 'hopeless' in trial.user_attrs or trial.should_prune():
                # Optuna says so once, and this process may die before it has ended the trial.
                trial.set_user_attr('hopeless', True)
                return True
            return False

    def tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Ends a trial."""
        with self._lock:
            self.check(number)
            self.optuna.tell(number, value, state)

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """Returns the trials that have ended, by number."""
        return self.optuna.get_trials(deepcopy=False, states=FINISHED)

    def ranked(self) -> list[optuna.trial.FrozenTrial]:
        """Returns the trials that went to their end, the best first, equal ones by number."""
        done = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if self.sweep.objective.direction == 'maximize' else 1
        return sorted(done, key=lambda trial: (sign * trial.value, trial.number))

    def best(self) -> optuna.trial.FrozenTrial | None:
        """Returns the best trial that went to its end; None without one."""
        return next(iter(self.ranked()), None)


def _identity(folder: Path) -> str:
    """A word that is this folder's alone, wherever it is moved."""
    file = folder / 'identity'
    if not file.exists():
        new = folder / f'identity.{uuid.uuid4().hex}'
        new.write_text(new.suffix[1:])
        with contextlib.suppress(FileExistsError):  # another process was sooner
            os.link(new, file)
        new.unlink()
    return file.read_text()


def check_settings(folder: Path, own: dict[str, Any]) -> None:
    """Stores what the sweep is (see `describe`) in its folder; refuses another sweep there.

    Raises:
      UserError: the folder holds another sweep, or a run of train.py.
    """
    file = folder / SETTINGS
    if not file.exists():
        if (folder / 'config.json').exists():
            raise UserError(f'{folder} holds a run of train.py. Choose another --workdir.')

        files.write_json(file, own)
        return
    stored = json.loads(file.read_text())
    for part in ('space', 'objective', 'seed', 'grid', 'storage', 'config'):
        if stored[part] != own[part]:
            what = part
            if part == 'config':
                pairs = schema.differences(stored[part], own[part], base.fields(), base.EXPERIMENT)
                if not pairs:
                    continue
                what = ', '.join(f'config.{k} ({a!r}, now {b!r})' for k, (a, b) in pairs.items())
            raise UserError(
                f'{folder} holds a sweep that differs in {what}. Choose another --workdir.'
            )


def describe(sweep: Sweep, config, sampler: str, url: str | None) -> dict[str, Any]:
    """Returns what has to stay the same when a sweep goes on, as JSON."""
    values = {
        name: {'kind': type(v).__name__.lower(), **{k: schema.plain(x) for k, x in vars(v).items()}}
        for name, v in sweep.space.items()
    }
    return {
        'space': values,
        'objective': vars(sweep.objective).copy(),
        'seed': sweep.seed,
        'grid': sampler == 'grid',  # its trials are laid out beforehand
        'storage': url,
        'config': schema.plain(config),
    }
