"""Batch norm over unequal, padded shards of eight devices equals batch norm of the global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name('synchronised_batch_norm.py')
ROOT = CHILD.parents[2]


@pytest.mark.slow
def test_unequal_shards_equal_the_global_batch():
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # compiles in two thirds of the time
        'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
        'PJRT_NPROC': '16',  # XLA:CPU can hang with fewer threads than devices
        'PYTHONPATH': str(ROOT),
    }
    child = subprocess.run(
        [sys.executable, '-W', 'error', str(CHILD)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    report = json.loads(child.stdout)
    assert set(report['deep_cnn']) == {'scale', 'jit', 'pmap', 'shard_map', 'vmap'}
    assert set(report['strided_cnn']) == {'scale', 'shard_map'}
    for name, distances in report.items():
        scale = distances.pop('scale')
        assert all(size > 0.1 for size in scale), 'the comparison compares something'
        for runner, (logits, statistics, gradients) in distances.items():
            assert logits < 1e-5 * max(1, scale[0]), (name, runner)
            assert statistics < 1e-5, (name, runner)
            assert gradients < 1e-5, (name, runner)
