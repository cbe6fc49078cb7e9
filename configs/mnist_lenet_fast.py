"""LeNet-5 on MNIST in half the epochs: a higher rate and weaker augmentation.

    python -m tools.prepare_data mnist
    python train.py --config=configs/mnist_lenet_fast.py --workdir=runs/mnist_lenet_fast

Expected: 99.0 % of the validation split after the third or fourth epoch; the longer run of
mnist_lenet.py ends a little higher.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.data.name = 'mnist'
    config.batch_size = 128
    config.epochs = 4.0
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 5e-3
    config.schedule.warmup = 0.2
    config.augment.shift = 1.0
    config.augment.rotate = 5.0
    config.augment.scale = 0.05
    return config
