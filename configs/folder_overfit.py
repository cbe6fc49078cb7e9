"""Checks a folder of pictures: ResNet-18 memorizes them at 64 pixels, without augmentation.

    python -m tools.prepare_data folder --source=DIR --name=pets
    python train.py --config=configs/folder_overfit.py --workdir=runs/overfit \
        --config.data.name=pets

Expected: a training accuracy near 100 % whatever the pictures, if labels and decoding are right.
See "Streamed pictures" in docs/results.md for 200 pictures of ImageNet; a minute on two CPU cores.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.streamed()
    config.model.name = 'resnet18'
    config.data.name = 'folder'
    config.data.image_size = 64
    config.data.crop_scale = (1.0, 1.0)
    config.data.crop_ratio = (1.0, 1.0)
    config.augment.flip = 0.0
    config.batch_size = 50
    config.epochs = 20.0
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.05
    config.eval_every = 10.0
    config.log_every = 20
    config.checkpoint.every = 20.0
    return config
