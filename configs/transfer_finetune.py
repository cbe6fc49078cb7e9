"""LeNet-5 on 10 labeled digits of each class, fine-tuned from one that was trained on MNIST.

    python train.py --config=configs/mnist_lenet.py --workdir=runs/results/mnist/lenet_5/seed0
    python train.py --config=configs/transfer_finetune.py --workdir=runs/finetune

The first line makes a run of the table "mnist", if it is not there. Only the start and the learning
rate differ from transfer_scratch.py. Expected: see the table "transfer" in docs/results.md; half a
minute on two CPU cores.

The learning rate was chosen as in transfer_scratch.py: 96.97 % at 0.0003, 97.67 % at 0.001,
97.90 % at 0.003, 95.57 % at 0.01, 94.41 % at 0.03, 33.57 % at 0.1.
"""

from configs import transfer_scratch

SOURCE = 'runs/results/mnist/lenet_5/seed0'  # the folder in which tools.results trains it


def get_config():
    """Returns the experiment's configuration."""
    config = transfer_scratch.get_config()
    config.init_from = SOURCE
    config.optimizer.learning_rate = 0.003
    return config
