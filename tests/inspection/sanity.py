"""How alike the maps of a trained network and of one with random weights are.

    python -m tests.inspection.sanity --workdir=runs/digits_lenet

After Adebayo et al. 2018, "Sanity Checks for Saliency Maps", the test of random parameters: a map
that hardly changes when all weights are drawn anew shows the picture, and not what the network has
learned. Alike means Spearman's rank correlation, of the values and of their sizes without the sign;
the mean over 20 test digits and two draws.
"""

import argparse
import sys

import jax
import numpy as np
from scipy import stats

import files
from data_sources import digits
from inspection import opened
from inspection.methods import METHODS
from training import trained


def randomized(network, seed):
    """Returns a network of the same kind with weights that were just drawn."""
    images = np.zeros((1, *network.experiment.image_shape), np.float32)
    variables = jax.jit(network.spec.model.init)(jax.random.key(seed), images)
    return opened.Opened(network.experiment, network.spec, variables, 0)


def likenesses(network, method, count=20, seeds=(1, 2)):
    """Returns the mean rank correlations (of values, of sizes) over some test digits."""
    images, found = digits.load('test').images[:count], []
    predictions = network.look(images)
    explain = METHODS[method].explain
    for other in (randomized(network, seed) for seed in seeds):
        for row, image in enumerate(images):
            choice = network.choice(predictions.prediction(row))
            pair = [explain(n, image, choice, None).maps[0].ravel() for n in (network, other)]
            if all(np.ptp(values) for values in pair):  # a constant map has no ranks
                correlation = stats.spearmanr(*pair)[0], stats.spearmanr(*map(np.abs, pair))[0]
                found.append(correlation)
    return np.mean(found, 0)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True)
    network = opened.of(trained.load(parser.parse_args(argv).workdir))
    rows = [('method', 'values', 'sizes')]
    for name, method in METHODS.items():
        rows.append((method.title, *(f'{value:.2f}' for value in likenesses(network, name))))
    print(files.columns(rows))


if __name__ == '__main__':
    main(sys.argv[1:])
