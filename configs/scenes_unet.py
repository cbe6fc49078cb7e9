"""U-Net on a small ResNet-18: which pixel of a scene belongs to which digit. No download.

    python train.py --config=configs/scenes_unet.py --workdir=runs/scenes

The 2,600 scenes are built in (data_sources/scenes.py). Expected: see the table "scenes" in
docs/segmentation.md; about four minutes on two CPU cores.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.task = 'segmentation'
    config.model.name = 'resnet18'
    config.model.stem = 'mnist'
    config.model.width = 0.25
    config.head.width = 8
    config.data.name = 'scenes'
    config.data.mean = (0.3,)
    config.data.std = (0.2,)
    config.batch_size = 32
    config.epochs = 20.0
    config.segmentation.losses = ('cross_entropy', 'dice')
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 1.0
    config.augment.shift = 4.0
    config.augment.rotate = 5.0
    config.augment.scale = 0.1
    config.eval_every = 5.0
    config.checkpoint.every = 5.0
    return config
