"""Your own pictures with masks: U-Net on a ResNet-50 that starts from converted weights.

    python -m tools.convert_weights --model=resnet50 --pretrained=hub:timm/resnet50.a1_in1k \
        --out=weights/resnet50
    python train.py --config=configs/segmentation_finetune.py --workdir=runs/cells_finetuned \
        --config.data.name=cells

The weights load into the backbone. The head is new and has ten times its learning rate. Mean and
std are those of ImageNet, which most weights expect. There is no published result, because it
depends on the pictures. Not trained here.
"""

from configs import imagenet, masks_unet


def get_config():
    """Returns the experiment's configuration."""
    config = masks_unet.get_config()
    config.init_from = 'weights/resnet50'
    config.model.name = 'resnet50'
    config.model.width = None
    config.head.width = 16
    config.data.mean = imagenet.streamed().data.mean
    config.data.std = imagenet.streamed().data.std
    config.multipliers = ('head/*=10',)
    config.optimizer.learning_rate = 1e-4
    return config
