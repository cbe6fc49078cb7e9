"""ResNet-50 on ImageNet, 90 epochs: the classic recipe, with warm-up.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_resnet50.py --workdir=runs/imagenet_resnet50

Published: 76.4 % top-1 (error 23.60 +- 0.12 %, five runs, 8 P100 GPUs; Goyal et al. 2017,
"Accurate, large minibatch SGD", table 1). Not trained here. For another batch size n, use a
learning rate of 0.1 n / 256 with the same warm-up (section 2.1).
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.classic()
    config.model.name = 'resnet50'
    config.model.zero_init = True
    config.optimizer.nesterov = True
    config.schedule.warmup = 5.0
    config.schedule.milestones = (30.0, 60.0, 80.0)
    return config
