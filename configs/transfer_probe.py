"""A linear probe."""

from configs import transfer_finetune


def get_config():
    """Returns the experiment's configuration."""
    config = transfer_finetune.get_config()
    config.linear_probe = True
    config.augment.shift = 0.0
    config.augment.rotate = 0.0
    config.augment.scale = 0.0
    config.optimizer.learning_rate = 1e-2
    return config
