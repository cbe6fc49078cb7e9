"""Folders of pictures and masks: their forms, how they are divided, and every refusal."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from errors import UserError
from preparation import mask_folder, split_list
from preparation.mask_files import MaskFaultError
from preparation.mask_folder import MaskFolder
from tests.conftest import ROOT, SHARED_DATA


def make(root, *paths, pixels=((0, 1), (2, 1))):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(pixels, np.uint8)).save(root / path, 'PNG')
    return root


def pairs(source):
    """{split: [pair]}."""
    return {split: list(source.pairs(split, None)) for split in source.splits}


def names(source):
    return {split: [p.name for p in found if not p.fault] for split, found in pairs(source).items()}


def faults(source):
    found = [pair for of_split in pairs(source).values() for pair in of_split if pair.fault]
    return {pair.file: pair.fault for pair in found}


def numbered(*folders, count=10, suffix='.png'):
    return [f'{folder}/{n:02d}{suffix}' for folder in folders for n in range(count)]


# --- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('masks', ['labels', 'masks', 'Masks'])
def test_stems_are_equal_and_suffixes_need_not_be(tmp_path, masks):
    make(tmp_path, *numbered('images', suffix='.JPG'), *numbered(masks, suffix='.tif'))
    make(tmp_path, 'images/x/00.png', f'{masks}/x/00.png', pixels=[[3]])
    source = MaskFolder(tmp_path, 'cells')
    found = names(source)
    assert sorted(itertools.chain(*found.values())) == [
        *(f'{n:02d}.JPG' for n in range(10)),
        'x/00.png',
    ]
    assert {split: len(of) for split, of in found.items()} == {
        'train': 9,
        'validation': 1,
        'test': 1,
    }
    by_name = {pair.name: pair for of in pairs(source).values() for pair in of}
    pair = by_name['x/00.png']
    assert pair.picture == (tmp_path / 'images/x/00.png').read_bytes()
    assert pair.draw().values.tolist() == [[3]]
    assert pair.draw().file == f'{masks}/x/00.png'
    assert by_name['03.JPG'].file == 'images/03.JPG'


def test_folders_for_the_splits(tmp_path):
    for split in ('train', 'val', 'test'):
        make(tmp_path / split, f'images/{split}.png', f'labels/{split}.png')
    source = MaskFolder(tmp_path, 'cells')
    assert names(source) == {
        'train': ['train.png'],
        'validation': ['val.png'],
        'test': ['test.png'],
    }
    assert source.made == ()
    assert pairs(source)['validation'][0].file == 'val/images/val.png'


def objects(root, stem, masks, form):
    picture, folder = (
        (f'images/{stem}.png', f'masks/{stem}')
        if form == 'flat'
        else (f'{stem}/images/{stem}.png', f'{stem}/masks')
    )
    make(root, picture)
    for name, pixels in masks.items():
        make(root, f'{folder}/{name}.png', pixels=pixels)


@pytest.mark.parametrize('form', ['flat', 'a folder each'])
def test_masks_of_single_objects(tmp_path, form):
    """Earlier files win where they overlap; empty ones are named, and keep their number."""
    masks = {
        'b': [[0, 255, 255, 0]],
        'a': [[9, 9, 0, 0]],
        'c': [[0, 0, 0, 0]],
        'd': [[0, 0, 0, 1]],
    }
    for stem in ('x', 'y', 'z', 'w'):
        objects(tmp_path, stem, masks, form)
    source = MaskFolder(tmp_path, 'cells', instances=True)
    found = [pair for of in pairs(source).values() for pair in of]
    assert sorted(pair.name for pair in found) == ['w.png', 'x.png', 'y.png', 'z.png']
    drawn = found[0].draw()
    assert drawn.values.tolist() == [[1, 1, 2, 4]]
    assert drawn.notes == (
        '1 pixels of b.png belong to earlier masks too, which keep them',
        'no object is in c.png',
    )
    assert drawn.kinds == (mask_folder.OVERLAPPING, mask_folder.EMPTY)


def test_masks_of_single_objects_of_several_sizes(tmp_path):
    for stem in 'xyz':
        objects(tmp_path, stem, {'a': [[0, 1]], 'b': [[0, 1, 0]]}, 'flat')
    pair = next(MaskFolder(tmp_path, 'cells', instances=True).pairs('train', None))
    with pytest.raises(
        MaskFaultError, match=r'masks/./b.png: has 3x1 pixels, and masks/./a.png 2x1'
    ):
        pair.draw()


def test_what_systems_leave_is_counted_and_what_is_no_picture_is_listed(tmp_path):
    make(tmp_path, *numbered('images', 'labels'))
    for name in ('images/.DS_Store', 'images/._00.png', 'labels/Thumbs.db', 'labels/classes.txt'):
        (tmp_path / name).write_bytes(b'x')
    source = MaskFolder(tmp_path, 'cells')
    assert faults(source) == {'labels/classes.txt': 'not named like a picture'}
    assert source.about_left_out() == [
        'Left out: 1 .txt. They are listed in rejected.jsonl.',
        'Ignored, because systems and programs have left them: 1 .DS_Store, 1 ._* (of macOS), '
        '1 Thumbs.db.',
    ]


# --- faults --------------------------------------------------------------------------------------


def test_each_picture_or_mask_without_the_other_is_named(tmp_path):
    make(tmp_path, *numbered('images', 'labels'))
    make(tmp_path, 'images/alone.png', 'labels/orphan.png', 'labels/x/1.png')
    make(tmp_path, 'images/twice.png', 'images/twice.jpg', 'labels/twice.png')
    make(tmp_path, 'images/two.png', 'labels/two.png', 'labels/two.tif', 'labels/03/1.png')
    source = MaskFolder(tmp_path, 'cells')
    assert faults(source) == {
        'images/alone.png': 'has no mask (labels/alone.png)',
        'labels/orphan.png': 'a mask without a picture',
        'labels/x/1.png': 'a mask without a picture',
        'labels/03/1.png': 'a mask without a picture; --instances takes folders of masks',
        'images/twice.jpg': 'has the same stem as twice.png: rename one with its mask',
        'images/two.png': 'has several masks (labels/two.png, labels/two.tif)',
    }
    assert all(pair.defective for of in pairs(source).values() for pair in of if pair.fault)


def test_faults_of_folders_for_each_picture(tmp_path):
    for stem in 'abc':
        objects(tmp_path, stem, {'1': [[0, 1]]}, 'a folder each')
    make(tmp_path, 'nomasks/images/1.png', 'two/images/1.png', 'two/images/2.png')
    (tmp_path / 'empty').mkdir()
    assert faults(MaskFolder(tmp_path, 'cells', instances=True)) == {
        'nomasks/images/1.png': 'has no mask (masks/)',
        'two': '2 pictures in images/, where there should be one',
        'empty': 'a folder without images/',
    }


REFUSED = {
    'no folder': ((), {}, 'nothing is not a folder'),
    'no images': (['cat/1.png'], {}, 'has no folder "images"'),
    'no masks': (['images/1.png'], {}, 'has no folder "labels" or "masks" beside "images"'),
    'both': (['images/1.png', 'labels/1.png', 'masks/1.png'], {}, 'has both labels and masks'),
    'too few': (['images/1.png', 'labels/1.png'], {}, '1 pictures with masks for train: at '),
    'no train': (['val/images/1.png', 'test/images/1.png'], {}, 'but no train'),
    'more folders': (['train/images/1.png', 'more/images/1.png'], {}, r'other folders \(more\)'),
    'class names': (['images/1.png'], {'instances': True, 'class_names': 'ab'}, 'leave out -'),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_no_such_folder_is_refused(tmp_path, case):
    paths, options, message = REFUSED[case]
    make(tmp_path, *paths)
    with pytest.raises(UserError, match=message):
        MaskFolder(tmp_path if paths else tmp_path / 'nothing', 'cells', **options)


# --- splits --------------------------------------------------------------------------------------


def test_the_hash_of_the_stems_decides_and_nothing_else(tmp_path):
    one = make(tmp_path / 'one', *numbered('images', 'labels', count=30))
    two = make(tmp_path / 'two', *numbered('images', count=30, suffix='.bmp'), pixels=[[9]])
    make(two, *numbered('masks', count=30))
    stems = [
        {split: [name[:2] for name in of] for split, of in names(MaskFolder(f, 'cells')).items()}
        for f in (one, two)
    ]
    assert stems[0] == stems[1]
    assert [len(stems[0][split]) for split in ('train', 'validation', 'test')] == [24, 3, 3]


JSON = {'about': 'By hand.', 'train': ['00', '02.png'], 'VAL': ['01'], 'testing': ['09', '08']}
TEXT = '# By hand.\ntrain 00\ntrain\t02.png\n\nval 01\ntest  09\ntest 08 \n'


@pytest.mark.parametrize(('name', 'text'), [('s.json', json.dumps(JSON)), ('s.txt', TEXT)])
def test_a_list_of_splits(tmp_path, name, text):
    make(tmp_path / 'source', *numbered('images', 'labels'), 'images/alone.png')
    (tmp_path / name).write_text(text)
    source = MaskFolder(tmp_path / 'source', 'cells', listed=tmp_path / name)
    assert names(source) == {
        'train': ['00.png', '02.png'],
        'validation': ['01.png'],
        'test': ['08.png', '09.png'],
    }
    assert source.unlisted == 5
    unlisted = [*(f'0{n}' for n in range(3, 8)), 'alone']
    assert faults(source) == {f'images/{stem}.png': f'is not in {name}' for stem in unlisted}
    assert not any(pair.defective for of in pairs(source).values() for pair in of if pair.fault)
    assert (
        'Left out: 5 pictures that the list of splits does not have.'
        in (source.about_left_out()[0])
    )


def test_a_listed_picture_that_is_not_there_is_named(tmp_path):
    make(tmp_path, *numbered('images', 'labels', count=2))
    (tmp_path / 's.txt').write_text('train 00\ntrain 01\ntest gone\n')
    source = MaskFolder(tmp_path, 'cells', listed=tmp_path / 's.txt')
    assert faults(source) == {'gone': 'is in s.txt, but there is no such picture'}
    (tmp_path / 's.txt').write_text('train 0\n')
    with pytest.raises(
        UserError, match=r'none of the 2 pictures with masks .*, such as 00; it lists 0'
    ):
        MaskFolder(tmp_path, 'cells', listed=tmp_path / 's.txt')


LISTS = {
    '{"train": ["a"], "tset": ["b"]}': r"has a split 'tset'.*Did you mean \"test\"",
    '{"train": ["a", "b"], "test": ["b"]}': "lists 'b' in test and in train",
    '{"train": ["a", "a.png"]}': "lists 'a' twice",
    '{"train": [1]}': r'has \[1\] for \'train\', not a list of stems',
    '{"test": ["a"]}': 'no pictures for train',
    '["a"]': 'is a list, not an object',
    'train a\nb\n': "line 2: 'b' is not a split and a stem",
    '\x00\xff': 'not a text in UTF-8',
}


@pytest.mark.parametrize('text', LISTS)
def test_lists_that_are_refused(tmp_path, text):
    path = tmp_path / ('s.json' if text[0] in '{[' else 's.txt')
    path.write_text(text, 'latin-1')
    with pytest.raises(UserError, match=LISTS[text]):
        split_list.read(path)


def test_a_list_has_nothing_to_say_where_folders_do(tmp_path):
    make(
        tmp_path, 'train/images/a.png', 'train/labels/a.png', 'val/images/b.png', 'val/labels/b.png'
    )
    (tmp_path / 's.txt').write_text('train a\n')
    with pytest.raises(UserError, match='--splits has nothing to say'):
        MaskFolder(tmp_path, 'cells', listed=tmp_path / 's.txt')


@pytest.mark.parametrize('stem', ['a', 'a.b', 'a.png.b', '.hidden', 'x/a', 'cat.12', 'a.'])
def test_a_stem_is_the_same_with_and_without_a_suffix(stem):
    for suffix in ('', '.png', '.JPG', '.tiff'):
        assert split_list.without_suffix(stem + suffix) == stem


def test_a_changed_source_has_another_identity(tmp_path):
    make(tmp_path, *numbered('images', 'labels'))
    before = MaskFolder(tmp_path, 'cells').identity()
    assert MaskFolder(tmp_path, 'cells').identity() == before
    make(tmp_path, 'labels/03.png', pixels=np.arange(16).reshape(4, 4))
    assert MaskFolder(tmp_path, 'cells').identity() != before


# --- the nuclei ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_nuclei_are_split_as_the_rule_in_the_list_says():
    nuclei = Path(SHARED_DATA) / 'dsb2018_nuclei'
    if not nuclei.is_dir():
        pytest.skip(f'needs the pictures in {nuclei} (set SHARED_DATA)')
    listed = split_list.read(ROOT / 'configs' / 'nuclei_splits.json')
    counts = {split: list(listed.values()).count(split) for split in set(listed.values())}
    assert counts == {'train': 100, 'validation': 20, 'test': 30}
    kinds = {}
    for path in sorted((nuclei / 'images').iterdir()):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert('RGB')).astype(int)
        colored = bool((np.ptp(pixels, axis=-1) > 0).any())
        kind = (colored, bool(np.median(pixels.mean(axis=-1)) >= 128), pixels.shape)
        kinds.setdefault(kind, []).append(listed[path.stem])
    assert len(kinds) == 8
    for of_kind in kinds.values():
        expected = {'train', 'validation', 'test'} if len(of_kind) >= 4 else {'train'}
        assert set(of_kind) == expected
