"""The steps at which a run records, validates and saves, and how many updates one call does."""

import dataclasses

from training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The steps at which something is due besides training.

    A period is in steps and need not be whole: the k-th time is at round(k * period). Everything is
    due at the last step as well.

    Attributes:
      steps: length of the run in updates.
      log_every: period of the training metrics.
      eval_every: period of the validations.
      save_every: period of the checkpoints.
      edges: other steps that must be the end of a call, such as those of a trace.
    """

    steps: int
    log_every: int
    eval_every: float
    save_every: float
    edges: tuple[int, ...] = ()

    @classmethod
    def of(cls, experiment: Experiment, edges: tuple[int, ...] = ()) -> 'Calendar':
        """Returns the calendar of an experiment, whose configuration has the periods."""
        config, epoch = experiment.config, experiment.steps_per_epoch
        every = config.checkpoint.every_steps or config.checkpoint.every * epoch
        return cls(experiment.steps, config.log_every, config.eval_every * epoch, every, edges)

    def _due(self, step: int, period: float) -> bool:
        period = max(period, 1.0)
        return step == self.steps or step == round(max(round(step / period), 1) * period)

    def evaluates(self, step: int) -> bool:
        """Returns whether the validation split is evaluated after `step` updates."""
        return self._due(step, self.eval_every)

    def saves(self, step: int) -> bool:
        """Returns whether a checkpoint is written after `step` updates."""
        return self._due(step, self.save_every)

    def logs(self, step: int) -> bool:
        """Returns whether training metrics are recorded after `step` updates.

        They are also recorded before each checkpoint. The sums up to a checkpoint are then on
        record, and a resumed run writes the same records as one that was never stopped.
        """
        return step % self.log_every == 0 or self.evaluates(step) or self.saves(step)

    def call(self, step: int, most: int) -> int:
        """Returns how many updates the call after `step` does: `most`, or 1 if that is too many.

        Only these two numbers occur, so that at most two programs are compiled. The number depends
        on the step alone, so that a resumed run makes the calls of one that was never stopped.
        """
        between = range(step + 1, step + most)
        return 1 if any(self.logs(n) or n in self.edges for n in between) else most
