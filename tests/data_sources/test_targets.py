"""Targets in records of tfds data sets: which features serve, and what becomes of their values."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_sources import arrays, record_source, tfds_sets
from data_sources.box_targets import Boxes
from data_sources.label_maps import LabelMap
from data_sources.targets import Label, Points, TargetError, Vector
from errors import UserError
from tests.support_targets import assert_targets, write_set

WANTED = {
    'label': Label(),
    'angle': Vector(1),
    'size': Vector(2),
    'map': LabelMap(),
    'corners': Points((3,)),
    'boxes': Boxes((2,)),
}
FEATURES = {
    'image': tfds.features.Image(shape=(4, 5, 3), encoding_format='png'),
    'label': tfds.features.ClassLabel(names=['ant', 'bee', 'cat']),
    'angle': tfds.features.Scalar(dtype=np.float32),
    'size': tfds.features.Tensor(shape=(2,), dtype=np.float32),
    'map': tfds.features.LabeledImage(labels=['sky', 'ground', 'sea'], shape=(4, 5, 1)),
    'corners': tfds.features.Tensor(shape=(3, 2), dtype=np.float32),
    'boxes': tfds.features.Tensor(shape=(2, 4), dtype=np.float32),
    'file_name': tfds.features.Text(),
}
SPLITS = {'train': 20, 'validation': 3, 'test': 4}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return file.getvalue()


def examples(split: str) -> dict[str, np.ndarray]:
    """Images and targets of a split, as arrays."""
    draw, n = np.random.default_rng(SPLITS[split]), SPLITS[split]
    return {
        'image': draw.integers(256, size=(n, 4, 5, 3), dtype=np.uint8),
        'label': draw.integers(3, size=n, dtype=np.int32),
        'angle': draw.normal(size=(n, 1)).astype(np.float32),
        'size': draw.normal(size=(n, 2)).astype(np.float32),
        'map': draw.integers(3, size=(n, 4, 5), dtype=np.uint8),
        'corners': draw.normal(size=(n, 3, 2)).astype(np.float32),
        'boxes': np.sort(draw.uniform(0, 4, (n, 2, 2, 2)), 2).reshape(n, 2, 4).astype(np.float32),
    }


def records(split: str, **changes) -> list[dict]:
    """The same as tfds stores them; `changes` are of the first example."""
    columns, rows = examples(split), []
    for number in range(SPLITS[split]):
        row = {name: values[number] for name, values in columns.items()}
        row |= {'image': png(row['image']), 'map': png(row['map']), 'label': int(row['label'])}
        rows.append({**row, 'file_name': b'a.png'})
    rows[0] |= changes
    return rows


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('targets')
    write_set(folder, 'many', FEATURES, {split: records(split) for split in SPLITS})
    return folder


@pytest.mark.parametrize('split', SPLITS)
def test_a_set_in_memory_has_the_targets_that_are_wanted(folder, split, monkeypatch):
    monkeypatch.setattr(tfds_sets, '_CHUNK', 8)  # several chunks, the last one partial
    expected = examples(split)
    source = arrays.load('many', split, str(folder), WANTED)
    np.testing.assert_array_equal(source.images, expected.pop('image'))
    assert_targets(source, expected, WANTED)
    assert source.class_names == ('ant', 'bee', 'cat')
    alone = arrays.load('many', split, str(folder), {'angle': Vector(1)})
    assert_targets(alone, {'angle': expected['angle']}, {'angle': Vector(1)})
    assert alone.class_names == ()


def test_a_map_names_the_classes_where_no_label_does(folder):
    wanted = {'angle': Vector(1), 'map': LabelMap()}
    source = arrays.load('many', 'test', str(folder), wanted)
    assert source.class_names == ('sky', 'ground', 'sea')


@pytest.mark.parametrize('split', SPLITS)
def test_records_have_the_targets_that_are_wanted(folder, split):
    source = record_source.load('many', split, str(folder), WANTED)
    expected, found = examples(split), source.read(range(SPLITS[split]))
    assert {tuple(record.targets) for record in found} == {tuple(WANTED)}
    for name in WANTED:
        values = np.stack([record.targets[name] for record in found])
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


LOADERS = pytest.mark.parametrize('load', [arrays.load, record_source.load])


@LOADERS
@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        ({'depth': Vector(1)}, r'has no "depth"; it has .*label'),
        ({'angle': Vector(2)}, r'has a feature "angle" that does not serve as Vector\(size=2\)'),
        ({'label': Vector(1)}, r'has a feature "label" that does not serve as Vector\(size=1\)'),
        ({'angle': Label()}, r'has a feature "angle" that does not serve as Label\(\)'),
        ({'image': LabelMap()}, r'has a feature "image" that does not serve as LabelMap\(fill=255'),
        ({'boxes': Boxes((3,))}, r'"boxes" that does not serve as Boxes\(count=\(3,\)\)'),
    ],
)
def test_a_feature_that_does_not_serve_is_named(folder, load, wanted, message):
    with pytest.raises(TargetError, match=message) as caught:
        load('many', 'train', str(folder), wanted)
    assert f'The data set in {folder}/many/1.0.0 has' in str(caught.value)


@LOADERS
@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'label': 3}, r'has label 3, out of range for 3 classes'),
        ({'angle': np.array([np.nan])}, r'has angle with a number that is not finite'),
        (
            {'map': png(np.full((4, 5), 9, np.uint8))},
            'has map with a pixel of class 9, out of range',
        ),
        ({'size': np.zeros(3)}, r'cannot be read \(ValueError: .*remove the folder and prepare it'),
        ({'size': np.zeros(0)}, r'cannot be read \(ValueError: .*remove the folder and prepare it'),
        ({'map': b'no picture'}, r'cannot be read \(UnidentifiedImageError: '),
    ],
)
def test_a_stored_target_that_is_not_sound_is_named(tmp_path, load, changes, message):
    stored = {split: records(split) for split in SPLITS} | {'train': records('train', **changes)}
    write_set(tmp_path, 'broken', FEATURES, stored)
    with pytest.raises(UserError, match=message) as caught:
        load('broken', 'train', str(tmp_path), WANTED)
    if 'has ' in message:
        first = {
            arrays.load: 'Example 0 of the train split of data set "broken"',
            record_source.load: f'Record 0 of split "train" in {tmp_path}/broken/1.0.0',
        }
        assert first[load] in str(caught.value)


def test_only_secret_labels_keep_a_test_split_from_being_used(tmp_path):
    """tfds stores ImageNet's with label -1; a task that learns something else may test on it."""
    stored = {'train': records('train'), 'test': records('test', label=-1)}
    write_set(tmp_path, 'secret', FEATURES, stored)
    with pytest.raises(UserError, match='has no "test" split, only train'):
        record_source.load('secret', 'test', str(tmp_path))
    source = record_source.load('secret', 'test', str(tmp_path), {'angle': Vector(1)})
    assert (source.stored, source.size) == ('test', 4)
