"""A fully connected network with two hidden layers and dropout on MNIST.

    python -m tools.prepare_data mnist
    python train.py --config=configs/mnist_fcn.py --workdir=runs/mnist_fcn

Expected: see the table "mnist" in docs/results.md; a few minutes on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'fcn'
    config.model.units = 512
    config.model.depth = 2
    config.model.dropout_rate = 0.3
    config.data.name = 'mnist'
    config.batch_size = 128
    config.epochs = 12.0
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 0.5
    config.augment.shift = 1.0
    return config
