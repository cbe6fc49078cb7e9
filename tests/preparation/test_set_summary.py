"""The summary of a set of pictures, compared with figures taken from the files by other means."""

import collections
import contextlib
import io
import json
import os
import re
import shutil
import statistics

import numpy as np
import pytest
from PIL import Image

import files
from configs import base, schema
from preparation import summary
from preparation.image_folder import ImageFolder
from preparation.picture_sets import PictureSet
from tests.tools.prepare_child import as_stored, tree
from tools import prepare_data


def encoded(seed, size=(40, 30), form='JPEG', mode='RGB', **options):
    """A picture of noise; each seed has its own brightness and contrast."""
    rng = np.random.default_rng(seed)
    low, span = rng.integers(0, 200), rng.integers(2, 56)
    pixels = rng.integers(low, low + span, (size[1], size[0], 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def write_source(folder):
    """Two classes; copies, rotations, formats, and files that are left out."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for label, name in enumerate(('cat', 'dog')):
        pictures = {f'{n}.jpg': encoded(100 * label + n, (40 + n, 30)) for n in range(20)}
        write(folder / name, pictures)
    dog = {f'turned{n}.jpg': encoded(300 + n, exif=turned) for n in range(3)}
    dog |= {'grey.png': encoded(310, form='PNG', mode='L'), 'bare': encoded(311, form='GIF')}
    dog |= {'copy.jpg': dog['turned0.jpg'], 'cat.jpg': encoded(7, (47, 30))}
    dog |= {'notes.txt': b'x', 'old.bak': encoded(1), '._1.jpg': b'x', '.DS_Store': b'x'}
    write(folder / 'dog', dog)
    write(folder / '__MACOSX' / 'dog', {'a.jpg': b'x'})
    write(folder, {'labels.csv': b'x', 'stray.jpg': encoded(2)})
    return folder


def prepare(source, data, *options):
    """Runs the command with a terminal that shows UTF-8 alone; returns what it prints."""
    command = ['folder', '--name=pets', f'--source={source}', f'--data_dir={data}', *options]
    with io.TextIOWrapper(io.BytesIO(), 'utf-8') as terminal, contextlib.redirect_stdout(terminal):
        assert prepare_data.main(command) == 0
        terminal.flush()
        return terminal.buffer.getvalue().decode()


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """The folder of the prepared set, and what the command printed."""
    folder = tmp_path_factory.mktemp('prepared')
    printed = prepare(write_source(folder / 'source'), folder / 'data')
    return folder / 'data' / 'pets' / '1.0.0', printed


def examples(folder):
    """[(split, example)] of a prepared set."""
    splits = ('train', 'validation', 'test')
    return [(split, example) for split in splits for example in as_stored(folder, split)]


def test_the_figures_are_those_of_the_files(prepared):
    folder, _ = prepared
    figures, stored = summary.of(folder), examples(folder)
    pictures = [Image.open(io.BytesIO(example['image'])) for _, example in stored]
    assert sum(figures['splits'].values()) == len(stored) == 47
    for label, name in enumerate(('cat', 'dog')):
        of_class = collections.Counter(s for s, example in stored if example['label'] == label)
        assert figures['classes'][name] == [of_class[split] for split in figures['splits']]
    assert figures['formats'] == {'JPEG': 45, 'PNG': 1, 'GIF': 1}
    assert figures['modes'] == collections.Counter(picture.mode for picture in pictures)
    assert figures['turned'] == 4
    areas = [picture.width * picture.height for picture in pictures]
    small, median, large = (width * height for width, height in figures['sizes'])
    assert (small, median, large) == (min(areas), statistics.median(areas), max(areas))


def test_copies_are_found_across_classes_and_splits(prepared):
    folder, printed = prepared
    split_of = {example['file_name'].decode(): split for split, example in examples(folder)}
    pairs = [('cat/7.jpg', 'dog/cat.jpg'), ('dog/copy.jpg', 'dog/turned0.jpg')]
    copies = summary.of(folder)['copies']
    leaks = sum(split_of[one] != split_of[other] for one, other in pairs)
    assert (copies['pictures'], copies['across_classes']) == (2, 1)
    assert copies['across_splits'] == leaks
    found = {tuple(sorted(file for _, _, file in group)) for group in copies['groups']}
    assert found == set(pairs)
    for group in copies['groups']:
        assert all(split_of[file] == split for split, _, file in group)
        assert all(file.startswith(name) for _, name, file in group)
    assert 'more than once, byte for byte: 2.' in printed
    assert 'warning: 1 of these in more than one class' in printed


def test_a_picture_of_train_in_test_is_a_warning(tmp_path):
    for split, seeds in (('train', range(8)), ('val', range(20, 24)), ('test', (3, 4, 30))):
        for label, name in enumerate(('cat', 'dog')):
            files = {f'{split}{seed}.jpg': encoded(50 * label + seed) for seed in seeds}
            write(tmp_path / 'source' / split / name, files)
    printed = prepare(tmp_path / 'source', tmp_path / 'data')
    assert 'warning: 4 of these in more than one split: evaluation sees what was trained' in printed
    assert 'For example train: cat/train3.jpg = test: cat/test3.jpg.' in printed


def test_mean_and_std_are_those_of_train_and_can_be_given_to_a_run(prepared):
    folder, printed = prepared
    means, squares = [], []
    for example in as_stored(folder, 'train'):
        pixels = np.asarray(Image.open(io.BytesIO(example['image'])).convert('RGB')) / 255
        means.append(pixels.mean((0, 1)))
        squares.append((pixels**2).mean((0, 1)))
    mean = np.mean(means, 0)
    std = np.sqrt(np.mean(squares, 0) - mean**2)
    options = re.findall(r"--config\.(data\.\w+)='([^']+)'", printed)
    config = base.get_config()
    schema.override(config, [f'--config.{n}={value}' for n, value in options], base.fields())
    np.testing.assert_allclose(config.data.mean, mean, atol=0.002)
    np.testing.assert_allclose(config.data.std, std, atol=0.002)


def test_what_was_left_out_is_said_by_kind(prepared):
    folder, printed = prepared
    assert 'Left out: 1 .bak, 1 .txt. They are listed in rejected.jsonl.' in printed
    assert 'but not named like pictures (1 .bak): give them a suffix such as .jpg' in printed
    assert 'outside the class folders: 1 .csv, 1 .jpg.' in printed
    assert 'have left them: 1 .DS_Store, 1 ._* (of macOS), 1 __MACOSX.' in printed
    assert 'Taken by their contents: 1 pictures without a suffix.' in printed
    assert (folder / 'rejected.jsonl').read_text().count('\n') == 2


def test_defective_files_are_counted_by_suffix(tmp_path):
    source = write_source(tmp_path / 'source')
    write(source / 'cat', {'a.heic': b'x', 'b.HEIC': b'y', 'c.jpeg': b'', 'd.png': encoded(1)[:99]})
    printed = prepare(source, tmp_path / 'data', '--max_rejected=4')
    listed = tmp_path / 'data' / 'pets' / '1.0.0' / 'rejected.jsonl'
    sentence = f'4 defective files were left out; they are listed in {listed}. 2 .heic, 1 .jpeg, 1'
    assert sentence in printed


def test_the_second_time_it_says_the_same(prepared):
    folder, printed = prepared
    kept = (folder / summary.FILE).read_bytes()
    for spoil in (lambda: None, (folder / summary.FILE).unlink):
        spoil()
        again = prepare(folder.parents[2] / 'source', folder.parents[1])
        assert again.replace('already prepared', 'prepared') == printed
        assert (folder / summary.FILE).read_bytes() == kept


@pytest.mark.parametrize('options', [(), ('--shorter_side=16',)])
def test_a_set_from_before_orientation_was_applied_stays_as_it_was(tmp_path, options):
    data = tmp_path / 'data'
    prepare(source := write_source(tmp_path / 'source'), data, *options)
    (folder,) = data.glob('*/1.0.0')
    (folder / summary.FILE).unlink()
    written = files.read_json(folder / 'prepared.json')['source']
    assert set(written) == {'files', 'classes', 'taken_from_train', 'shorter_side'}
    about = files.read_json(folder / 'metadata.json')
    del about['upright']
    (folder / 'metadata.json').write_text(json.dumps(about))
    before = tree(folder)
    printed = prepare(source, data, *options)
    assert f'{folder.parent.name}: already prepared' in printed
    assert 'before EXIF orientation was applied' in printed
    assert {name: data for name, data in tree(folder).items() if name != summary.FILE} == before


def test_one_that_was_begun_before_does_not_go_on_otherwise(tmp_path, capsys):
    """What it has is not turned, and what follows would be."""
    source, data = write_source(tmp_path / 'source'), tmp_path / 'data'
    stamp = ImageFolder(source, 'pets').stamp()
    pictures = PictureSet(ImageFolder(source, 'pets'), 16)
    plan = {'source': pictures.identity(), 'stamp': stamp, 'shard_bytes': pictures.shard_bytes}
    folder = data / 'pets_16' / '1.0.0.incomplete'
    folder.mkdir(parents=True)
    (folder / 'plan.json').write_text(json.dumps(plan))
    command = ['folder', '--name=pets', f'--source={source}', f'--data_dir={data}']
    assert prepare_data.main([*command, '--shorter_side=16']) == 2
    assert 'was started with other options' in capsys.readouterr().err


def test_names_of_any_bytes_are_said(tmp_path):
    source = write_source(tmp_path / 'source')
    for number, name in enumerate((b'a\xe9.jpg', b'b.x\xe9', b'c.\x1b[2J', b'\xff')):
        (source / 'dog' / os.fsdecode(name)).write_bytes(encoded(900 + number))
        (source / os.fsdecode(name)).write_bytes(encoded(910 + number))
    shutil.copy(source / 'dog' / os.fsdecode(b'a\xe9.jpg'), source / 'cat')
    printed = prepare(source, tmp_path / 'data')
    assert '1 .x\\udce9' in printed
    assert '\x1b' not in printed


def test_rotations_are_counted_in_a_set_that_is_scaled_too(tmp_path):
    source = write_source(tmp_path / 'source')
    printed = prepare(source, tmp_path / 'data', '--shorter_side=16')
    assert '47 resized, 4 turned upright' in printed
    assert 'Pictures with a rotation or mirroring in their EXIF data: 4.' in printed


def test_many_classes_are_said_in_short(tmp_path):
    source, data = tmp_path / 'source', tmp_path / 'data'
    picture = encoded(0, (8, 8))
    for label in range(40):
        files = {f'{n}.jpg': picture for n in range(3 + (label == 17))}
        write(source / f'class{label:02}', files)
    printed = prepare(source, data)
    assert (
        '40 classes. Examples of a class:\n  train: 1 (class00) to 2 (class17), median 1\n'
        in printed
    )
    assert len(printed.splitlines()) < 25


def test_a_single_class_is_said(tmp_path):
    source, data = tmp_path / 'source', tmp_path / 'data'
    write(source / 'cat', {f'{n}.jpg': encoded(n) for n in range(4)})
    assert 'warning: there is a single class, "cat": a classifier has' in prepare(source, data)


@pytest.mark.parametrize('above', [['pets'], ['download', 'pets'], ['pets', '__MACOSX']])
def test_a_source_one_level_too_high_is_refused(tmp_path, capsys, above):
    inside, source = tmp_path / 'source', tmp_path / 'source'
    for name in above:
        (inside / name).mkdir(parents=True)
        inside = inside if name == '__MACOSX' else inside / name
    for name in ('cat', 'dog'):
        write(inside / name, {f'{n}.jpg': encoded(n) for n in range(4)})
    command = ['folder', '--name=a', f'--source={source}', f'--data_dir={tmp_path}/data']
    if above[-1] == '__MACOSX':
        shutil.move(inside / '__MACOSX', source / '__MACOSX')
    assert prepare_data.main(command) == 2
    message = capsys.readouterr().err
    assert f'--source is too high. Give --source={inside}.' in message
    assert not (tmp_path / 'data').exists()
    assert prepare_data.main([*command[:2], f'--source={inside}', command[-1]]) == 0
