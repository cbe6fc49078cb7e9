"""The network of transfer_scratch.py, fine-tuned from one that was trained on MNIST."""

from configs import transfer_scratch

PARENT = 'runs/results/mnist/lenet_5/seed0'


def get_config():
    """Returns the experiment's configuration."""
    config = transfer_scratch.get_config()
    config.init_from = PARENT
    config.optimizer.learning_rate = 1e-3
    return config
