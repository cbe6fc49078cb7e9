"""Strided 3x3 convolutions and global average pooling on MNIST: no pooling between the layers.

    python -m tools.prepare_data mnist
    python train.py --config=configs/mnist_strided_cnn.py --workdir=runs/mnist_strided_cnn

Expected: see the table "mnist" in docs/results.md; half an hour on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'strided_cnn'
    config.data.name = 'mnist'
    config.batch_size = 128
    config.epochs = 3.0
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 0.5
    config.augment.shift = 2.0
    config.augment.rotate = 8.0
    config.augment.scale = 0.08
    return config
