"""Shrinks a configuration with `smoke=True` to a run of a few steps, which shows that it works.

Only lengths and batch sizes change. The size of images, the network, augmentation, loss and
optimizer stay the same, and so does every path through the code. The validation and test splits of
such a run are a sample of the data set's (`input_pipeline.open_split`).
"""

from ml_collections import ConfigDict

STEPS, BATCH, EVAL_BATCH = 4, 8, 16


def largest_batch(config: ConfigDict) -> int:
    """Returns the largest batch size that a smoke run keeps.

    It is 8, or a pair of examples for each micro-batch of each device if that is more.
    """
    unit = 2 * max(config.devices, 1) * min(config.accumulate, 2)
    return max(BATCH, unit) // unit * unit


def shrunk(config: ConfigDict) -> ConfigDict:
    """Returns the configuration that a run uses, shrunk if config.smoke is set.

    A configuration that has been shrunk stays the same, so that a smoke run can be resumed from its
    own config.json.

    Args:
      config: checked, with the command line applied; it is not modified.
    """
    if not config.smoke:
        return config
    config = config.copy_and_resolve_references()
    # None may become a number, which ConfigDict's own check of types refuses.
    with config.ignore_type():
        config.steps = min(config.steps or STEPS, STEPS)
        config.checkpoint.every_steps = max(config.steps // 2, 1)
    if config.batch_size > largest_batch(config):
        config.batch_size = largest_batch(config)
        config.accumulate = min(config.accumulate, 2)
    config.eval_batch_size = min(config.eval_batch_size, EVAL_BATCH)
    config.log_every = 1
    config.eval_every = max(config.eval_every, 1.0)
    schedule, count = config.schedule, len(config.schedule.milestones)
    schedule.unit = 'steps'
    schedule.warmup = min(1.0, config.steps / 2) if schedule.warmup else 0.0
    schedule.milestones = tuple(config.steps * i / (count + 1) for i in range(1, count + 1))
    return config
