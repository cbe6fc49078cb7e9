"""VGG-16 with batch norm on ImageNet, 90 epochs, the classic recipe.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_vgg16_bn.py --workdir=runs/imagenet_vgg16_bn

Published: 73.360 % top-1 (torchvision, VGG16_BN_Weights.IMAGENET1K_V1; 8 V100 GPUs). Not trained
here. The learning rate is that of torchvision for AlexNet and VGG.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.classic()
    config.model.name = 'vgg16_bn'
    config.model.dropout_rate = 0.5
    config.optimizer.learning_rate = 0.01
    return config
