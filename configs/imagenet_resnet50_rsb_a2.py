"""ResNet-50 on ImageNet, "ResNet strikes back" A2: 300 epochs at 224 pixels.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_resnet50_rsb_a2.py --workdir=runs/rsb_a2

Published: 79.8 % top-1 (Wightman, Touvron and Jegou 2021, table 2; V100 GPUs, in mixed precision).
Not trained here. An epoch counts repeated pictures: it has as many updates as without repeats and
shows a third of the pictures, as in timm. The batch size is 2048; with less memory set
config.accumulate.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.strikes_back()
    config.epochs = 300.0
    config.model.stochastic_depth = 0.05
    config.data.repeats = 3
    config.augment.magnitude = 7.0
    config.optimizer.learning_rate = 5e-3
    return config
