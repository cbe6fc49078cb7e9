"""LeNet-5 on 10 labelled digits of each class, from scratch."""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.data.name = 'digits'
    config.data.train_per_class = 10
    config.batch_size = 50
    config.steps = 1000
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 3e-3
    config.schedule.unit = 'steps'
    config.schedule.warmup = 50.0
    config.augment.shift = 2.0
    config.augment.rotate = 10.0
    config.augment.scale = 0.1
    config.eval_every = 100.0
    config.checkpoint.every_steps = 500
    return config
