"""A linear probe: only the head is trained, on the features that LeNet-5 learned from MNIST.

    python train.py --config=configs/mnist_lenet.py --workdir=runs/results/mnist/lenet_5/seed0
    python train.py --config=configs/transfer_probe.py --workdir=runs/probe

The same hundred digits as transfer_finetune.py, not augmented: each image's features are computed
once. Expected: see the table "transfer" in docs/results.md; some seconds on two CPU cores.

The learning rate was chosen as in transfer_scratch.py: 97.67 % at 0.0003 and 0.001, 97.20 % at
0.003, 96.97 % at 0.01, 0.03 and 0.1, 97.20 % at 0.3.
"""

from configs import transfer_finetune


def get_config():
    """Returns the experiment's configuration."""
    config = transfer_finetune.get_config()
    config.linear_probe = True
    config.augment.shift = 0.0
    config.augment.rotate = 0.0
    config.augment.scale = 0.0
    config.optimizer.learning_rate = 0.001
    return config
