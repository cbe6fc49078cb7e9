"""The bytes of streamed training batches with every augmentation of the host on, as recorded.

tests/test_streams.py says that threads, workers and hosts do not change them; this, that a change
of the code does not. A run that goes on after one has to see the pictures that it would have seen.
"""

import hashlib
import itertools
import platform
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import input_pipeline
from configs import base, schema
from tools import prepare_data
from training import checks

COMMON = {
    'data.name': 'waves',
    'data.image_size': 32,
    'data.crop_scale': (0.2, 1.0),
    'data.repeats': 2,
    'augment.flip': 0.5,
    'augment.color_jitter': (0.4, 0.3, 0.2, 0.1),
    'batch_size': 64,
    'seed': 3,
}
RANDAUGMENT = {
    'augment.policy': 'randaugment',
    'augment.layers': 3,
    'augment.magnitude': 7.0,
    'augment.magnitude_std': 1.5,
    'augment.op_probability': 0.8,
}
CASES = [
    (
        RANDAUGMENT,
        [
            'db73f5a25266a3a9648d85ed32e47884a0bb3a5a9203fae24da164a1e2e7637a',
            '01963c9d2e628d79e2836fd0a95e0de4658722519f23fd2bae9dd51438ceaa77',
        ],
    ),
    (
        {'augment.policy': 'trivialaugment'},
        [
            'eba0f7f05de01316dacd2c5a560c97412c4985901b88a6e2996d8a85bbae609e',
            '68be54f7d6a17cb7d15453bee8087c1c8495184d5d473b6b21e6f42f90227bca',
        ],
    ),
]


@pytest.fixture(scope='module')
def waves(tmp_path_factory) -> Path:
    """A data folder with the set "waves": 40 coloured pictures of many sizes, made of integers.

    They are PNG files, so that every decoder gives the same pixels: those of a JPEG are the
    decoder's choice, and region_decoder.py takes whatever libjpeg-turbo the system has.
    """
    folder = tmp_path_factory.mktemp('waves')
    for number in range(40):
        row, column, colour = np.ogrid[: 40 + 13 * (number % 11), : 36 + 17 * (number % 7), :3]
        pixels = (row * row + (number + 2) * column * (1 + colour) + 5 * row * column // 16) // 4
        file = folder / 'source' / 'abcd'[number % 4] / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels % 256).astype(np.uint8)).save(file)
    command = ['folder', '--name=waves', f'--source={folder / "source"}', f'--data_dir={folder}']
    assert prepare_data.main(command) == 0
    return folder


# Pillow blends and rotates with floats, and a compiler for another machine may fuse a product and a
# sum. With the wheels for this one, Pillow 11.0 and 13.0 gave the same bytes.
@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='recorded on x86-64')
@pytest.mark.parametrize(('policy', 'recorded'), CASES, ids=('randaugment', 'trivialaugment'))
def test_the_bytes_of_training_batches_are_the_recorded_ones(waves, policy, recorded):
    config = base.get_config()
    with config.ignore_type():
        for name, value in (COMMON | policy | {'data.dir': str(waves)}).items():
            schema.assign(config, name, value)
    config = schema.validate(config, base.fields())
    checks.check(config)
    found = []
    for batch in itertools.islice(input_pipeline.batches(config, 'train'), 2):
        assert batch['image'].shape == (64, 32, 32, 3)
        digest = hashlib.sha256()
        for name in sorted(batch):
            digest.update(f'{name} {batch[name].dtype} {batch[name].shape}'.encode())
            digest.update(batch[name].tobytes())
        found.append(digest.hexdigest())
    assert found == recorded
