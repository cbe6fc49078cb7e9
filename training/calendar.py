"""At which steps a run records, validates and saves, and how many updates one call does."""

import dataclasses

from training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Calendar:
    """At which steps something is due besides training.

    A period is in steps and need not be whole: the k-th time is at round(k * period), and at the
    last step. `edges` are other steps over which no call may reach.
    """

    steps: int
    log_every: int
    eval_every: float
    save_every: float
    edges: tuple[int, ...] = ()

    @classmethod
    def of(cls, experiment: Experiment, edges: tuple[int, ...] = ()) -> 'Calendar':
        """Reads the periods off the configuration."""
        config, epoch = experiment.config, experiment.steps_per_epoch
        every = config.checkpoint.every_steps or config.checkpoint.every * epoch
        return cls(experiment.steps, config.log_every, config.eval_every * epoch, every, edges)

    def _due(self, step: int, period: float) -> bool:
        period = max(period, 1.0)
        return step == self.steps or step == round(max(round(step / period), 1) * period)

    def evaluates(self, step: int) -> bool:
        """Whether the validation split is read after `step` updates."""
        return self._due(step, self.eval_every)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written after `step` updates."""
        return self._due(step, self.save_every)

    def logs(self, step: int) -> bool:
        """Whether training metrics are recorded: also before each checkpoint.

        So what was summed up before a checkpoint is on record, and a run that goes on from there
        writes the same records as one that was never stopped.
        """
        return step % self.log_every == 0 or self.evaluates(step) or self.saves(step)

    def call(self, step: int, most: int) -> int:
        """Returns how many updates the call after `step` does: `most`, or 1 if that is too far.

        Nothing but these two, so that there are two programs to compile and no more. It depends on
        the step alone: a run that goes on makes the calls of one that was never stopped.
        """
        between = range(step + 1, step + most)
        return 1 if any(self.logs(n) or n in self.edges for n in between) else most
