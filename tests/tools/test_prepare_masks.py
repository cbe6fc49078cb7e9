"""prepare_data masks as a command: killed at any moment, what it prints and sums up, the nuclei."""

import collections
import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.conftest import ROOT, SHARED_DATA
from tests.tools.prepare_child import child, run, tree
from tools import prepare_data

NUCLEI = SHARED_DATA / 'dsb2018_nuclei'


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)


def cells(folder, count=60, classes=4):
    """Pictures of many sizes with label maps; some of them are defective, or have void pixels."""
    for number in range(count):
        rng = np.random.default_rng(number)
        shape = (20 + number % 7, 30 + number % 5)
        pixels = rng.integers(0, 256, (*shape, 3 + number % 2)).astype(np.uint8)
        values = rng.integers(0, classes - number % 2, shape).astype(np.uint8)
        values[:2] = 255
        write(folder / 'images' / f'{number:02d}.png', pixels)
        write(folder / 'labels' / f'{number:02d}.png', values[: 19 if number in (7, 31) else None])
    return folder


def prepare(source, data, *options):
    return prepare_data.main(
        ['masks', '--name=cells', f'--source={source}', f'--data_dir={data}', *options]
    )


def masks_of(folder, target):
    """{split: {stem: mask}} as stock tfds gives them."""
    builder = tfds.builder_from_directory(folder)
    skip = {'image': tfds.decode.SkipDecoding()}
    found = collections.defaultdict(dict)
    for split in builder.info.splits:
        for example in builder.as_data_source(split, decoders=skip):
            stem = example['file_name'].decode().removesuffix('.png')
            found[split][stem] = example[target][..., 0]
    return found


def test_killed_it_goes_on_to_the_same_bytes_and_summary(tmp_path):
    source = cells(tmp_path / 'source')
    command = ['masks', '--name=cells', f'--source={source}', '--max_rejected=2']
    options = {'shard_bytes': 20_000}
    printed = said([*command, f'--data_dir={tmp_path}/whole'], **options)
    for kill_at in (30, 11):
        code = run([*command, f'--data_dir={tmp_path}/data'], kill_at=kill_at, **options)
        assert code == -signal.SIGKILL
    again = said([*command, f'--data_dir={tmp_path}/data'], **options)
    assert tree(tmp_path / 'data') == tree(tmp_path / 'whole')
    assert again.replace(f'{tmp_path}/data', f'{tmp_path}/whole') == printed
    shards = list((tmp_path / 'data').glob('*/*/*-train.array_record*'))
    assert len(shards) > 4


def said(command, **options):
    """Runs the command in a separate process; returns what it prints."""
    process = child(command, stdout=subprocess.PIPE, text=True, **options)
    printed = process.communicate()[0]
    assert process.returncode == 0
    return printed


def test_the_summary_of_classes(tmp_path, capsys):
    source = cells(tmp_path / 'source', 20)
    options = ('--class_names=ground, cell ,wall,fog,never', '--max_rejected=1')
    assert prepare(source, tmp_path / 'data', *options) == 0
    printed = capsys.readouterr().out.splitlines()
    folder = tmp_path / 'data' / 'cells' / '1.0.0'
    found = masks_of(folder, 'segmentation_mask')
    assert {stem for of in found.values() for stem in of} == {
        f'{n:02d}' for n in range(20) if n != 7
    }
    for split, column in (('train', 1), ('validation', 2), ('test', 3)):
        values = np.concatenate([mask.ravel() for mask in found[split].values()])
        known = values[values != 255]
        for number, name in enumerate(('ground', 'cell', 'wall', 'fog')):
            [line] = [line for line in printed if line.split()[:1] == [name]]
            share, pictures = line.split()[2 * column - 1 : 2 * column + 1]
            assert share == f'{(known == number).mean():.2%}'
            assert pictures == f'({sum((mask == number).any() for mask in found[split].values())})'
    every = np.concatenate([mask.ravel() for of in found.values() for mask in of.values()])
    assert f'Pixels whose class is not known (255): {(every == 255).mean():.2%}.' in printed
    assert 'warning: no pixels of 1 of 5 classes: never.' in printed
    stored = json.loads((folder / 'summary.json').read_text())
    assert sum(stored['masks']['pixels']['wall']) == (every == 2).sum()
    assert stored['classes'] == {}
    assert (
        f'1 defective files were left out; they are listed in {folder}/rejected.jsonl. 1 .png.'
        in printed
    )
    assert printed[0] == 'Taken out of train, by a hash of the stems: validation and test.'
    assert printed[-1].startswith('Next: python train.py --config=configs/nuclei_unet.py ')
    assert '--config.task=segmentation --config.data.name=cells' in printed[-1]


def test_the_summary_of_objects(tmp_path, capsys):
    counts = [0, 1, 5, 2, 2, 9]
    for number, count in enumerate(counts):
        values = np.zeros((30, 40), np.uint16)
        for place in range(count):
            values[3 * place : 3 * place + 2, : place + 3] = 500 * (place + 1)
        write(tmp_path / 'source' / 'images' / f'{number}.png', np.zeros((30, 40), np.uint8))
        write(tmp_path / 'source' / 'masks' / f'{number}.png', values)
    listed = {'train': ['0', '1', '2', '3'], 'test': ['4', '5']}
    (tmp_path / 'splits.json').write_text(json.dumps(listed))
    options = ('--instances', f'--splits={tmp_path}/splits.json')
    assert prepare(tmp_path / 'source', tmp_path / 'data', *options) == 0
    printed = capsys.readouterr().out
    areas = sorted(2 * (place + 3) for count in counts for place in range(count))
    covered = sum(areas) / (6 * 30 * 40)
    assert (
        'Objects: 8 train, 11 test. In a picture: 0 to 9, the median is 2.\n'
        f'Pixels of an object: 6 to 22, the median is {areas[len(areas) // 2]}. Objects cover '
        f'{covered:.1%} of the pixels.\nPictures without objects: 1.\n'
    ) in printed
    assert 'no picture has more than one object' not in printed
    found = masks_of(tmp_path / 'data' / 'cells' / '1.0.0', 'instance_map')
    assert np.unique(found['test']['5']).tolist() == [500 * n for n in range(10)]


def test_one_number_for_all_objects_is_warned_of(tmp_path, capsys):
    for number in range(4):
        write(tmp_path / 'source' / 'images' / f'{number}.png', np.zeros((3, 4), np.uint8))
        write(tmp_path / 'source' / 'masks' / f'{number}.png', np.uint8([[0, 255, 0, 255]] * 3))
    assert prepare(tmp_path / 'source', tmp_path / 'data') == 2
    assert 'write 1 in its place, or give --instances' in capsys.readouterr().err
    shutil.rmtree(tmp_path / 'data')
    assert prepare(tmp_path / 'source', tmp_path / 'data', '--instances') == 0
    assert 'warning: no picture has more than one object.' in capsys.readouterr().out


def test_names_of_classes_in_a_file(tmp_path):
    source = cells(tmp_path / 'source', 5, classes=2)
    (tmp_path / 'names.txt').write_text('ground\n\nred, round cell\n')
    assert prepare(source, tmp_path / 'data', f'--class_names={tmp_path}/names.txt') == 0
    builder = tfds.builder_from_directory(tmp_path / 'data' / 'cells' / '1.0.0')
    feature = builder.info.features['segmentation_mask']
    assert feature.names == ['ground', 'red, round cell']


MISTAKES = {
    '--class_names=a,,b': 'has an empty or repeated name',
    '--class_names=' + ','.join(map(str, range(256))): 'a pixel of a mask has one of 255 classes',
    '--class_names=a,b': '5 files are defective, more than --max_rejected=0: labels/00.png (a mask '
    'with a pixel of class',
    '--splits=nothing.json': 'nothing.json cannot be read: No such file',
    '--instances --class_names=a': 'leave out --class_names, or --instances',
}


@pytest.mark.parametrize('options', MISTAKES)
def test_mistakes_are_said_in_a_sentence(tmp_path, capsys, options):
    source = cells(tmp_path / 'source', 5)
    assert prepare(source, tmp_path / 'data', *options.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert MISTAKES[options] in error


@pytest.mark.parametrize('value', ['50', '-1', 'nan', 'x'])
def test_percentiles_that_are_none(tmp_path, capsys, value):
    with pytest.raises(SystemExit, match='2'):
        prepare(tmp_path, tmp_path, f'--stretch={value}')
    assert 'is not a percentile from 0 to below 50' in capsys.readouterr().err


@pytest.mark.slow
def test_the_nuclei_are_the_same_from_maps_and_from_masks_of_single_nuclei(tmp_path):
    """In both forms of single masks, against the maps that were made of them before.

    A tenth of the pictures, and the two in which nuclei overlap.
    """
    if not NUCLEI.is_dir():
        pytest.skip(f'needs the pictures in {NUCLEI} (set SHARED_DATA)')
    subprocess.run(['tar', '-C', tmp_path, '-xf', NUCLEI / 'masks_original.tar.xz'], check=True)
    flat, each = tmp_path / 'flat', tmp_path / 'each'
    flat.mkdir()
    (flat / 'images').symlink_to(NUCLEI / 'images')
    (flat / 'masks').symlink_to(tmp_path / 'masks')
    kept = {'72e8c49dea44787114fd191f9e97e260f961c6e7ae4715bc95cc91db8d91a4e3'}
    kept |= {'547ef286ee5f4e5dce533e982e6992ada67b7d727fdd3cfa6576f24c631a7ae6'}
    listed = json.loads((ROOT / 'configs' / 'nuclei_splits.json').read_text())
    del listed['about']
    listed = {
        split: [s for n, s in enumerate(stems) if n % 10 == 0 or s in kept]
        for split, stems in listed.items()
    }
    (tmp_path / 'splits.json').write_text(json.dumps(listed))
    for path in (NUCLEI / 'images').iterdir():
        (each / path.stem / 'images').mkdir(parents=True)
        (each / path.stem / 'images' / path.name).symlink_to(path)
        (each / path.stem / 'masks').symlink_to(tmp_path / 'masks' / path.stem)
    options = ('--instances', f'--splits={tmp_path}/splits.json')
    found = []
    for name, source in (('maps', NUCLEI), ('flat', flat), ('each', each)):
        assert prepare(source, tmp_path / name / 'data', *options) == 0
        found.append(masks_of(tmp_path / name / 'data' / 'cells' / '1.0.0', 'instance_map'))
    for split in ('train', 'validation', 'test'):
        assert sorted(found[0][split]) == listed[split]
        for stem, expected in found[0][split].items():
            with Image.open(NUCLEI / 'labels' / f'{stem}.png') as labels:
                np.testing.assert_array_equal(expected, np.asarray(labels))
            for other in found[1:]:
                np.testing.assert_array_equal(other[split][stem], expected)
    lines = (tmp_path / 'flat/data/cells/1.0.0/rejected.jsonl').read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert {Path(entry['file']).stem for entry in entries if entry.get('kept')} == kept
