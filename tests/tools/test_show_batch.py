"""Contact sheets: the files that are written, and their pixels."""

import contextlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

import command
import input_pipeline
from augmentation import registry as augmentations
from configs import base, reading
from data_sources import digits, host_augment
from data_sources.draws import Draws
from data_sources.label_maps import LabelMap
from data_sources.targets import Points
from tasks import registry
from tasks.segmentation import Segmentation
from tests import support
from tests.support_pictures import imagenet_files
from tools import batch_sheets, show_batch
from tools.contact_sheet import LINE, MARGIN
from training import experiment

DIGITS = '--config=configs/digits_lenet.py'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 32


def run(*arguments):
    assert show_batch.main(list(map(str, arguments))) == 0


def read(path):
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        return np.asarray(picture)


def tiles(sheet, side, rows, columns, lines=1):
    """Cuts a sheet of pictures [side, side] into [rows, columns, side, side, 3]."""
    factor = max(1, 112 // side)
    down, right = side * factor + lines * LINE + MARGIN, side * factor + MARGIN
    assert sheet.shape == (2 * MARGIN + LINE + rows * down, MARGIN + columns * right, 3)
    cut = np.zeros((rows, columns, side, side, 3), np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = 2 * MARGIN + LINE + row * down, MARGIN + column * right
        tile = sheet[top : top + side * factor, left : left + side * factor]
        cut[row, column] = tile[::factor, ::factor]
        np.testing.assert_array_equal(tile, cut[row, column].repeat(factor, 0).repeat(factor, 1))
    return cut


@pytest.fixture(scope='module')
def streamed(tmp_path_factory):
    """A data set of 40 real photographs in two classes, and a configuration that streams it."""
    files = imagenet_files()[:40]
    root = tmp_path_factory.mktemp('data')
    folder = root / 'photographs' / '1.0.0'
    folder.mkdir(parents=True)
    splits = {'train': files[:30], 'validation': files[30:35], 'test': files[35:]}
    infos = []
    for split, members in splits.items():
        path = folder / f'photographs-{split}.array_record-00000-of-00001'
        with contextlib.closing(
            array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
        ) as writer:
            for number, file in enumerate(members):
                writer.write(serialised(file.read_bytes(), number % 2))
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(members)], num_bytes=1))
    features = tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'),
            'label': tfds.features.ClassLabel(names=['even', 'odd']),
        }
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, version='1.0.0', check_data=False
    )
    return support.write_config(
        root, data__name='photographs', data__dir=str(root), data__image_size=SIDE,
        data__mean=MEAN, data__std=STD, model__name='resnet18', model__stem='cifar',
        batch_size=10, augment__flip=0.5,
    )  # fmt: skip


def serialised(encoded, label):
    feature = {
        'image': tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[encoded])),
        'label': tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label])),
    }
    features = tf_feature_pb2.Features(feature=feature)
    return tf_example_pb2.Example(features=features).SerializeToString()


def first_batch(config_file, split='train'):
    return next(iter(input_pipeline.batches(reading.from_arguments(str(config_file), []), split)))


# --- sets in memory ---------------------------------------------------------------------------


def test_batch_is_what_the_pipeline_gives(tmp_path, capsys):
    off = [f'--config.augment.{name}=0' for name in ('shift', 'rotate', 'scale')]
    run(DIGITS, f'--out={tmp_path}', '--step=3', '--count=11', *off)
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / 'batch.png')]
    config = reading.from_arguments('configs/digits_lenet.py', [])
    batch = next(input_pipeline.batches(config, 'train', 3))
    found = tiles(read(tmp_path / 'batch.png'), 28, 2, 8).reshape(16, 28, 28, 3)
    np.testing.assert_array_equal(found[:11], batch['image'][:11].repeat(3, -1))
    assert (found[11:] == 255).all(), 'only as many as were asked for'


def test_validation_is_plain_and_alone(tmp_path):
    run(DIGITS, f'--out={tmp_path}', '--split=validation', '--count=8')
    assert [path.name for path in tmp_path.iterdir()] == ['batch.png']
    found = tiles(read(tmp_path / 'batch.png'), 28, 1, 8)[0]
    np.testing.assert_array_equal(found, digits.load('validation').images[:8].repeat(3, -1))


def test_what_is_on_has_a_sheet(tmp_path):
    run(DIGITS, f'--out={tmp_path}', '--count=3')
    assert {path.name for path in tmp_path.iterdir()} == {'batch.png', 'affine.png'}
    config = reading.from_arguments('configs/digits_lenet.py', [])
    plain = next(input_pipeline.batches(config, 'train'))['image'][:3].repeat(3, -1)
    found = tiles(read(tmp_path / 'affine.png'), 28, 3, 7)
    np.testing.assert_array_equal(found[:, 0], plain)
    assert len({tile.tobytes() for tile in found[0]}) == 7, 'every visit differs'
    # The first visit is the one that the first batch shows.
    batch = tiles(read(tmp_path / 'batch.png'), 28, 1, 3)[0]
    np.testing.assert_array_equal(found[:, 1], batch)


@pytest.fixture(scope='module')
def everything(tmp_path_factory):
    """The sheets of digits with --all: {name: [rows, columns, 28, 28]}."""
    folder = tmp_path_factory.mktemp('all')
    run(DIGITS, f'--out={folder}', '--count=4', '--all', '--config.augment.erase_mode=zero',
        '--config.augment.erase=0.9')  # fmt: skip
    names = {path.stem for path in folder.iterdir()} - {'batch'}
    return {
        name: tiles(read(folder / f'{name}.png'), 28, 4, 7, 1 + (name in ('mixup', 'cutmix')))[
            ..., 0
        ]
        for name in names
    }


@pytest.mark.slow
def test_all_adds_what_is_off(everything):
    assert everything.keys() == {
        'light', 'affine', 'crop', 'flip', 'quarter_turns', 'elastic', 'mixup', 'cutmix', 'erase',
    }  # fmt: skip
    for name, found in everything.items():
        np.testing.assert_array_equal(found[:, 0], everything['affine'][:, 0], 'the plain pictures')
        assert (found[:, 1:] != found[:, :1]).any(), name


@pytest.mark.slow
def test_flip_and_crop_of_sets_in_memory(everything):
    for plain, *visits in everything['flip']:
        assert all((tile == plain).all() or (tile == plain[:, ::-1]).all() for tile in visits)
    for plain, *visits in everything['crop']:
        wide = np.pad(plain, 4)
        windows = [wide[y : y + 28, x : x + 28].tobytes() for y in range(9) for x in range(9)]
        assert all(tile.tobytes() in windows for tile in visits)


@pytest.mark.slow
def test_mixed_pictures_are_of_neighbours(everything):
    """Pairs (0, 1) and (2, 3) of the batch."""
    for own, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        plain, partner = everything['mixup'][[own, other], 0].astype(float)
        for tile in everything['mixup'][own, 1:]:
            difference = plain - partner
            share = ((tile - partner) * difference).sum() / (difference**2).sum()
            assert np.abs(tile - share * plain - (1 - share) * partner).max() < 1
        for tile in everything['cutmix'][own, 1:]:
            assert ((tile == plain) | (tile == partner)).all()


@pytest.mark.slow
def test_erased_boxes_have_the_mean_colour(everything):
    for plain, *visits in everything['erase']:
        for tile in visits:
            assert set(np.unique(tile[tile != plain])) <= {round(0.1307 * 255)}


def test_captions_of_mixed_pictures_are_classes_and_shares():
    options = ['--config.augment.mixup=0.5', '--config.augment.shift=0',
               '--config.augment.rotate=0', '--config.augment.scale=0']  # fmt: skip
    config = reading.from_arguments('configs/digits_lenet.py', options)
    shown = show_batch.open_batch(config, 'train', 0, 5)
    assert len(shown.batch['label']) == 6
    images, captions = batch_sheets.network_input(shown, config)(shown.batch)
    for row, (own, other) in enumerate(captions):
        partner = row ^ 1
        share, name = own.split('% ')
        rest, other_name = other.split('% ')
        assert abs(int(share) + int(rest) - 100) <= 1
        assert name == str(shown.batch['label'][row])
        assert other_name == str(shown.batch['label'][partner])
        plain = shown.batch['image'][[row, partner]].astype(float)
        mixed = int(share) / 100 * plain[0] + int(rest) / 100 * plain[1]
        assert np.abs(images[row] - mixed).max() < 4


def test_a_last_odd_picture_has_no_partner(tmp_path):
    config = reading.from_arguments('configs/digits_lenet.py', ['--config.batch_size=3'])
    shown = show_batch.open_batch(config, 'train', 0, 16)
    assert shown.count == 3
    assert shown.batch['mask'].tolist() == [1, 1, 1, 0]
    run(DIGITS, f'--out={tmp_path}', '--config.batch_size=3', '--all')
    cutmix = tiles(read(tmp_path / 'cutmix.png'), 28, 3, 7, 2)
    assert (cutmix[2] == cutmix[2, :1]).all()


# --- streamed sets ----------------------------------------------------------------------------


def test_flip_sheet_mirrors(streamed, tmp_path):
    run(f'--config={streamed}', f'--out={tmp_path}', '--config.augment.policy=trivialaugment')
    names = {path.stem for path in tmp_path.iterdir()}
    assert names == {'batch', 'crop', 'flip', 'trivialaugment'}
    found = tiles(read(tmp_path / 'flip.png'), SIDE, 4, 7)
    mirrored = 0
    for plain, *visits in found:
        for tile in visits:
            same, flipped = (tile == plain).all(), (tile == plain[:, ::-1]).all()
            assert same != flipped
            mirrored += flipped
    assert 0 < mirrored < 24
    # What is not on is not on the sheet: crops of other places are.
    crops = tiles(read(tmp_path / 'crop.png'), SIDE, 4, 7)
    np.testing.assert_array_equal(crops[:, 0], found[:, 0])
    assert len({tile.tobytes() for tile in crops[0]}) == 7


def test_streamed_batch_is_what_the_pipeline_gives(streamed, tmp_path):
    run(f'--config={streamed}', f'--out={tmp_path}', '--count=8')
    found = tiles(read(tmp_path / 'batch.png'), SIDE, 1, 8)[0]
    np.testing.assert_array_equal(found, first_batch(streamed)['image'][:8])


@pytest.mark.parametrize('crop', ['area', 'pixels'])
def test_crop_sheet_shows_the_crops_of_training(crop, streamed, tmp_path):
    options = (f'--config.data.crop={crop}', '--config.augment.flip=0')
    run(f'--config={streamed}', f'--out={tmp_path}', '--count=4', *options)
    found = tiles(read(tmp_path / 'crop.png'), SIDE, 4, 7)
    config = reading.from_arguments(str(streamed), list(options))
    batch = next(iter(input_pipeline.batches(config, 'train')))
    assert not batch['epoch'].any()
    np.testing.assert_array_equal(found[:, 1], batch['image'][:4])
    middle = input_pipeline.eval_transform(config, upright=False)
    source = input_pipeline.open_split(config, 'train')
    for picture, record in zip(found[:, 0], source.read(batch['index'][:4]), strict=True):
        np.testing.assert_array_equal(picture, middle(record.image))


def test_policy_sheet_is_host_augment_of_the_centre(streamed, tmp_path):
    options = ('--config.augment.policy=randaugment', '--config.augment.flip=0', '--config.seed=5')
    run(f'--config={streamed}', f'--out={tmp_path}', '--count=2', *options)
    found = tiles(read(tmp_path / 'randaugment.png'), SIDE, 2, 7)
    config = reading.from_arguments(str(streamed), list(options))
    pipeline = augmentations.on_host(config)
    index = next(iter(input_pipeline.batches(config, 'train')))['index'].tolist()
    for row, visit in np.ndindex(2, 6):
        draws = Draws(5, 'augment', visit, index[row])
        expected = pipeline(np.ascontiguousarray(found[row, 0]), draws)
        np.testing.assert_array_equal(found[row, 1 + visit], expected)


@pytest.mark.slow
def test_all_shows_every_augmentation_and_operation(streamed, tmp_path):
    run(f'--config={streamed}', f'--out={tmp_path}', '--all')
    names = {path.stem for path in tmp_path.iterdir()}
    assert names == {
        'batch', 'crop', 'flip', 'color_jitter', 'randaugment', 'trivialaugment',
        'affine', 'quarter_turns', 'elastic', 'mixup', 'cutmix', 'erase',
        'operations_randaugment', 'operations_trivialaugment',
    }  # fmt: skip
    rand = tiles(read(tmp_path / 'operations_randaugment.png'), SIDE, 15, 5)
    plain = rand[0, 0]
    order = [entry.operation for entry in host_augment.RANDAUGMENT]
    invert = rand[order.index('invert')]
    np.testing.assert_array_equal(invert[1], 255 - plain)
    assert (invert[2:] == 255).all(), 'an operation without strengths is shown once'
    shift = rand[order.index('translate_x_share'), 3]  # by half of 0.45
    np.testing.assert_array_equal(shift[:, 7:], plain[:, :-7])
    tiles(read(tmp_path / 'operations_trivialaugment.png'), SIDE, 14, 5)


def test_all_leaves_out_what_task_and_images_cannot_have(own_are_forgotten):
    @registry.register
    class WithPoints(Segmentation):
        name = 'with_points'
        targets = {'segmentation_mask': LabelMap(), 'points': Points()}  # noqa: RUF012

    config = base.get_config()
    config.task, config.data.name, config.model.name = 'with_points', 'scenes', 'deep_cnn'
    config.data.mean, config.data.std = (0.3,), (0.2,)
    shape = (32, 64, 1)  # not square
    batch = {name: kind.empty(2, shape) for name, kind in WithPoints.targets.items() if kind.bends}
    batch |= {'points': np.zeros((2, 3, 2), np.float32), 'image': np.zeros((2, *shape), np.uint8)}
    batch |= {'index': np.arange(2), 'epoch': np.zeros(2, int), 'mask': np.ones(2, np.float32)}
    made = experiment.Experiment(config, shape, ('a', 'b'), 2)
    shown = batch_sheets.Shown(made, None, 'train', 0, 2, batch)
    names = {name for name, _ in batch_sheets.sheets(shown, everything=True)}
    assert names == {'batch', 'light', 'affine', 'crop', 'flip', 'erase'}


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['--split=trian'],
            '--split=trian must be one of train, validation. Did you mean "train"?',
        ),
        (['--split=test'], 'The test split is read once'),
        (['--step=-1'], '--step=-1 must be at least 0'),
        (
            ['--step=100000'],
            '--step=100000 is out of range: in this run, the train split has the batches 0 .. ',
        ),
        (['--split=validation', '--step=1'], 'the validation split has the batches 0 .. 0'),
        (['--count=0'], '--count=0 must be at least 1'),
        (['--config.augment.mixup=1', '--config.batch_size=3'], 'config.batch_size=3: choose'),
        (['--config.augment.shfit=1'], 'config.augment.shift'),
        (['--config.data.name=nothing'], 'is not prepared'),
        (['--size=3'], '--size=3 is not an option of tools.show_batch'),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, capsys, arguments, message):
    arguments = [DIGITS, f'--out={tmp_path}/new', f'--config.data.dir={tmp_path}', *arguments]
    assert command.call(show_batch.main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'new').exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    own = tmp_path / 'affine.png'
    own.write_text('mine')
    assert command.call(show_batch.main, [DIGITS, f'--out={tmp_path}']) == 2
    assert f'{own} already exists: remove it, or choose another --out.' in capsys.readouterr().err
    assert own.read_text() == 'mine'
    assert list(tmp_path.iterdir()) == [own]


def test_a_folder_that_cannot_be(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert command.call(show_batch.main, [DIGITS, f'--out={tmp_path}/file']) == 2
    assert 'error: Cannot write' in capsys.readouterr().err
