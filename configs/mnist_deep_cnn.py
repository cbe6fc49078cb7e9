"""Two blocks of 5x5 convolution, batch norm, ReLU and max pooling on MNIST.

    python -m tools.prepare_data mnist
    python train.py --config=configs/mnist_deep_cnn.py --workdir=runs/mnist_deep_cnn

Expected: see the table "mnist" in docs/results.md; some ten minutes on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'deep_cnn'
    config.data.name = 'mnist'
    config.batch_size = 128
    config.epochs = 8.0
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 3e-3
    config.schedule.warmup = 0.5
    config.augment.shift = 1.0
    config.augment.rotate = 5.0
    config.augment.scale = 0.05
    return config
