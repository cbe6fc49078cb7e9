"""LeNet-5 on 10 labeled digits of each class, from scratch: the baseline for transfer.

    python train.py --config=configs/transfer_scratch.py --workdir=runs/scratch

The seed draws the hundred examples. Expected: see the table "transfer" in docs/results.md; half a
minute on two CPU cores.

The learning rate was chosen by the accuracy on the 143 validation digits after the last update,
mean of seeds 5 to 7: 94.41 % at 0.0003, 94.64 % at 0.001, 95.57 % at 0.003, 95.57 % at 0.01,
95.80 % at 0.03, 15.38 % at 0.1.
"""

from configs import base


def get_config():
    """Returns the experiment's configuration."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.data.name = 'digits'
    config.data.train_per_class = 10
    config.batch_size = 50
    config.steps = 1000
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 0.03
    config.schedule.unit = 'steps'
    config.schedule.warmup = 50.0
    config.augment.shift = 2.0
    config.augment.rotate = 10.0
    config.augment.scale = 0.1
    config.eval_every = 100.0
    config.checkpoint.every_steps = 500
    return config
