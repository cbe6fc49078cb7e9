"""The maps are those of what the network has learned: with random weights they are others."""

import pytest

from inspection.methods import METHODS
from tests.inspection.sanity import likenesses


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_maps_of_a_network_with_random_weights_are_not_alike(network, method):
    values, sizes = likenesses(network, method, count=6, seeds=(1,))
    assert abs(values) < 0.3
    # Black pixels have no part in integrated gradients, whatever the weights are.
    assert (sizes > 0.9) == (method == 'integrated_gradients')
