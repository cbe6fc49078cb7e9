"""Fixtures of the tests that look into networks."""

import pytest


@pytest.fixture(scope='session')
def network(lenet_run):
    """The trained LeNet, opened: what one test has compiled serves the others."""
    from inspection import opened
    from training import trained

    return opened.of(trained.load(lenet_run))


@pytest.fixture(scope='module')
def looked(network):
    """Its validation split, to be looked through."""
    from inspection import examples

    return examples.of(network.experiment, 'validation')
