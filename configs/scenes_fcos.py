"""FCOS on a small ResNet-18: which digits are where in a scene. No download.

    python train.py --config=configs/scenes_fcos.py --workdir=runs/scenes_boxes

The 2,600 scenes are built in (data_sources/scenes.py). Results: the table "scenes" in
docs/detection.md.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.task = 'detection'
    config.model.name = 'resnet18'
    config.model.stem = 'mnist'
    config.model.width = 0.25
    config.head.strides = (4, 8, 16)
    config.head.channels = 32
    config.data.name = 'scenes'
    config.data.max_boxes = 6
    config.data.mean = (0.3,)
    config.data.std = (0.2,)
    config.batch_size = 32
    config.epochs = 12.0
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 4e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 10.0
    config.schedule.warmup = 1.0
    config.augment.shift = 4.0
    config.augment.rotate = 5.0
    config.augment.scale = 0.1
    config.eval_every = 3.0
    config.checkpoint.every = 3.0
    return config
