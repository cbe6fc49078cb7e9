"""LeNet-5 on the embedded digits: 1,797 real handwritten digits, no download.

    python train.py --config=configs/digits_lenet.py --workdir=runs/digits_lenet

Expected: see the table "digits" in docs/results.md; under half a minute on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.data.name = 'digits'
    config.batch_size = 128
    config.epochs = 60.0
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 4e-3
    config.schedule.warmup = 2.0
    config.augment.shift = 2.0
    config.augment.rotate = 10.0
    config.augment.scale = 0.1
    config.eval_every = 5.0
    config.checkpoint.every = 10.0
    return config
