"""The base of the small comparisons: LeNet-5 on the digits, 20 epochs, no augmentation.

    python train.py --config=configs/digits_compare.py --workdir=runs/tanh \
        --config.model.activation=tanh

Expected: see the small experiments in docs/results.md; a quarter of a minute on two CPU cores.
"""

from configs import digits_lenet


def get_config():
    """Returns the experiment's configuration."""
    config = digits_lenet.get_config()
    config.epochs = 20.0
    config.optimizer.learning_rate = 2e-3
    config.augment.shift = 0.0
    config.augment.rotate = 0.0
    config.augment.scale = 0.0
    config.checkpoint.every = 20.0
    return config
