"""Your own pictures with boxes: FCOS on a ResNet-18 of half the width.

    python -m tools.prepare_data voc --source=DIR --name=parts
    python train.py --config=configs/boxes_fcos.py --config.data.name=parts --workdir=runs/parts

DIR has pictures and XML files in the format of Pascal VOC; `coco` and `yolo` prepare other formats.
See docs/detection.md. There is no published result, because it depends on the pictures.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.task = 'detection'
    config.model.name = 'resnet18'
    config.model.width = 0.5
    config.data.name = 'own'
    config.data.image_size = 320
    config.data.crop = 'fit'
    config.data.crop_zoom = (0.7, 1.4)
    config.data.mean = (0.45,)
    config.data.std = (0.25,)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.epochs = 100.0
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 10.0
    config.schedule.warmup = 3.0
    config.augment.flip = 0.5
    config.augment.color_jitter = (0.3, 0.3, 0.3, 0.05)
    config.eval_every = 10.0
    config.checkpoint.every = 10.0
    return config
