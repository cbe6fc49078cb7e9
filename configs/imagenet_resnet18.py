"""ResNet-18 on ImageNet, 90 epochs, the classic recipe.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_resnet18.py --workdir=runs/imagenet_resnet18

Published: 69.758 % top-1 (torchvision, ResNet18_Weights.IMAGENET1K_V1; 8 V100 GPUs). Not trained
here.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.classic()
    config.model.name = 'resnet18'
    return config
