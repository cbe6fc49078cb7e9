"""Learning rate, label smoothing, augmentation and seed of LeNet.

    python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py \\
        --workdir=runs/sweep
"""

from configs.search import Float, Int, Objective, Sweep


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        space={
            'optimizer.learning_rate': Float(3e-4, 3e-2, log=True),
            'label_smoothing': Float(0.0, 0.2),
            'augment.shift': Float(0.5, 3.0),
            'augment.rotate': Float(2.0, 20.0),
            'seed': Int(0, 1000),
        },
        objective=Objective('validation/accuracy', 'maximize', of='last'),
        trials=64,
    )
