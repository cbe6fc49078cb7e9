"""DenseNet-121 on ImageNet, 90 epochs, the classic recipe.

    python -m tools.prepare_data imagenet2012 --source=DIR
    python train.py --config=configs/imagenet_densenet121.py --workdir=runs/imagenet_densenet121

Published: 74.98 % top-1 (single-crop error 25.02 %; Huang et al. 2016, "Densely connected
convolutional networks", table 3, recipe of section 4.2; hardware not given). Not trained here.
config.model.remat=True saves memory at the cost of a third more arithmetic.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.classic()
    config.model.name = 'densenet121'
    config.optimizer.nesterov = True
    return config
