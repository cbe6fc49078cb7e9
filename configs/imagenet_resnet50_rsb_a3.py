"""ResNet-50 on ImageNet, "ResNet strikes back" A3: 100 epochs at 160 pixels.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_resnet50_rsb_a3.py --workdir=runs/rsb_a3

Published: 78.1 % top-1 at 224 pixels (Wightman, Touvron and Jegou 2021, table 2; 4 V100 GPUs of
16 GB, 15 hours, in mixed precision). Not trained here. The batch size is 2048; with less memory set
config.accumulate.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.strikes_back()
    config.epochs = 100.0
    config.data.image_size = 160
    config.augment.magnitude = 6.0
    config.optimizer.learning_rate = 8e-3
    return config
