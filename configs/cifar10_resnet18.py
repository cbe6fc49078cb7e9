"""ResNet-18 on CIFAR-10, 200 epochs, with a 3x3 stem, random crops and flips.

    python -m tools.prepare_data cifar10 --source=DIR
    python train.py --config=configs/cifar10_resnet18.py --workdir=runs/cifar10_resnet18

Published: 95.28 % (error 4.72 +- 0.21 %, five runs; DeVries and Taylor 2017, "Improved
regularization of convolutional neural networks with Cutout", table 1, C10+ without Cutout; hardware
not given; trained on all 50,000 images). Not trained here.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'resnet18'
    config.model.stem = 'cifar'
    config.data.name = 'cifar10'
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.augment.crop = 4
    config.augment.flip = 0.5
    config.batch_size = 128
    config.epochs = 200.0
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = 'step'
    config.schedule.milestones = (60.0, 120.0, 160.0)
    config.schedule.factor = 0.2
    config.checkpoint.every = 5.0
    return config
