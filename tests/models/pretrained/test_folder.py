"""The folder of converted weights: saving, loading, and the messages for damaged files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from errors import UserError
from models import pretrained

VARIABLES = {
    'params': {'conv1': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)}},
    'batch_stats': {'norm1': {'mean': np.ones(3, np.float32)}},
}
ABOUT = {'model': 'lenet', 'options': {}, 'num_classes': 0}


def test_what_is_saved_is_loaded(tmp_path):
    pretrained.save(tmp_path / 'new' / 'weights', VARIABLES, ABOUT)
    variables, about = pretrained.load(tmp_path / 'new' / 'weights')
    assert about == ABOUT
    np.testing.assert_array_equal(
        variables['params']['conv1']['kernel'], VARIABLES['params']['conv1']['kernel']
    )
    assert sorted(p.name for p in (tmp_path / 'new' / 'weights').iterdir()) == [
        'weights.json',
        'weights.safetensors',
    ]


def test_nothing_of_the_users_is_overwritten(tmp_path):
    (tmp_path / 'weights.json').write_text('my own file')
    message = f'{tmp_path} already exists and is not empty: choose a new folder.'
    with pytest.raises(UserError, match=f'^{re.escape(message)}$'):
        pretrained.save(tmp_path, VARIABLES, ABOUT)
    assert [p.read_text() for p in tmp_path.iterdir()] == ['my own file']


def test_a_folder_that_cannot_be_written_is_named():
    message = r'^/proc/none cannot be written to \(.*\): free some space or choose another folder'
    with pytest.raises(UserError, match=message):
        pretrained.save(Path('/proc/none'), VARIABLES, ABOUT)


@pytest.mark.parametrize(
    ('about', 'arrays', 'words'),
    [
        ('{}', ['params/conv1/kernel'], 'it has no "model"'),
        ('[1]', ['params/conv1/kernel'], 'it is a list, not an object'),
        ('{', ['params/conv1/kernel'], 'not valid JSON'),
        (json.dumps(ABOUT), ['params/conv1', 'params/conv1/kernel'], 'cannot be read'),
        (json.dumps(ABOUT), ['params'], '"params" is neither a parameter nor a statistic'),
        (json.dumps(ABOUT), ['params/' + 'a/' * 100_000 + 'b'], 'nested more than 50 deep'),
        (json.dumps(ABOUT), ['params/' + 'a' * (9 << 20)], r'a header of 9,\d+,\d+ bytes'),
    ],
)
def test_damage_is_named(about, arrays, words, tmp_path):
    save_file({name: np.ones(2, np.float32) for name in arrays}, tmp_path / pretrained.WEIGHTS)
    (tmp_path / pretrained.ABOUT).write_text(about)
    with pytest.raises(UserError, match=words):
        pretrained.load(tmp_path)
