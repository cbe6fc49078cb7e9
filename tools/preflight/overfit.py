"""One batch over-fitted: whether the network learns at all, before hours are spent on it.

By the run's own compiled step, so nothing is compiled for this.
"""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from configs import base
from distributed import hosts, watchdog
from errors import UserError
from tasks.task import Metric
from tools.preflight.findings import Finding
from tools.preflight.prepared import Prepared

STEPS = 30
SECONDS = 20.0  # for them, if they are slow
FEW = 10  # steps, with fewer of which nothing is wrong if the loss has not fallen yet
LEARNED = 0.9  # of the first loss: lower than that after some tens of steps
STUCK = 0.99  # of it: a fixed batch has no noise, so that a small enough step has to go down
FACTORS = (1.0, 0.1, 0.01, 10.0)  # on the learning rate, one after the other until it learns


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Losses, and values of the task's first metric, at each step before its update.

    `values` is None where the metric cannot be had in training.
    """

    losses: np.ndarray
    values: np.ndarray | None
    metric: Metric

    @property
    def finite(self) -> bool:
        return bool(np.all(np.isfinite(self.losses)))

    @property
    def last(self) -> float:
        """The loss at the end; momentum makes it swing, so the lowest of three."""
        return float(self.losses[-3:].min())

    def below(self, fraction: float) -> bool:
        """Whether the loss ends below that fraction of the first."""
        return self.finite and self.last < fraction * self.losses[0]

    def learned(self, constant: float | None) -> bool:
        """Whether the images were learned, and not only which answer is the most frequent.

        Args:
          constant: the metric's value for the best answer that looks at no image; None where it is
            not known. A fraction has to become half as large again, or half of what it lacks to 1
            where that is less; of a metric of which lower is better, a tenth has to go.
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
    """Trains on the first batch again and again, by the run's own step.

    The step's number stays that at which warm-up ends: the learning rate is the peak, and each
    image is augmented, and each unit dropped, always alike. Weight decay, smoothing, mixing and the
    run's dropout are off; they are arguments of the compiled step.

    A rate at which nothing is learned is a note if another does: only a whole run shows whether
    its schedule copes. It stops the run if the loss goes down at no rate.

    Raises:
      UserError: the loss is not finite, or stays where it is, at every learning rate tried.
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
        return Finding(f'{text}: steps take too long for a verdict', figures, note=True)
    rates = ', '.join(f'{rate:g}' for rate in fits)
    if any(fit.below(STUCK) for fit in fits.values()):
        return Finding(f'{text}: slow, and so it is at {rates}', figures, note=True)
    raise UserError(
        f'The network does not learn one batch: {text}; tried were learning rates of {rates}. '
        'Look at the images and labels (tools.show_batch), config.optimizer and config.freeze.'
    )


def _constant_value(run: Prepared, batch: dict) -> float | None:
    """What the best answer that looks at no image is worth on the batch of the first process."""
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
    if not fit.finite:
        bad = int(np.argmin(np.isfinite(fit.losses)))
        return f'the loss of one batch of {batch_size} is not finite at step {bad + 1}'
    text = f'loss {fit.losses[0]:.4g} to {fit.last:.4g}'
    if fit.values is not None:
        digits = 0 if fit.metric.percent else None
        ends = (fit.metric.shown(value, digits) for value in (fit.values[0], fit.values[-1]))
        text += f', {fit.metric.name} {" to ".join(ends)}'
    return f'{text}, in {len(fit.losses)} steps on one batch of {batch_size}'


def _fit(run: Prepared, batch: dict, factor: float, count: int | None) -> _Fit:
    """Some steps from the run's first state; without `count`, as many as the time allows."""
    runner, schedule = run.runner, run.config.schedule
    # What keeps the loss of a batch up, however well it is learned, is off.
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


def fresh_state(run: Prepared):
    """Returns the run's first state on the devices; a copy, because a step takes its memory."""
    return run.runner.replicate(jax.tree.map(np.copy, run.state))


def affordable(seconds: float, budget: float, least: int, most: int) -> int:
    """Returns how many calls of so many seconds the budget allows; the same on every process."""
    return int(hosts.broadcast(np.int32(np.clip(budget / max(seconds, 1e-9), least, most))))
