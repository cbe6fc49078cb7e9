"""Detection on sets of an unusual kind: few pictures, one class, no boxes, hundreds of them."""

import json

import numpy as np
import pytest

import evaluate
from errors import UserError
from tests.support import curve, result, train_here, write_config
from tests.support_boxes import stock_features, stock_record
from tests.support_targets import write_set
from tests.tasks import boxed_pictures

FIELDS = {
    'task': 'detection',
    'model__name': 'deep_cnn',
    'head__channels': 16,
    'head__depth': 1,
    'head__strides': (2, 4),
    'detection__candidates': 100,
    'detection__most': 20,
    'data__name': 'own',
    'data__image_size': 64,
    'data__crop': 'fit',
    'data__max_boxes': 8,
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 0.01,
    'optimizer__clip_norm': 10.0,
    'batch_size': 8,
    'eval_batch_size': 8,
    'steps': 2,
    'eval_every': 1000,
    'checkpoint__every_steps': 1000,
}


def boxed(pixels, objects):
    """A record of a picture with objects [n, 5] in pixels."""
    sides = np.array(pixels.shape[:2] * 2)
    return stock_record(pixels, objects[:, :4] / sides, objects[:, 4])


def config_of(folder, records, names=boxed_pictures.CLASSES, **fields):
    """A configuration of a set whose splits have these records, or {split: records}."""
    if not isinstance(records, dict):
        records = dict.fromkeys(('train', 'validation', 'test'), records)
    write_set(folder, 'own', stock_features(names=names), records)
    return write_config(folder, **{**FIELDS, 'data__dir': str(folder), **fields})


def apart(rng, count):
    """A picture with rectangles that do not overlap, and a picture without any for 0."""
    while True:
        pixels, objects = boxed_pictures.picture(rng, count)
        least = np.maximum(objects[:, None, :2], objects[None, :, :2])
        most = np.minimum(objects[:, None, 2:4], objects[None, :, 2:4])
        if len(objects) == count and (most > least).all(-1).sum() == count:
            return boxed(pixels, objects)


def test_one_batch_is_learned_by_heart(tmp_path):
    """Seven pictures with rectangles, and one without."""
    rng = np.random.default_rng(0)
    records = [apart(rng, count) for count in (0, 1, 2, 3, 2, 1, 3, 2)]
    config = config_of(tmp_path, records, steps=150)
    assert train_here(config, tmp_path / 'run') == 0
    assert result(tmp_path / 'run')['test_AP50'] > 0.95
    assert result(tmp_path / 'run')['test_AP'] > 0.4


def grid(rows, columns, side=10):
    """A picture full of squares, and its objects, all of one class."""
    y, x = (n.ravel() * side for n in np.mgrid[:rows, :columns])
    objects = np.stack([y + 2, x + 2, y + side - 2, x + side - 2, 0 * y], -1)
    pixels = np.zeros((rows * side, columns * side, 3), np.uint8)
    for top, left, bottom, right, _ in objects:
        pixels[top:bottom, left:right] = 255
    return pixels, objects


@pytest.mark.slow
def test_two_hundred_boxes_of_one_class_and_none_at_all(tmp_path, capsys):
    full, empty = boxed(*grid(10, 20)), boxed(np.zeros((50, 70, 3), np.uint8), np.zeros((0, 5)))
    room = {'data__max_boxes': 200, 'detection__most': 300, 'detection__candidates': 400}
    config = config_of(tmp_path, [full, empty] * 4, names=('square',), **room)
    assert train_here(config, tmp_path / 'run') == 0
    assert ', 1 class\n' in capsys.readouterr().out
    assert np.isfinite(curve(tmp_path / 'run')[-1]['validation/loss'])
    assert evaluate.main([f'--workdir={tmp_path}/run', f'--output={tmp_path}']) == 0
    found = json.loads((tmp_path / 'evaluation_test.json').read_text())
    assert found['objects'] == 800
    assert found['classes']['square']['mean_count'] == 100


@pytest.mark.slow
def test_a_split_without_any_box_is_trained_on_and_evaluated(tmp_path):
    empty = boxed(np.zeros((50, 70, 3), np.uint8), np.zeros((0, 5)))
    config = config_of(tmp_path, [empty] * 8)
    assert train_here(config, tmp_path / 'run') == 0
    assert result(tmp_path / 'run')['test_AP'] == 0
    assert np.isfinite(result(tmp_path / 'run')['test_loss'])
    assert evaluate.main([f'--workdir={tmp_path}/run', f'--output={tmp_path}']) == 0
    found = json.loads((tmp_path / 'evaluation_test.json').read_text())
    assert found['objects'] == 0
    assert found['AP'] is None


def test_too_many_boxes_are_refused_by_name_also_in_the_middle_of_a_run(tmp_path):
    """The first record of a split is read before anything is compiled."""
    records = [boxed(*boxed_pictures.picture(np.random.default_rng(1)))] * 8
    records[5] = boxed(*grid(10, 20))
    config = config_of(tmp_path, records, data__max_boxes=100)
    sentence = (
        r'^Record 5 of split "train" in .* has objects with 200 boxes, more than '
        r'config\.data\.max_boxes=100: set it to 200 or more'
    )
    with pytest.raises(UserError, match=sentence):
        train_here(config, tmp_path / 'run')
