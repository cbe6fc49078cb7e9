"""Engine `vmap`: trials that differ only in values are lanes of one compiled program.

Trials whose configurations compile to other programs (another model, batch size, length) wait until
the current population has ended, and form populations of their own.
"""

import collections
import time

import jax
from ml_collections import ConfigDict

import input_pipeline
from data_sources.arrays import ArraySource
from distributed import devices
from errors import UserError
from sweeps import population
from sweeps.engine import Work, configuration
from sweeps.owner import TakenOverError
from sweeps.population import Population
from sweeps.study import OpenTrial
from training import checks

Drawn = tuple[OpenTrial, ConfigDict]  # a trial and its configuration

MOST = {'cpu': 16}  # lanes per device, unless the command line has --lanes
MOST_ELSEWHERE = 256
WAITING = 64  # trials, at most, that have been drawn and wait for other populations


def run(work: Work) -> None:
    """Runs trials until all have ended or the sweep is told to stop.

    Raises:
      UserError: the configuration needs another engine, or its data set is missing.
    """
    population.check(work.config)
    _Engine(work).run()


class _Engine:
    """Runs populations one after the other."""

    def __init__(self, work: Work):
        self._work, self._study = work, work.study
        self._devices = devices.start(work.config)
        # The text of `population.alike` -> trials that wait for their population.
        self._waiting: dict[str, collections.deque[Drawn]] = collections.defaultdict(
            collections.deque
        )
        self._splits: dict[tuple, tuple[ArraySource, ArraySource]] = {}

    def run(self) -> None:
        # A mistake in the data would fail every trial, so it ends the sweep before the first.
        self._open(self._work.config)
        while self._work.stop.reason() is None:
            kind = max(self._waiting, key=lambda key: len(self._waiting[key]), default=None)
            if kind is None or not self._waiting[kind]:
                drawn = self._draw()
                if drawn is None:
                    return
                kind = population.alike(drawn[1])
                self._waiting[kind].append(drawn)
            self._populate(kind)

    def _draw(self) -> Drawn | None:
        """Returns the next trial with a valid configuration; invalid ones fail. None at the end."""
        while (trial := self._study.ask()) is not None:
            try:
                config = configuration(self._work.config, trial.parameters)
                population.check(config)
                checks.check_devices(config, 1)
                return trial, config
            except UserError as error:
                self._fail(trial, error)
        return None

    def _fail(self, trial: OpenTrial, error: UserError) -> None:
        try:
            trial.fail(str(error))
        except TakenOverError as taken:
            self._work.say(str(taken))
        else:
            self._work.ended(trial, f'invalid: {error}', 0)

    def _next(self, kind: str) -> Drawn | None:
        """Returns the next trial of a kind; others that are drawn meanwhile wait."""
        while not self._waiting[kind]:
            if sum(map(len, self._waiting.values())) >= WAITING:
                return None
            drawn = self._draw()
            if drawn is None:
                return None
            self._waiting[population.alike(drawn[1])].append(drawn)
        return self._waiting[kind].popleft()

    def _populate(self, kind: str) -> None:
        """Runs one population until no trial of its kind is left."""
        trial, config = self._waiting[kind].popleft()
        try:
            splits = self._open(config)
            lanes = Population(config, *splits, self._size(config, splits[0]), self._devices)
        except UserError as error:
            self._fail(trial, error)
            return
        self._work.say(
            f'{len(lanes.lanes)} lanes of {config.model.name} on {config.data.name}: '
            f'{lanes.experiment.steps:,} steps, {lanes.evaluations} evaluations each'
        )
        if lanes.experiment.warning:
            self._work.say(lanes.experiment.warning)
        lanes.start(0, config, (trial, time.monotonic()))
        while True:
            self._fill(lanes, kind)
            if not any(lanes.lanes):
                return
            evaluations = lanes.advance(self._work.stop.reason)
            if self._work.stop.reason() is not None:
                return
            self._tell_leader(lanes, evaluations)
            for position, means in evaluations.items():
                try:
                    self._judge(lanes, position, means)
                except TakenOverError as error:
                    self._work.say(str(error))
                    lanes.drop(position)

    def _size(self, config: ConfigDict, train_split: ArraySource) -> int:
        """Returns the number of lanes of a population."""
        given = self._work.options.get('lanes')
        if given:
            return given
        left = self._study.trials - len(self._study.finished())
        most = MOST.get(jax.default_backend(), MOST_ELSEWHERE)
        fit = population.most_lanes(config, train_split, self._devices[0])
        return max(1, min(left, min(most, fit) * len(self._devices)))

    def _open(self, config: ConfigDict) -> tuple[ArraySource, ArraySource]:
        """Returns the training and validation splits of a configuration; each set is read once."""
        source = config.data.name, config.data.dir, config.data.train_per_class, config.seed
        key = source if config.data.train_per_class else source[:2]
        if key not in self._splits:
            self._splits[key] = tuple(
                input_pipeline.open_split(config, split) for split in ('train', 'validation')
            )
        return self._splits[key]

    def _fill(self, lanes: Population, kind: str) -> None:
        """Starts trials in the idle lanes."""
        for position, lane in enumerate(lanes.lanes):
            if lane is None:
                drawn = self._next(kind)
                if drawn is None:
                    return
                trial, config = drawn
                lanes.start(position, config, (trial, time.monotonic()))

    def _tell_leader(
        self, lanes: Population, evaluations: dict[int, dict[str, float] | None]
    ) -> None:
        """Prints which of the running trials is the best."""
        objective = self._work.sweep.objective
        metric = objective.metric.partition('/')[2]
        sound = [(means[metric], position) for position, means in evaluations.items() if means]
        if sound:
            value, position = objective.best(sound)
            lane = lanes.lanes[position]
            self._work.tell(
                len(evaluations),
                f'trial {lane.tag[0].number} leads with {value:.4f} at step {lane.step:,}',
            )

    def _judge(self, lanes: Population, position: int, means: dict[str, float] | None) -> None:
        """Reports a lane's evaluation; ends its trial if it is done, pruned or not finite."""
        lane = lanes.lanes[position]
        trial, started = lane.tag
        running = sum(lane is not None for lane in lanes.lanes)
        outcome = None
        # Facts can be stored only before the trial ends.
        trial.note(seconds=round(time.monotonic() - started, 3))
        if means is None:
            trial.fail(f'loss or gradient not finite by step {lane.step}')
            outcome = f'not finite by step {lane.step}'
        else:
            metric = self._work.sweep.objective.metric.partition('/')[2]
            prune = trial.report(means[metric], lane.step)
            # A trial at its end is complete, even if the pruner would stop it.
            if lanes.finished(position):
                outcome = f'{trial.complete():.4f}'
            elif prune:
                trial.prune()
                outcome = f'stopped at step {lane.step} with {means[metric]:.4f}'
        if outcome is not None:
            lanes.drop(position)
            self._work.ended(trial, outcome, running - 1)
