"""prepare_data imagenet2012 and folder as commands: real pictures, defects, sizes, mistakes."""

import collections
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from preparation import imagenet, sharded_writer
from tests.support_pictures import blood_files, imagenet_files
from tests.tools.prepare_child import (
    as_stored,
    child,
    run,
    stored,
    tree,
)
from tools import prepare_data


def test_stock_tfds_reads_the_original_bytes_under_the_right_classes(prepared):
    folder = prepared / 'imagenet2012' / '5.1.0'
    info = tfds.builder_from_directory(folder).info
    assert info.features['label'].names == list(imagenet.wnids())
    assert info.supervised_keys == ('image', 'label')
    originals = {path.name: path.read_bytes() for path in imagenet_files()}
    train = as_stored(folder, 'train')
    assert {e['file_name'].decode(): e['image'] for e in train} == originals
    assert len(info.splits['train'].shard_lengths) > 15
    for example in train:
        assert info.features['label'].int2str(example['label']) == example['file_name'].decode()[:9]
    classes = {data: name[:9] for name, data in originals.items()}
    validation = as_stored(folder, 'validation')
    assert len(validation) == 50
    for example in validation:
        assert info.features['label'].int2str(example['label']) == classes[example['image']]
        assert example['file_name'].startswith(b'ILSVRC2012_val_000')


def test_stock_tfds_decodes_them(prepared):
    folder = prepared / 'imagenet2012' / '5.1.0'
    for decoded, raw in zip(
        stored(folder, 'validation'), as_stored(folder, 'validation'), strict=True
    ):
        with Image.open(io.BytesIO(raw['image'])) as picture:
            expected = np.asarray(picture.convert('RGB'), np.float64)
        assert decoded['image'].shape == expected.shape
        assert np.abs(decoded['image'] - expected).mean() < 1.5  # another JPEG decoder, perhaps


def test_the_features_are_those_of_the_official_builder(prepared):
    features = tfds.builder_from_directory(prepared / 'imagenet2012' / '5.1.0').info.features
    official = tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(encoding_format='jpeg'),
            'label': tfds.features.ClassLabel(
                names_file=tfds.core.tfds_path('datasets/imagenet2012/labels.txt')
            ),
            'file_name': tfds.features.Text(),
        }
    )
    assert features.to_json() == official.to_json()


def test_what_it_prints(tars, tmp_path, capsys):
    command = ['imagenet2012', f'--source={tars}', f'--data_dir={tmp_path}']
    assert prepare_data.main(command) == 0
    folder = tmp_path / 'imagenet2012'
    some = 'ILSVRC2012_img_train.tar has 200 of the 1000 classes.\n'
    following = (
        'There is no test split: validation will be used as the test split, and a part of train '
        'for validation.\n'
        'Next: python train.py --config=configs/imagenet_resnet50.py --workdir=runs/imagenet2012 '
        f'--config.data.dir={tmp_path}\n'
    )
    counts = f'in {folder} (200 train, 50 validation).\n'
    printed = capsys.readouterr()
    assert printed.out == f'{some}imagenet2012: prepared {counts}{following}'
    assert printed.err == ''
    before = tree(tmp_path)
    assert prepare_data.main(command) == 0
    assert capsys.readouterr().out == f'{some}imagenet2012: already prepared {counts}{following}'
    assert tree(tmp_path) == before
    assert os.listdir(folder) == ['5.1.0']


def test_one_tar_alone_makes_one_split(tars, tmp_path, capsys):
    (tmp_path / 'ILSVRC2012_img_val.tar').symlink_to(tars / 'ILSVRC2012_img_val.tar')
    data = tmp_path / 'data'
    assert prepare_data.main(['imagenet2012', f'--source={tmp_path}', f'--data_dir={data}']) == 0
    printed = capsys.readouterr().out
    assert 'has no ILSVRC2012_img_train.tar: there will be no train split.' in printed
    assert '(50 validation)' in printed
    command = ['imagenet2012', f'--source={tars}', f'--data_dir={data}']
    assert prepare_data.main(command) == 2
    assert 'was prepared from other examples or with other options' in capsys.readouterr().err


def test_the_defective_are_listed_and_the_odd_are_kept(defective, tmp_path, capsys):
    command = ['imagenet2012', f'--source={defective}', f'--data_dir={tmp_path}/data']
    assert prepare_data.main(command) == 2
    message = capsys.readouterr().err
    tar = 'ILSVRC2012_img_train.tar'
    listed = tmp_path / 'data' / 'imagenet2012' / '5.1.0.incomplete' / 'rejected.jsonl'
    assert message.startswith(
        'error: 4 files are defective, more than --max_rejected=0: '
        f'{tar}/n01440764.tar/cut.JPEG (does not decode: image file is truncated'
    )
    assert f'The list is in {listed}. Run again with --max_rejected=4 to leave them out' in message
    assert prepare_data.main([*command, '--max_rejected=3']) == 2
    assert prepare_data.main([*command, '--max_rejected=4']) == 0
    folder = tmp_path / 'data' / 'imagenet2012' / '5.1.0'
    printed = capsys.readouterr().out
    assert '(23 train, 10 validation)' in printed
    assert 'Of these: 1 CMYK, 1 PNG.' in printed
    listed = f'{folder}/rejected.jsonl'
    assert f'4 defective files were left out; they are listed in {listed}.' in printed
    entries = [json.loads(line) for line in (folder / 'rejected.jsonl').read_text().splitlines()]
    reasons = {entry['file'].rpartition('/')[2]: entry['reason'] for entry in entries}
    assert list(reasons) == ['cut.JPEG', 'empty.JPEG', 'text.JPEG', 'bomb.JPEG']
    assert reasons['empty.JPEG'] == 'empty (zero bytes)'
    assert reasons['text.JPEG'] == 'not a picture'
    assert reasons['bomb.JPEG'].startswith('too large to be decoded safely')
    assert {entry['split'] for entry in entries} == {'train'}
    names = [example['file_name'].decode() for example in as_stored(folder, 'train')]
    assert {'cmyk.JPEG', 'png.JPEG', 'last.JPEG'} < set(names)
    assert not set(reasons) & set(names)
    metadata = tfds.builder_from_directory(folder).info.metadata
    assert metadata['kinds']['train'] == {'CMYK': 1, 'PNG': 1}
    assert metadata['rejected'] == {'train': 4, 'validation': 0}


def test_shorter_side(tars, prepared, tmp_path):
    command = ['imagenet2012', f'--source={tars}', '--shorter_side=160']
    assert run([*command, f'--data_dir={tmp_path}/one']) == 0
    assert run([*command, f'--data_dir={tmp_path}/two'], kill_at=120) == -signal.SIGKILL
    assert run([*command, f'--data_dir={tmp_path}/two']) == 0
    assert tree(tmp_path / 'one') == tree(tmp_path / 'two')
    folder = tmp_path / 'one' / 'imagenet2012_160' / '5.1.0'
    info = tfds.builder_from_directory(folder).info
    assert info.name == 'imagenet2012_160'
    assert info.metadata['shorter_side'] == 160
    assert 'a shorter side of more than 160 pixels were scaled to it' in info.description
    originals = as_stored(prepared / 'imagenet2012' / '5.1.0', 'train')
    resized = 0
    for small, original in zip(as_stored(folder, 'train'), originals, strict=True):
        assert (small['file_name'], small['label']) == (original['file_name'], original['label'])
        sides = Image.open(io.BytesIO(original['image'])).size
        if min(sides) > 160:
            assert min(Image.open(io.BytesIO(small['image'])).size) == 160
            resized += 1
        else:
            assert small['image'] == original['image']
    assert info.metadata['kinds']['train'] == {'resized': resized}
    assert 150 < resized < 200


def test_a_folder_of_real_pictures(blood, tmp_path, capsys):
    command = ['folder', '--name=blood', f'--source={blood}', f'--data_dir={tmp_path}']
    assert prepare_data.main(command) == 0
    printed = capsys.readouterr().out
    assert 'Taken out of train, by a hash of the paths: validation and test.' in printed
    assert f'blood: prepared in {tmp_path}/blood (292 train, 36 validation, 36 test).' in printed
    assert '--config=configs/folder_finetune.py --workdir=runs/blood' in printed
    assert '--config.data.name=blood' in printed
    folder = tmp_path / 'blood' / '1.0.0'
    names = tfds.builder_from_directory(folder).info.features['label'].names
    assert names == ['even', 'odd', 'prime']
    seen = {}
    for split in ('train', 'validation', 'test'):
        examples = as_stored(folder, split)
        counts = collections.Counter(example['label'] for example in examples)
        assert set(counts.values()) <= ({12} if split != 'train' else {97, 98})
        for example in examples:
            name = example['file_name'].decode()
            assert (blood / name).read_bytes() == example['image']
            assert name.split('/')[0] == names[example['label']]
            seen[name] = split
    assert len(seen) == len(blood_files())
    listed = json.loads((folder / 'rejected.jsonl').read_text())
    assert (listed['file'], listed['defective']) == ('odd/boxes.xml', False)
    assert prepare_data.main(command) == 0
    assert 'blood: already prepared' in capsys.readouterr().out


def test_a_changed_folder_is_noticed(blood, tmp_path, capsys):
    source = tmp_path / 'source'
    shutil.copytree(blood, source)
    command = ['folder', '--name=blood', f'--source={source}', f'--data_dir={tmp_path}/data']
    assert run(command, kill_at=200) == -signal.SIGKILL
    victim = source / 'odd' / 'BloodImage_00001.jpg'
    data = victim.read_bytes()
    victim.write_bytes(bytes(len(data)))
    assert prepare_data.main(command) == 2
    message = 'was started with other options, or the source has changed since. Remove that folder'
    assert message in capsys.readouterr().err
    shutil.rmtree(tmp_path / 'data')
    assert prepare_data.main(command) == 2
    assert f'odd/{victim.name} (not a picture)' in capsys.readouterr().err
    victim.unlink()
    shutil.rmtree(tmp_path / 'data')
    assert prepare_data.main(command) == 0
    victim.write_bytes(data)
    assert prepare_data.main(command) == 2
    assert 'was prepared from other examples or with other options' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--name=Pets'], '--name=Pets is invalid: use lower-case letters, digits and underscores'),
        (['--name=imagenet2012'], '--name=imagenet2012 is reserved: choose another name.'),
        (
            ['--name=pets', '--val_fraction=0.6', '--test_fraction=0.4'],
            '--val_fraction and --test_fraction leave no pictures for training',
        ),
        (['--name=pets', '--source=nowhere'], 'nowhere is not a folder'),
    ],
)
def test_mistakes_end_with_a_sentence_and_code_2(blood, tmp_path, capsys, options, message):
    command = ['folder', f'--source={blood}', f'--data_dir={tmp_path}', *options]
    assert prepare_data.main(command) == 2
    printed = capsys.readouterr().err
    assert printed.startswith('error: ')
    assert printed.count('\n') == 1
    assert message in printed
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    'option',
    [
        '--max_rejected=-1',
        '--shorter_side=0',
        '--val_fraction=1',
        '--test_fraction=x',
        '--shorter_side=\u0663\u0662',
        '--max_rejected=\u0663',
    ],
)
def test_wrong_options(capsys, option):
    with pytest.raises(SystemExit, match='2'):
        prepare_data.main(['folder', '--name=a', '--source=.', option])
    assert f'argument {option.partition("=")[0]}: ' in capsys.readouterr().err


def test_a_terminal_shows_progress(tars, tmp_path):
    """The bar shows pictures, bytes per second and time left; without a terminal there is none."""
    ours, theirs = pty.openpty()
    command = ['imagenet2012', f'--source={tars}', f'--data_dir={tmp_path}']
    environment = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '100'}
    process = child(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b''
    while True:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        shown += block
        if not block:
            break
    os.close(ours)
    assert process.wait() == 0
    text = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', shown.decode())
    assert re.search(r'imagenet2012 .* 250 pictures [0-9.]+ MB/s \d:\d\d:\d\d', text)


def test_shards_are_of_256_mib():
    assert sharded_writer.SHARD_BYTES == 256 * 2**20
