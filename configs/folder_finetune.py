"""Your own pictures, a folder for each class: ResNet-50 fine-tuned from converted weights.

    python -m tools.prepare_data folder --source=DIR --name=pets
    python -m tools.convert_weights --model=resnet50 --source=resnet50.pth --out=WEIGHTS
    python train.py --config=configs/folder_finetune.py --workdir=runs/pets \
        --config.data.name=pets --config.init_from=WEIGHTS

WEIGHTS is the folder that convert_weights has written, or that of another run. The new head has ten
times the learning rate of the rest. With few pictures try config.layer_decay=0.7 as well, which
keeps the first layers closer to their initial weights. Mean and std are those of ImageNet, which
most weights expect. There is no published result, because it depends on the pictures. Not trained
here.
"""

from configs import imagenet


def get_config():
    """Returns the experiment's configuration."""
    config = imagenet.streamed()
    config.model.name = 'resnet50'
    config.data.name = 'folder'
    config.data.crop_scale = (0.25, 1.0)
    config.batch_size = 64
    config.epochs = 20.0
    config.label_smoothing = 0.1
    config.multipliers = ('head/*=10',)
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 5e-3
    config.optimizer.weight_decay = 1e-4
    config.schedule.warmup = 1.0
    config.log_every = 20
    return config
