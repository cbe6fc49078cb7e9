"""Your own pictures with boxes: FCOS on a ResNet-50 that starts from converted weights.

    python -m tools.convert_weights --model=resnet50 --pretrained=hub:timm/resnet50.a1_in1k \
        --out=weights/resnet50
    python train.py --config=configs/detection_finetune.py --workdir=runs/parts_finetuned \
        --config.data.name=parts

The weights load into the backbone. Pyramid and head are new and have ten times its learning rate.
Mean and std are those of ImageNet, which most weights expect. There is no published result, because
it depends on the pictures. Not trained here.
"""

from configs import boxes_fcos, imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = boxes_fcos.get_config()
    config.init_from = 'weights/resnet50'
    config.model.name = 'resnet50'
    config.model.width = None
    config.head.channels = 128
    config.data.mean = imagenet.streamed().data.mean
    config.data.std = imagenet.streamed().data.std
    config.multipliers = ('head/*=10',)
    config.optimizer.learning_rate = 1e-4
    return config
