"""What the ImageNet configurations share; no experiment of its own.

Where all of them depart from the published programs: weight decay leaves biases and norms alone,
and batch norm counts the whole global batch, not each device's part (config.sync_batch_norm=False
for that). Published accuracies are of the 50,000 validation images.
"""

from configs import base

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, as in torchvision


def streamed():
    """Returns a configuration for pictures of any size: random-resized crops of 224, flipped."""
    config = base.get_config()
    config.data.image_size = 224
    config.data.mean = MEAN
    config.data.std = STD
    config.augment.flip = 0.5
    config.eval_batch_size = 512
    config.log_every = 100
    return config


def classic():
    """Returns the recipe of 90 epochs at batch 256 that most published networks were trained by.

    SGD with momentum, a rate that falls tenfold every 30 epochs, crops and flips and nothing else;
    evaluation on the centre crop of 224 from a shorter side of 256 (He et al. 2015, section 3.4;
    torchvision's references/classification).
    """
    config = streamed()
    config.data.name = 'imagenet2012'
    config.data.num_classes = 1000
    config.batch_size = 256
    config.epochs = 90.0
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = 'step'
    config.schedule.milestones = (30.0, 60.0)
    return config


def strikes_back():
    """Returns what procedures A2 and A3 of Wightman et al. 2021 share ("ResNet strikes back").

    Table 2 there. Blocks that start as the identity, the threshold of the targets and the clipping
    are what timm's networks, commands and LAMB have.
    """
    config = streamed()
    config.model.name = 'resnet50'
    config.model.zero_init = True
    config.data.name = 'imagenet2012'
    config.data.num_classes = 1000
    config.data.eval_image_size = 224
    config.data.eval_resize = 235  # a centre crop of 0.95
    config.batch_size = 2048
    config.loss = 'bce'
    config.bce_threshold = 0.2
    config.augment.mixup = 0.1
    config.augment.cutmix = 1.0
    config.augment.policy = 'randaugment'
    config.augment.layers = 2
    config.augment.magnitude_std = 0.5
    config.augment.op_probability = 0.5
    config.optimizer.name = 'lamb'
    config.optimizer.weight_decay = 0.02
    config.optimizer.clip_norm = 1.0
    config.schedule.name = 'cosine'
    config.schedule.warmup = 5.0
    return config
