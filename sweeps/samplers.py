"""Optuna's samplers and pruners, by the names that the command line has for them."""

import optuna

from configs.search import Sweep


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Returns one of Optuna's samplers."""
    if name in ('random', 'grid'):  # the points of a grid are stored in advance
        return optuna.samplers.RandomSampler(seed)
    if name == 'cmaes':
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    # Running trials count as bad ones, so that trials drawn meanwhile are not close to them.
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def make_pruner(name: str, sweep: Sweep) -> optuna.pruners.BasePruner:
    """Returns one of Optuna's pruners; the steps of a trial are the numbers of its evaluations."""
    if name == 'asha':
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=sweep.first_rung, reduction_factor=sweep.reduction
        )
    if name == 'median':
        return optuna.pruners.MedianPruner(n_warmup_steps=sweep.first_rung)
    return optuna.pruners.NopPruner()
