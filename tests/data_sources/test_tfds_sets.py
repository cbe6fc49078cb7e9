"""Reading and writing of prepared data sets; whole MNIST is in tests/tools/test_prepare_data.py."""

import dataclasses
import fcntl
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_sources import arrays, record_source, tfds_sets
from data_sources.arrays import ArraySource
from data_sources.label_maps import InstanceMap, LabelMap
from errors import UserError
from preparation import tfds_writer

CLASSES = ('ant', 'bee', 'cat')


def make_examples(seed, n, shape=(5, 6, 3)):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), np.uint8)
    return images, rng.integers(0, len(CLASSES), n).astype(np.int32)


def make_set(train=40, test=7, **changes):
    examples = {'train': make_examples(0, train), 'test': make_examples(1, test)}
    image_set = tfds_writer.ImageSet('tiny', '1.0.0', examples, CLASSES, 'A tiny set.')
    return dataclasses.replace(image_set, **changes)


@pytest.fixture
def tiny(tmp_path):
    """A prepared set in tmp_path/tiny/1.0.0."""
    assert tfds_writer.prepare(make_set(), tmp_path)
    return tmp_path


def test_load_gives_back_what_was_written_in_order(tiny, monkeypatch):
    monkeypatch.setattr(tfds_sets, '_CHUNK', 16)  # several chunks, the last one partial
    (images, labels), (test_images, test_labels) = make_set().examples.values()
    train = arrays.load('tiny', 'train', str(tiny))
    validation = arrays.load('tiny', 'validation', str(tiny))
    test = arrays.load('tiny', 'test', str(tiny))
    np.testing.assert_array_equal(train.images, images[:36])
    np.testing.assert_array_equal(train.labels, labels[:36])
    np.testing.assert_array_equal(validation.images, images[36:])
    np.testing.assert_array_equal(validation.labels, labels[36:])
    np.testing.assert_array_equal(test.images, test_images)
    np.testing.assert_array_equal(test.labels, test_labels)
    assert train.class_names == CLASSES
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int32)


def test_a_cpu_device_takes_the_images_over_without_a_copy(tiny):
    """A set in memory would be there twice."""
    import jax

    cpu = jax.devices('cpu')[0]
    held = [arrays.load('tiny', split, str(tiny)).images for split in arrays.SPLITS]
    for images in (*held, *(arrays.empty_images((n, 5, 3)) for n in range(1, 20))):
        assert images.flags.c_contiguous
        placed = jax.device_put(images, cpu)
        assert placed.unsafe_buffer_pointer() == images.ctypes.data


def test_stock_tfds_reads_it(tiny):
    builder = tfds.builder_from_directory(tiny / 'tiny' / '1.0.0')
    assert builder.info.features['label'].names == list(CLASSES)
    assert builder.info.supervised_keys == ('image', 'label')
    images, labels = make_set().examples['train']
    for example, image, label in zip(builder.as_data_source('train'), images, labels, strict=True):
        np.testing.assert_array_equal(example['image'], image)
        assert example['label'] == label


def test_a_validation_split_of_its_own_is_used(tmp_path):
    examples = {split: make_examples(i, 20 + i) for i, split in enumerate(arrays.SPLITS)}
    tfds_writer.prepare(make_set(examples=examples), tmp_path)
    for split, (images, _) in examples.items():
        np.testing.assert_array_equal(arrays.load('tiny', split, str(tmp_path)).images, images)


@pytest.mark.parametrize(
    ('train', 'validation'), [(60_000, 5_000), (50_000, 5_000), (49_999, 4_999), (40, 4), (5, 1)]
)
def test_validation_size(train, validation):
    assert tfds_sets.validation_size(train) == validation


def test_the_highest_version_is_read(tiny):
    tfds_writer.prepare(make_set(version='1.0.10', test=9), tiny)
    tfds_writer.prepare(make_set(version='1.0.9', test=8), tiny)
    assert len(arrays.load('tiny', 'test', str(tiny)).labels) == 9


def test_an_unprepared_set_names_the_command(tiny):
    with pytest.raises(UserError) as caught:
        arrays.load('mnist', 'train', str(tiny))
    assert f'"python -m tools.prepare_data mnist --data_dir={tiny}"' in str(caught.value)
    with pytest.raises(UserError, match=r'idx --name=tinny .*Did you mean "tiny"\?'):
        arrays.load('tinny', 'train', str(tiny))


@pytest.mark.parametrize(
    ('name', 'command'),
    [
        ('cifar10', 'cifar10 --data_dir'),
        ('cifar100', 'cifar100 --data_dir'),
        ('imagenet2012', 'imagenet2012 --source=DIR_WITH_THE_TAR_FILES --data_dir'),
        ('imagenet2012_256', 'imagenet2012 --source=DIR_WITH_THE_TAR_FILES --shorter_side=256 '),
        ('pets', 'folder --name=pets --source=DIR_WITH_CLASS_FOLDERS --data_dir'),
        ('pets', 'idx --name=pets --source=DIR_WITH_IDX_FILES --data_dir'),
    ],
)
def test_the_command_that_prepares_a_set(tmp_path, name, command):
    with pytest.raises(UserError, match=f'"python -m tools.prepare_data {command}'):
        tfds_sets.find(name, str(tmp_path))


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json', 'shard'])
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(tiny, name):
    folder = tiny / 'tiny' / '1.0.0'
    path = next(folder.glob('*train*')) if name == 'shard' else folder / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=f'{path.name} is a pipe, not a regular file'):
        arrays.load('tiny', 'train', str(tiny))


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize(
    'text', ['[]', '3', '', '{', '[' * 5000, '{"a": ' * 5000 + '1' + '}' * 5000]
)
def test_an_odd_json_file_of_a_set_is_refused_in_a_sentence(tiny, name, text):
    (tiny / 'tiny' / '1.0.0' / name).write_text(text)
    with pytest.raises(UserError, match=name if name == 'features.json' else 'cannot be read'):
        arrays.load('tiny', 'train', str(tiny))


def only(message):
    """What the message says beside its first half sentence: the command."""
    return re.fullmatch(r'Data set "\w+" is not prepared in [^ ]+: run "([^"]+)"\.', message)[1]


@pytest.mark.parametrize(
    ('name', 'command'),
    [
        ('mnist', 'mnist'),
        ('cifar10', 'cifar10'),
        ('cifar100', 'cifar100'),
        ('imagenet2012', 'imagenet2012 --source=DIR_WITH_THE_TAR_FILES'),
        ('imagenet2012_64', 'imagenet2012 --source=DIR_WITH_THE_TAR_FILES --shorter_side=64'),
    ],
)
def test_a_known_set_names_its_one_command_and_nothing_else(name, command):
    for streamed in (False, True):
        with pytest.raises(UserError) as caught:
            tfds_sets.find(name, 'nowhere', streamed)
        assert (
            only(str(caught.value)) == f'python -m tools.prepare_data {command} --data_dir=nowhere'
        )


def test_a_set_of_ones_own_pictures_names_its_one_command():
    with pytest.raises(UserError) as caught:
        record_source.load('my_own_pets', 'train', 'nowhere')
    assert only(str(caught.value)) == (
        'python -m tools.prepare_data folder --name=my_own_pets --source=DIR_WITH_CLASS_FOLDERS '
        '--data_dir=nowhere'
    )


@pytest.mark.parametrize(
    ('kind', 'command'),
    [
        (LabelMap(), 'masks --name=cells --source=DIR_WITH_IMAGES_AND_LABELS'),
        (InstanceMap(), 'masks --name=cells --instances --source=DIR_WITH_IMAGES_AND_MASKS'),
    ],
)
def test_a_set_of_ones_own_masks_names_its_one_command(kind, command):
    for load in (record_source.load, tfds_sets.load):
        with pytest.raises(UserError) as caught:
            load('cells', 'train', 'nowhere', {'mask': kind})
        expected = f'python -m tools.prepare_data {command} --data_dir=nowhere'
        assert only(str(caught.value)) == expected


def test_from_another_folder_sets_of_the_program_are_found_and_the_command_works(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tfds_sets, '_ROOT', tmp_path / 'program')
    monkeypatch.chdir(tmp_path)
    tfds_writer.prepare(make_set(), tmp_path / 'program' / 'data')
    assert tfds_sets.find('tiny', 'data') == tmp_path / 'program' / 'data' / 'tiny' / '1.0.0'
    tfds_writer.prepare(make_set(), tmp_path / 'data')  # what is here comes first
    assert tfds_sets.find('tiny', 'data') == Path('data/tiny/1.0.0')
    with pytest.raises(UserError) as caught:
        tfds_sets.find('mnist', 'data')
    assert only(str(caught.value)) == (
        f'cd {tmp_path}/program && python -m tools.prepare_data mnist --data_dir={tmp_path}/data'
    )


def test_a_missing_split_is_named(tmp_path):
    tfds_writer.prepare(make_set(examples={'train': make_examples(0, 9)}), tmp_path)
    with pytest.raises(UserError, match='has no "test" split, only train'):
        arrays.load('tiny', 'test', str(tmp_path))


@pytest.mark.parametrize('label', [3, -1])
def test_a_label_out_of_range_is_refused(tmp_path, monkeypatch, label):
    images, labels = make_examples(0, 40)
    labels[17] = label
    message = (
        f'Example 17 of the train split of data set "tiny" has label {label}, out of range for 3'
    )
    with pytest.raises(UserError, match=message):
        make_set(examples={'train': (images, labels)})
    # Written by someone else's tool, it is found when it is read.
    with monkeypatch.context() as patch:
        patch.setattr(ArraySource, '__post_init__', lambda self: None)
        tfds_writer.prepare(make_set(examples={'train': (images, labels)}), tmp_path)
    with pytest.raises(UserError, match=message):
        arrays.load('tiny', 'train', str(tmp_path))


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match='The test split of data set "tiny" has no examples'):
        make_set(test=0)


def damage_shard(folder):
    path = folder / 'tiny-train.array_record-00000-of-00001'
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 3, 2 * len(data) // 3)
    data[middle] = bytes(255 - byte for byte in data[middle])
    path.write_bytes(data)


def cut_shard(folder):
    path = folder / 'tiny-train.array_record-00000-of-00001'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    'shard overwritten': damage_shard,
    'shard cut': cut_shard,
    'shard empty': lambda folder: (folder / 'tiny-train.array_record-00000-of-00001').write_bytes(
        b''
    ),
    'shard gone': lambda folder: (folder / 'tiny-train.array_record-00000-of-00001').unlink(),
    'info cut': lambda folder: (folder / 'dataset_info.json').write_text('{"name": "ti'),
    'features gone': lambda folder: (folder / 'features.json').unlink(),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damage_is_named_and_the_folder_is_left_alone(tiny, damage):
    folder = tiny / 'tiny' / '1.0.0'
    DAMAGE[damage](folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    message = f'{folder} cannot be read .* remove the folder and prepare it again'
    with pytest.raises(UserError, match=message):
        arrays.load('tiny', 'train', str(tiny))
    with pytest.raises(UserError, match=message):
        tfds_writer.prepare(make_set(), tiny)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    shutil.rmtree(folder)
    with pytest.raises(UserError, match='is not prepared in'):
        arrays.load('tiny', 'train', str(tiny))


def test_preparing_again_compares_and_never_overwrites(tiny):
    folder = tiny / 'tiny' / '1.0.0'
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    time.sleep(0.02)  # so that a rewrite would show in the time stamps
    assert not tfds_writer.prepare(make_set(), tiny)
    for other in (make_set(train=41), make_set(class_names=('ant', 'bee', 'dog'))):
        with pytest.raises(UserError, match=r'contains other examples than the source\. Remove th'):
            tfds_writer.prepare(other, tiny)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before
    assert os.listdir(tiny / 'tiny') == ['1.0.0']


def test_what_the_disk_garbled_never_gets_its_final_name(tmp_path, monkeypatch):
    write = tfds_writer._write
    monkeypatch.setattr(
        tfds_writer,
        '_write',
        lambda image_set, folder: (write(image_set, folder), cut_shard(folder)),
    )
    with pytest.raises(UserError, match='cannot be read'):
        tfds_writer.prepare(make_set(), tmp_path)
    assert os.listdir(tmp_path / 'tiny') == []


def test_two_at_once_are_kept_apart(tiny):
    descriptor = os.open(tiny / 'tiny', os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='Another process is preparing'):
            tfds_writer.prepare(make_set(), tiny)
    finally:
        os.close(descriptor)


def test_sets_that_do_not_fit_in_memory_arrays_are_refused(tmp_path, monkeypatch):
    free = tfds.features.Image(shape=(None, None, 3), encoding_format='png')
    monkeypatch.setattr(tfds.features, 'Image', lambda **_: free)
    monkeypatch.setattr(tfds_writer, '_compare', lambda *_: None)
    tfds_writer.prepare(make_set(), tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match='cannot be held in memory: that needs an "image" in uint8'):
        arrays.load('tiny', 'train', str(tmp_path))


@pytest.mark.parametrize('form', ['pythonClassName', 'python_class_name', 'type', 'text'])
def test_no_code_is_imported_that_a_data_set_names(tiny, tmp_path, monkeypatch, form):
    """tfds imports the module of a feature that it does not know."""
    (tmp_path / f'trap_{form}.py').write_text(
        'from pathlib import Path\nPath(__file__).with_name("sprung").touch()\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tiny / 'tiny' / '1.0.0' / 'features.json'
    features, name = json.loads(path.read_text()), f'trap_{form}.Feature'
    label = features['featuresDict']['features']['label']
    if form == 'text':
        own = label.pop('pythonClassName')
        legacy = {'type': own, 'content': {'feature': {'type': name, 'content': '{}'}}}
        label.pop('classLabel')
        label['pythonClassName'] = 'tensorflow_datasets.core.features.sequence_feature.Sequence'
        label['jsonFeature'] = {'json': json.dumps(legacy['content'])}
    elif form == 'type':
        features = {'type': name, 'content': {}}
    else:
        del label['pythonClassName']
        label[form] = name
    path.write_text(json.dumps(features))
    with pytest.raises(UserError, match=f'of the class {name}, and only those of tensorflow_data'):
        arrays.load('tiny', 'train', str(tiny))
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('name', ['', '../../etc', 'a b', '.hidden', 'x/y'])
def test_what_is_no_name_is_said_to_be_so(name, tmp_path):
    with pytest.raises(UserError, match='is not the name of a data set: names have letters'):
        arrays.load(name, 'train', str(tmp_path))
