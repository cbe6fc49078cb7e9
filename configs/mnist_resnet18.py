"""ResNet-18 on MNIST, with a 3x3 stem of stride 2.

    python -m tools.prepare_data mnist
    python train.py --config=configs/mnist_resnet18.py --workdir=runs/mnist_resnet18

Expected: see the table "mnist" in docs/results.md; half an hour on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'resnet18'
    config.model.stem = 'mnist'
    config.model.zero_init = True
    config.data.name = 'mnist'
    config.batch_size = 128
    config.epochs = 5.0
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 0.3
    config.augment.shift = 2.0
    config.augment.rotate = 8.0
    config.augment.scale = 0.08
    config.eval_every = 0.5
    config.checkpoint.every = 0.25
    return config
