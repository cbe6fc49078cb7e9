"""The study of a sweep: its trials and their values, in Optuna's storage.

If the sampler does not look at other trials (grid, random), a trial depends only on the seed of the
sweep and its own number. A trial that was running when its process died keeps its number and its
values and is started again: it is neither lost nor counted twice.
"""

import contextlib
import itertools
import math
import os
import random
import threading
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from ml_collections import ConfigDict
from optuna.trial import TrialState

import files
from configs import base, schema
from configs.search import Sweep
from errors import UserError
from sweeps import journal, samplers
from sweeps.conditions import Conditions
from sweeps.owner import Owner

SETTINGS = 'sweep.json'
JOURNAL = 'study.journal'
NAME = 'sweep'
POINT = 'fixed_params'  # where Optuna keeps the values of a trial that was enqueued
MOST_POINTS = 1_000_000  # points that a grid may have
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def storage_of(
    folder: Path,
    url: str | None,
    alone: bool = True,
    direction: str = 'maximize',
    say: Callable[[str], None] = print,
) -> optuna.storages.BaseStorage:
    """Returns Optuna's storage: a journal file in the folder, or the database of a URL.

    Args:
      folder: the workdir of the sweep.
      url: of a database, or None.
      alone: whether no other process uses the journal.
      direction: 'maximize' or 'minimize'; a journal that has lost its beginning does not say.
      say: called with a sentence if the journal was damaged and has been mended.

    Raises:
      UserError: the database does not answer, or its driver is not installed; or other processes
        use the journal, or it cannot be mended.
    """
    if url is None:
        return journal.opened(folder / JOURNAL, alone, direction, say)
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:
        text = ' '.join(str(error).split())
        raise UserError(f'--storage={url} cannot be opened: {text}') from error


class OpenTrial:
    """A trial that this process runs.

    Every method raises owner.TakenOverError if another process has taken the trial over.

    Attributes:
      number: from 0.
      parameters: {dotted field: value}.
    """

    def __init__(
        self, study: 'Study', trial: optuna.Trial, parameters: dict[str, Any], reported: set[int]
    ):
        self._study, self._trial, self._reported = study, trial, reported
        self.number, self.parameters = trial.number, parameters
        self._values: list[float] = []

    def report(self, value: float, step: int) -> bool:
        """Stores the objective's metric after `step` updates; returns whether to stop the trial."""
        self._values.append(value)
        return self._study.note(self._trial, len(self._values), value, step, self._reported)

    def check(self) -> None:
        """Checks that the trial still belongs to this process."""
        self._study.check(self.number)

    def note(self, **about: Any) -> None:
        """Stores other facts about the trial, such as seconds=...; only before it ends."""
        self.check()
        for name, value in about.items():
            self._trial.set_user_attr(name, value)

    def complete(self) -> float:
        """Ends the trial; returns its value of the objective."""
        value = self._study.sweep.objective.value(self._values)
        self._study.tell(self.number, TrialState.COMPLETE, value)
        return value

    def prune(self) -> None:
        """Ends the trial early."""
        self._study.tell(self.number, TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """Ends the trial without a value."""
        self.check()
        self._trial.set_user_attr('reason', reason)
        self._study.tell(self.number, TrialState.FAIL)


class Study:
    """The trials of a sweep.

    Args:
      sweep: the space and the objective.
      folder: the workdir of the sweep.
      trials: how many trials to run; a grid may have fewer points.
      sampler, pruner: names, as on the command line.
      storage: the result of `storage_of`.
      about: the result of `describe`, which identifies the sweep.
      alone: whether only this process runs the trials (it holds the lock of the folder).
      conditions: which fields a trial leaves out; None: none.

    Raises:
      UserError: the storage has the trials of another sweep, or of this one in another folder.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        trials: int,
        sampler: str,
        pruner: str,
        storage: optuna.storages.BaseStorage,
        about: dict[str, Any],
        alone: bool = True,
        conditions: Conditions | None = None,
    ):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep, self.folder, self.trials = sweep, folder, trials
        self._conditions = conditions
        self._sampler, self._storage, self._lock = sampler, storage, threading.RLock()
        self.optuna = optuna.create_study(
            study_name=NAME,
            storage=storage,
            direction=sweep.objective.direction,
            pruner=samplers.make_pruner(pruner, sweep),
            load_if_exists=True,
        )
        stored = self.optuna.user_attrs.get('sweep')
        if stored not in (None, about):
            raise UserError(
                'The --storage holds the trials of another sweep: choose another database.'
            )
        if stored is None:
            self.optuna.set_user_attr('sweep', about)
        if about['storage'] is not None:  # a journal is in the folder itself
            self._check_folder()
        self._owner = Owner(folder, alone)
        if sampler == 'grid':
            self._lay_grid()

    def _check_folder(self) -> None:
        """Checks that all processes with this storage have the same folder.

        The folder tells which processes are alive, and has the checkpoints of the trials.
        """
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
        """Frees the trials of this process, so that others may take them over."""
        self._owner.close()

    def ask(self) -> OpenTrial | None:
        """Returns the next trial: one whose process died, or a new one; None if there is none."""
        with self._lock, self._owner.drawing():
            trial, reported = self._orphan() or self._new() or (None, set())
            if trial is None:
                return None
            self._owner.claim(trial)
            parameters = {}
            for name in self._conditions.names if self._conditions else self.sweep.space:
                if self._conditions and not self._conditions.means(name, parameters):
                    continue
                # Each draw has its own seed. A trial whose process died between two draws then
                # gets the same values for the rest.
                self._seed_sampler(trial.number, name)
                parameters[name] = self.sweep.space[name].suggest(trial, name)
            return OpenTrial(self, trial, parameters, reported)

    def began(self) -> bool:
        """Whether a trial was ever started; those of a grid wait in the study from the start."""
        trials = self.optuna.get_trials(deepcopy=False)
        return any(trial.state != TrialState.WAITING for trial in trials)

    def load(self) -> tuple[int, int]:
        """Returns how many trials are running, and how many could be drawn or taken over."""
        trials = self.optuna.get_trials(deepcopy=False)
        drawn = sum(trial.state != TrialState.WAITING for trial in trials)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        orphans = sum(map(self._owner.takes, running))
        return len(running) - orphans, max(self.trials - drawn, 0) + orphans

    def _seed_sampler(self, *draw: Any) -> None:
        text = f'{self.sweep.seed} {draw}'
        self.optuna.sampler = samplers.make_sampler(self._sampler, zlib.crc32(text.encode()))

    def _lay_grid(self) -> None:
        """Enqueues the points of the grid as trials, in an order drawn from the seed.

        Optuna's own GridSampler does not work with asking for trials one by one.
        """
        sizes = [values.size for values in self.sweep.space.values()]
        if math.prod(sizes) > MOST_POINTS:
            raise UserError(
                f'The grid has more than {MOST_POINTS:,} points: choose another --sampler, or '
                'fewer points.'
            )
        values = itertools.product(*(v.grid() for v in self.sweep.space.values()))
        points = [dict(zip(self.sweep.space, point, strict=True)) for point in values]
        if self._conditions:  # points that differ only in what means nothing are one
            kept = map(self._conditions.kept, points)
            points = list({tuple(sorted(point.items())): point for point in kept}.values())
        random.Random(self.sweep.seed).shuffle(points)
        self.trials = min(self.trials, len(points))
        with self._owner.drawing():
            stored = self.optuna.get_trials(deepcopy=False)
            for point in points[len(stored) : self.trials]:
                self.optuna.enqueue_trial(point)
            for trial, point in zip(stored, points, strict=False):
                # In a journal that was mended, others took the places of trials that were lost.
                if trial.state == TrialState.RUNNING and POINT not in trial.system_attrs:
                    self._storage.set_trial_system_attr(trial._trial_id, POINT, point)

    def _new(self) -> tuple[optuna.Trial, set[int]] | None:
        """Returns a new trial and its reported evaluations; None if all trials have been drawn."""
        trials = self.optuna.get_trials(deepcopy=False)
        count = sum(trial.state != TrialState.WAITING for trial in trials)
        if count >= self.trials:
            return None
        self._seed_sampler(count)
        trial = self.optuna.ask()
        # A mended journal may have lost that a trial began, and kept what it reported.
        return trial, set(self._storage.get_trial(trial._trial_id).intermediate_values)

    def _orphan(self) -> tuple[optuna.Trial, set[int]] | None:
        """Returns a trial whose process died and the evaluations it has reported, or None."""
        for frozen in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._owner.takes(frozen, drawing=True):
                # A trial with the same id finds its values in the storage. FrozenTrial has no
                # public attribute for the id.
                trial = optuna.Trial(self.optuna, frozen._trial_id)
                return trial, set(frozen.intermediate_values)
        return None

    def check(self, number: int) -> None:
        """Raises owner.TakenOverError if another process has taken over a trial of this one."""
        self._owner.check(self.optuna, number)

    def note(
        self, trial: optuna.Trial, number: int, value: float, step: int, reported: set[int]
    ) -> bool:
        """Stores evaluation `number`, from 1; returns whether the trial should be stopped.

        Args:
          trial: a trial of this process.
          number: number of the evaluation in the trial.
          value: the objective's metric.
          step: number of updates before the evaluation.
          reported: evaluations that were stored before the trial was started again.
        """
        with self._lock:
            self.check(trial.number)
            # Optuna ignores a second value of an evaluation, with a warning.
            if number not in reported:
                trial.report(value, number)
            # A trial that was started again is judged by new evaluations only: the pruner looks at
            # the latest stored one, which this trial has not reached again.
            if number < max(reported, default=0):
                return False
            trial.set_user_attr('steps', step)
            if 'hopeless' in trial.user_attrs or trial.should_prune():
                # Stored, because Optuna answers so only once, and this process may die before it
                # has ended the trial.
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
        """Returns the completed trials, the best first, equal ones by number."""
        done = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if self.sweep.objective.direction == 'maximize' else 1
        return sorted(done, key=lambda trial: (sign * trial.value, trial.number))

    def best(self) -> optuna.trial.FrozenTrial | None:
        """Returns the best completed trial; None without one."""
        return next(iter(self.ranked()), None)


def _identity(folder: Path) -> str:
    """Returns a text that identifies this folder, even if it is moved."""
    file = folder / 'identity'
    if not file.exists():
        # Linked and not written: of several processes, one makes the file, and it is complete.
        new = folder / f'identity.{uuid.uuid4().hex}'
        files.replace(new, new.suffix[1:].encode())
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(new, file)
        new.unlink()
    return file.read_text()


def check_settings(folder: Path, own: dict[str, Any]) -> None:
    """Stores the settings of a sweep in its folder, or compares them with the stored ones.

    Args:
      folder: the workdir of the sweep.
      own: the result of `describe`.

    Raises:
      UserError: the folder holds another sweep, or a run of train.py.
    """
    file = folder / SETTINGS
    if not file.exists():
        if (folder / 'config.json').exists():
            raise UserError(f'{folder} holds a run of train.py. Choose another --workdir.')
        files.write_json(file, own)
        return
    like = dict.fromkeys(own, object) | {'config': dict}
    remedy = 'Restore that file from a copy of the folder, or choose another --workdir.'
    stored = files.read_json(file, like, remedy)
    stored['config'] = base.as_written(stored['config'])
    for name in ('space', 'objective', 'seed', 'grid', 'storage', 'config'):
        if stored[name] != own[name]:
            what = name
            if name == 'config':
                pairs = schema.differences(stored[name], own[name], base.fields(), base.EXPERIMENT)
                if not pairs:
                    continue
                what = ', '.join(f'config.{k} ({a!r}, now {b!r})' for k, (a, b) in pairs.items())
            raise UserError(
                f'{folder} holds a sweep that differs in {what}. Choose another --workdir.'
            )


def describe(sweep: Sweep, config: ConfigDict, sampler: str, url: str | None) -> dict[str, Any]:
    """Returns the settings that have to be the same when a sweep is resumed, for JSON."""
    values = {
        name: {'kind': type(v).__name__.lower(), **{k: schema.plain(x) for k, x in vars(v).items()}}
        for name, v in sweep.space.items()
    }
    return {
        'space': values,
        'objective': vars(sweep.objective).copy(),
        'seed': sweep.seed,
        'grid': sampler == 'grid',  # the trials of a grid are stored in advance
        'storage': url,
        'config': base.stored(config),
    }
