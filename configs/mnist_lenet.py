"""LeNet-5 on MNIST.

    python -m tools.prepare_data mnist
    python train.py --config=configs/mnist_lenet.py --workdir=runs/mnist_lenet

Expected: see the table "mnist" in docs/results.md; half a minute on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.model.initialization = 'uniform'
    config.data.name = 'mnist'
    config.batch_size = 128
    config.epochs = 8.0
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 2e-3
    config.schedule.warmup = 0.5
    config.augment.shift = 2.0
    config.augment.rotate = 8.0
    config.augment.scale = 0.08
    return config
