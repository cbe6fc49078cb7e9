"""One batch over-fitted: whether the network learns at all, before hours are spent on it.

By the run's own compiled step, so nothing is compiled for this.
"""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from distributed import hosts, watchdog
from errors import UserError
from tools.preflight.findings import Finding
from tools.preflight.prepared import Prepared

STEPS = 30
SECONDS = 20.0  # for them, if they are slow
FEW = 10  # steps, with fewer of which nothing is wrong if the loss has not fallen yet
LEARNED = 0.9  # of the first loss: lower than that after some tens of steps
STUCK = 0.99  # of it: a fixed batch has no noise, so that a small enough step has to go down
FACTORS = (1.0, 0.1, 0.01, 10.0)  # on the learning rate, one after the other until it learns
# What keeps the loss of a batch up, however well it is learned.
_OFF = ('weight_decay', 'label_smoothing', 'dropout_rate', 'mix_probability')


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Losses (means) and shares of right answers, one for each step, before its update."""

    losses: np.ndarray
    right: np.ndarray

    @property
    def finite(self) -> bool:
        return bool(np.all(np.isfinite(self.losses)))

    @property
    def last(self) -> float:
        """The loss at the end; momentum makes it swing, so the lowest of three."""
        return float(self.losses[-3:].min())

    def below(self, share: float) -> bool:
        """Whether the loss ends below that share of the first."""
        return self.finite and self.last < share * self.losses[0]

    def learned(self, guess: float) -> bool:
        """Whether the images were learned, and not only how frequent the classes are.

        Args:
          guess: the share of right answers if all are the most frequent class. Half as many again
            have to be right, or half of the others where that is less.
        """
        return self.below(LEARNED) and self.right[-3:].max() > min(1.5 * guess, (1 + guess) / 2)


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
    guess = _guess(run, batch)
    for factor in FACTORS:
        fits[factor * rate] = fit = _fit(run, batch, factor, count)
        count = len(fit.losses)
        if fit.learned(guess) or count < FEW:
            break
    first, learned = fits[rate], fit.learned(guess)
    text = _course(first, run.config.batch_size)
    figures = {
        'steps': count,
        'first_loss': float(first.losses[0]),
        'last_loss': first.last if first.finite else None,
        'first_accuracy': float(first.right[0]),
        'last_accuracy': float(first.right[-1]),
        'learns_at': factor * rate if learned else None,
    }
    if first.learned(guess):
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


def _guess(run: Prepared, batch: dict) -> float:
    """The share of its most frequent class in the batch, as the first process sees it."""
    labels = _own(batch['label' if 'label' in batch else 'index'])
    if 'label' not in batch:
        labels = run.used[0].split.labels[labels]
    return float(hosts.broadcast(np.float32(np.bincount(labels).max() / len(labels))))


def _own(array: jax.Array) -> np.ndarray:
    """This process's part of an array, flat."""
    return np.concatenate([np.ravel(shard.data) for shard in array.addressable_shards])


def _course(fit: _Fit, batch_size: int) -> str:
    if not fit.finite:
        bad = int(np.argmin(np.isfinite(fit.losses)))
        return f'the loss of one batch of {batch_size} is not finite at step {bad + 1}'
    right = ' to '.join(f'{100 * share:.0f} %' for share in (fit.right[0], fit.right[-1]))
    return (
        f'loss {fit.losses[0]:.4g} to {fit.last:.4g}, accuracy {right}, in {len(fit.losses)} steps '
        f'on one batch of {batch_size}'
    )


def _fit(run: Prepared, batch: dict, factor: float, count: int | None) -> _Fit:
    """Some steps from the run's first state; without `count`, as many as the time allows."""
    runner, schedule = run.runner, run.config.schedule
    hyper = {name: np.float32(0) if name in _OFF else value for name, value in run.hyper.items()}
    hyper['learning_rate'] = np.float32(factor * float(hyper['learning_rate']))
    hyper = runner.replicate(hyper)
    unit = run.experiment.steps_per_epoch if schedule.unit == 'epochs' else 1.0
    peak = np.int32(round(schedule.warmup * unit))
    state = fresh_state(run)
    found, dataset, start = [], run.used[0].place.dataset, time.monotonic()
    while count is None or len(found) < count:
        state = state.replace(step=runner.replicate(peak))
        with watchdog.waiting(f'step {len(found) + 1} on one batch'):
            state, metrics = runner.train(state, hyper, batch, dataset)
            metrics = runner.fetch(metrics)
        found.append([float(metrics[name]) / int(metrics['count']) for name in ('loss', 'correct')])
        if count is None and len(found) == 2:
            count = affordable((time.monotonic() - start) / 2, SECONDS, 2, STEPS)
    return _Fit(*np.array(found).T)


def fresh_state(run: Prepared):
    """Returns the run's first state on the devices; a copy, because a step takes its memory."""
    return run.runner.replicate(jax.tree.map(np.copy, run.state))


def affordable(seconds: float, budget: float, least: int, most: int) -> int:
    """Returns how many calls of so many seconds the budget allows; the same on every process."""
    return int(hosts.broadcast(np.int32(np.clip(budget / max(seconds, 1e-9), least, most))))
