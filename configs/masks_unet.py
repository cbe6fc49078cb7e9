"""Your own pictures with masks: U-Net on a ResNet-18, from new weights.

    python -m tools.prepare_data masks --source=DIR --name=cells --class_names=background,cell
    python train.py --config=configs/masks_unet.py --workdir=runs/cells --config.data.name=cells

The classes are those of the data set. Training takes windows of 256 pixels at the pictures' own
scale; set config.data.image_size to half of that for small pictures. There is no published result,
because it depends on the pictures. configs/segmentation_finetune.py starts from converted weights.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.task = 'segmentation'
    config.model.name = 'resnet18'
    config.model.width = 0.5
    config.head.width = 12
    config.data.name = 'masks'
    config.data.image_size = 256
    config.data.crop = 'pixels'
    config.data.crop_zoom = (0.75, 1.33)
    config.data.mean = (0.5,)
    config.data.std = (0.25,)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.epochs = 100.0
    config.segmentation.losses = ('cross_entropy', 'dice')
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup = 5.0
    config.augment.flip = 0.5
    config.augment.color_jitter = (0.3, 0.3, 0.3, 0.1)
    config.eval_every = 10.0
    config.checkpoint.every = 10.0
    return config
