"""Overfits one batch, which shows whether the network learns at all.

It uses the compiled step of the run, so nothing is compiled for it.
"""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from configs import base
from distributed import hosts, watchdog
from errors import UserError
from tasks.answer import Metric
from tasks.task import Batch
from tools.preflight.findings import Finding
from tools.preflight.prepared import Prepared
from training.state import TrainState

STEPS = 30
SECONDS = 20.0  # time for them; slow ones are fewer
FEW = 10  # steps; after fewer, a loss that has not decreased proves nothing
LEARNED = 0.9  # of the first loss: the batch is learned if the loss ends below
# Of the first loss: the network does not learn if the loss ends above. A fixed batch has no noise,
# so a small enough step decreases its loss.
STUCK = 0.99
FACTORS = (1.0, 0.1, 0.01, 10.0)  # on the learning rate, tried in this order until one learns


@dataclasses.dataclass(frozen=True)
class _Fit:
    """The course of some steps on one batch.

    Attributes:
      losses: the loss before the update of each step.
      values: the task's first metric, likewise; None if it cannot be computed in training.
      metric: that metric.
    """

    losses: np.ndarray
    values: np.ndarray | None
    metric: Metric

    @property
    def finite(self) -> bool:
        return bool(np.all(np.isfinite(self.losses)))

    @property
    def last(self) -> float:
        """The loss at the end: the lowest of three, because momentum makes it oscillate."""
        return float(self.losses[-3:].min())

    def below(self, fraction: float) -> bool:
        """Returns whether the loss ends below that fraction of the first loss."""
        return self.finite and self.last < fraction * self.losses[0]

    def learned(self, constant: float | None) -> bool:
        """Returns whether the images were learned, and not only the most frequent answer.

        Args:
          constant: the metric's value for the best answer that ignores the images, or None if it is
            unknown. If higher is better, the metric has to exceed 1.5 times that value, or the
            middle between it and 1 if that is less. If lower is better, it has to fall below 0.9
            times that value.
        """
        if not self.below(LEARNED):
            return False
        if constant is None or self.values is None:
            return True
        best = self.metric.best(self.values[-3:])
        if self.metric.higher_is_better:
            return best > min(1.5 * constant, (1 + constant) / 2)
        return best < LEARNED * constant


def check(run: Prepared) -> Finding:
    """Trains on the first batch repeatedly, by the step of the run.

    The number of the step stays that at which warm-up ends. So the learning rate is the peak, and
    each image is always augmented, and each unit dropped, in the same way. Weight decay, smoothing,
    mixing and the run's dropout are off, which needs no compilation: they are arguments of the
    step.

    If the batch is learned at another learning rate only, that is a note, because only a whole run
    shows whether its schedule works. If the loss decreases at no rate, it is a no-go.

    Raises:
      UserError: the loss is not finite or does not decrease, at every learning rate tried.
    """
    rate, fits, count = run.config.optimizer.learning_rate, {}, None
    with contextlib.closing(run.used[0].place.train_batches(0)) as batches:
        batch = next(batches)
    constant = _constant_value(run, batch)
    for factor in FACTORS:
        fits[factor * rate] = fit = _fit(run, batch, factor, count)
        count = len(fit.losses)
        if fit.learned(constant) or count < FEW:
            break
    first, learned = fits[rate], fit.learned(constant)
    text = _course(first, run.config.batch_size)
    figures = {
        'steps': count,
        'first_loss': float(first.losses[0]),
        'last_loss': first.last if first.finite else None,
        'learns_at': factor * rate if learned else None,
    }
    if first.values is not None:
        name = first.metric.name
        figures |= {f'first_{name}': first.values[0], f'last_{name}': first.values[-1]}
    if first.learned(constant):
        return Finding(text, figures)
    if learned:
        hint = f'; it is learned at {factor * rate:g} and not at {rate:g}, the learning rate'
        return Finding(text + hint, figures, note=True)
    if count < FEW and first.finite:
        return Finding(f'{text}: the steps are too slow for a verdict', figures, note=True)
    rates = ', '.join(f'{rate:g}' for rate in fits)
    if any(fit.below(STUCK) for fit in fits.values()):
        return Finding(f'{text}: it learns slowly at all of {rates}', figures, note=True)
    raise UserError(
        f'The network does not learn one batch: {text}; the learning rates tried were {rates}. '
        'Check the images and labels (tools.show_batch), config.optimizer and config.freeze.'
    )


def _constant_value(run: Prepared, batch: Batch) -> float | None:
    """Returns the metric of the best answer that ignores the images, on process 0's batch."""
    task, split = run.runner.spec.task, run.used[0].split
    index = run.runner.fetch_rows({'index': batch['index']})['index']
    targets = {
        name: run.runner.fetch_rows({name: batch[name]})[name]
        if name in batch
        else split.arrays[name][index]
        for name in task.targets
    }
    value = task.constant_value(targets)
    return None if value is None else float(hosts.broadcast(np.float32(value)))


def _course(fit: _Fit, batch_size: int) -> str:
    """Returns a fit as text."""
    if not fit.finite:
        bad = int(np.argmin(np.isfinite(fit.losses)))
        return f'the loss of one batch of {batch_size} is not finite at step {bad + 1}'
    text = f'loss {fit.losses[0]:.4g} to {fit.last:.4g}'
    if fit.values is not None:
        digits = 0 if fit.metric.percent else None
        ends = (fit.metric.shown(value, digits) for value in (fit.values[0], fit.values[-1]))
        text += f', {fit.metric.name} {" to ".join(ends)}'
    return f'{text}, in {len(fit.losses)} steps on one batch of {batch_size}'


def _fit(run: Prepared, batch: Batch, factor: float, count: int | None) -> _Fit:
    """Does some steps on a batch, from the run's first state.

    Args:
      run: the run.
      batch: placed on the devices.
      factor: on the learning rate.
      count: number of steps; None: as many as SECONDS allow.
    """
    runner, schedule = run.runner, run.config.schedule
    # Regularizers keep the loss of a batch high, however well it is learned.
    off = {field.leaf for field in base.fields() if field.regularizer}
    hyper = {name: np.float32(0) if name in off else value for name, value in run.hyper.items()}
    hyper['learning_rate'] = np.float32(factor * float(hyper['learning_rate']))
    hyper = runner.replicate(hyper)
    unit = run.experiment.steps_per_epoch if schedule.unit == 'epochs' else 1.0
    peak = np.int32(round(schedule.warmup * unit))
    state = fresh_state(run)
    means, dataset, start = [], run.used[0].place.dataset, time.monotonic()
    while count is None or len(means) < count:
        state = state.replace(step=runner.replicate(peak))
        with watchdog.waiting(f'step {len(means) + 1} on one batch'):
            state, metrics = runner.train(state, hyper, batch, dataset)
            metrics = runner.fetch(metrics)
        means.append(runner.spec.task.summarize(metrics))
        if count is None and len(means) == 2:
            count = affordable((time.monotonic() - start) / 2, SECONDS, 2, STEPS)
    metric = runner.spec.task.metric()
    values = None
    if metric.name in means[0]:
        values = np.array([mean[metric.name] for mean in means])
    return _Fit(np.array([mean['loss'] for mean in means]), values, metric)


def fresh_state(run: Prepared) -> TrainState:
    """Returns a copy of the run's first state on the devices; a step takes its memory."""
    return run.runner.replicate(jax.tree.map(np.copy, run.state))


def affordable(seconds: float, budget: float, least: int, most: int) -> int:
    """Returns how many calls a budget allows, the same number on every process.

    Args:
      seconds: duration of one call.
      budget: seconds for all calls.
      least, most: limits of the number.
    """
    return int(hosts.broadcast(np.int32(np.clip(budget / max(seconds, 1e-9), least, most))))
