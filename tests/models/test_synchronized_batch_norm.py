"""Batch norm over unequal, padded shards of eight devices equals batch norm of the global batch."""

import json
from pathlib import Path

import pytest

from tests.support import on_eight_devices

CHILD = Path(__file__).with_name('synchronized_batch_norm.py')


@pytest.mark.slow
def test_unequal_shards_equal_the_global_batch():
    # It compiles in two thirds of the time.
    said = on_eight_devices(str(CHILD), JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    report = json.loads(said)
    assert set(report['deep_cnn']) == {'scale', 'jit', 'pmap', 'shard_map', 'vmap'}
    assert set(report['strided_cnn']) == {'scale', 'shard_map'}
    for name, distances in report.items():
        scale = distances.pop('scale')
        assert all(size > 0.1 for size in scale), 'the comparison compares something'
        for runner, (logits, statistics, gradients) in distances.items():
            assert logits < 1e-5 * max(1, scale[0]), (name, runner)
            assert statistics < 1e-5, (name, runner)
            assert gradients < 1e-5, (name, runner)
