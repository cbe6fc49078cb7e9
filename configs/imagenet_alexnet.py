"""AlexNet on ImageNet, 90 epochs, the classic recipe.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_alexnet.py --workdir=runs/imagenet_alexnet

Published: 56.522 % top-1 (torchvision, AlexNet_Weights.IMAGENET1K_V1; 8 V100 GPUs). Not trained
here. The learning rate is that of torchvision for AlexNet and VGG.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.classic()
    config.model.name = 'alexnet'
    config.model.dropout_rate = 0.5
    config.optimizer.learning_rate = 0.01
    return config
