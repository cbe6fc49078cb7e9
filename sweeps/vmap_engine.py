"""Engine `vmap`: trials that differ only in values are lanes of one compiled program.

Trials whose configurations compile to other programs (another model, batch size, length) wait until
the population under way has ended, and make populations of their own.
"""

import collections
import time

import jax

import input_pipeline
from distributed import devices
from errors import UserError
from sweeps import population
from sweeps.engine import Work, configuration
from sweeps.owner import TakenOverError
from sweeps.population import Population
from sweeps.study import OpenTrial
from training import checks

MOST = {'cpu': 16}  # lanes, where the command line does not say
MOST_ELSEWHERE = 256
# Of the trials drawn for other populations at most so many wait for theirs.
WAITING = 64


def run(work: Work) -> None:
    """Runs trials until all have ended, or the sweep is told to stop.

    Raises:
      UserError: the configuration needs another engine, or its data are not there.
    """
    population.check(work.config)
    _Engine(work).run()


class _Engine:
    def __init__(self, work: Work):
        self._work, self._study = work, work.study
        self._devices = devices.start(work.config)
        self._waiting = collections.defaultdict(collections.deque)  # alike -> (trial, config)
        self._splits = {}

    def run(self) -> None:
        self._open(self._work.config)  # what is wrong with the data is wrong with all trials
        while self._work.stop.reason() is None:
            kind = max(self._waiting, key=lambda key: len(self._waiting[key]), default=None)
            if kind is None or not self._waiting[kind]:
                drawn = self._draw()
                if drawn is None:
                    return
                kind = population.alike(drawn[1])
                self._waiting[kind].append(drawn)
            self._populate(kind)

    def _draw(self) -> tuple[OpenTrial, object] | None:
        """A trial and its configuration; those that cannot be are noted as failed."""
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
            self._work.ended(trial, f'cannot be: {error}', 0)

    def _next(self, kind: str) -> tuple[OpenTrial, object] | None:
        """The next trial of a kind; others that are drawn meanwhile wait."""
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
        lanes.start(0, config, (trial, time.monotonic()))
        while True:
            self._fill(lanes, kind)
            if not any(lanes.lanes):
                return
            found = lanes.advance(self._work.stop.reason)
            if self._work.stop.reason() is not None:
                return
            self._tell_leader(lanes, found)
            for place, means in found.items():
                try:
                    self._judge(lanes, place, means)
                except TakenOverError as error:
                    self._work.say(str(error))
                    lanes.drop(place)

    def _size(self, config, train_split) -> int:
        given = self._work.options.get('lanes')
        if given:
            return given
        left = self._study.trials - len(self._study.finished())
        most = MOST.get(jax.default_backend(), MOST_ELSEWHERE)
        fit = population.most_lanes(config, train_split, self._devices[0])
        return max(1, min(left, min(most, fit) * len(self._devices)))

    def _open(self, config) -> tuple:
        where = config.data.name, config.data.dir, config.data.train_per_class, config.seed
        key = where if config.data.train_per_class else where[:2]
        if key not in self._splits:
            self._splits[key] = tuple(
                input_pipeline.open_split(config, split) for split in ('train', 'validation')
            )
        return self._splits[key]

    def _fill(self, lanes: Population, kind: str) -> None:
        for place, lane in enumerate(lanes.lanes):
            if lane is None:
                drawn = self._next(kind)
                if drawn is None:
                    return
                trial, config = drawn
                lanes.start(place, config, (trial, time.monotonic()))

    def _tell_leader(self, lanes: Population, found: dict) -> None:
        objective = self._work.sweep.objective
        metric = objective.metric.partition('/')[2]
        sound = [(means[metric], place) for place, means in found.items() if means]
        if sound:
            value, place = (max if objective.direction == 'maximize' else min)(sound)
            lane = lanes.lanes[place]
            self._work.tell(
                len(found),
                f'trial {lane.tag[0].number} leads with {value:.4f} at step {lane.step:,}',
            )

    def _judge(self, lanes: Population, place: int, means: dict[str, float] | None) -> None:
        """Reports a lane's evaluation; ends its trial if it is done, hopeless or not finite."""
        lane = lanes.lanes[place]
        trial, started = lane.tag
        running = sum(lane is not None for lane in lanes.lanes)
        how = None
        trial.note(seconds=round(time.monotonic() - started, 3))
        if means is None:
            trial.fail(f'loss or gradient not finite by step {lane.step}')
            how = f'not finite by step {lane.step}'
        else:
            metric = self._work.sweep.objective.metric.partition('/')[2]
            prune = trial.report(means[metric], lane.step)
            if lanes.finished(place):
                how = f'{trial.complete():.4f}'
            elif prune:
                trial.prune()
                how = f'stopped at step {lane.step} with {means[metric]:.4f}'
        if how is not None:
            lanes.drop(place)
            self._work.ended(trial, how, running - 1)
