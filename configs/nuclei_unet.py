"""U-Net on a ResNet-18 of half the width: which pixel belongs to which nucleus.

    python -m tools.prepare_data masks --source=DIR --name=nuclei --instances \\
        --splits=configs/nuclei_splits.json --stretch=0.5
    python train.py --config=configs/nuclei_unet.py --workdir=runs/nuclei

DIR is the training part of the Data Science Bowl 2018 (Caicedo et al. 2019, "Nucleus segmentation
across imaging experiments: the 2018 Data Science Bowl"); see docs/segmentation.md.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.task = 'instances'
    config.model.name = 'resnet18'
    config.model.width = 0.5
    config.head.width = 12
    config.data.name = 'nuclei'
    config.data.image_size = 256
    config.data.crop = 'pixels'
    config.data.crop_zoom = (0.7, 1.4)
    config.data.mean = (0.25,)
    config.data.std = (0.25,)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.epochs = 100.0
    config.instances.border = 2
    config.instances.least_area = 30
    config.segmentation.losses = ('cross_entropy', 'dice')
    config.segmentation.class_weights = (1.0, 3.0, 1.0)
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 5.0
    config.augment.flip = 0.5
    config.augment.quarter_turns = 1.0
    config.augment.elastic = 2.0
    config.augment.color_jitter = (0.3, 0.3, 0.3, 0.1)
    config.eval_every = 10.0
    config.checkpoint.every = 10.0
    return config
