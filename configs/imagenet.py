"""The common parts of the ImageNet configurations; not an experiment.

All of them differ from the published programs in two points. Weight decay does not apply to biases
and norms, and batch norm is computed over the global batch, not over the part of each device
(config.sync_batch_norm=False does that). Published accuracies are of the 50,000 validation images.
"""

from configs import base

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, as in torchvision


def streamed():
    """Returns a configuration for pictures of any size: random-resized crops of 224, and flips."""
    config = base.get_config()
    config.data.image_size = 224
    config.data.mean = MEAN
    config.data.std = STD
    config.augment.flip = 0.5
    config.eval_batch_size = 512
    config.log_every = 100
    return config


def classic():
    """Returns the recipe of 90 epochs at batch size 256 of most published networks.

    SGD with momentum, a learning rate that is divided by 10 every 30 epochs, and crops and flips as
    the only augmentation. Evaluation takes the center crop of 224 from a shorter side of 256 (He et
    al. 2015, section 3.4; torchvision's references/classification).
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
    """Returns the common parts of procedures A2 and A3 of "ResNet strikes back".

    See Wightman et al. 2021, table 2. Blocks that start as the identity, the threshold of the
    targets and the clipping are those of timm's networks, commands and LAMB.
    """
    config = streamed()
    config.model.name = 'resnet50'
    config.model.zero_init = True
    config.data.name = 'imagenet2012'
    config.data.num_classes = 1000
    config.data.eval_image_size = 224
    config.data.eval_resize = 235  # a center crop of 0.95
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
