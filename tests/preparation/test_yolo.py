"""Boxes in YOLO's text: the layouts of exports, data.yaml, and every refusal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from preparation import sharded_writer, yolo_labels
from preparation.box_sets import BoxFaultError, BoxSet
from preparation.yolo import YoloFolder
from tests.support_boxes import picture, rejected, rows, write

LINES = '1 0.5 0.5 0.25 0.2\n0 0.125 0.1 0.25 0.2\n'
EXPECTED = [('dog', (0.4, 0.375, 0.6, 0.625)), ('cat', (0.0, 0.0, 0.2, 0.25))]
NAMES = 'names: [cat, dog]\n'


def prepare(folder, data, max_rejected=0, **options):
    source = YoloFolder(folder, 'pets', **options)
    sharded_writer.prepare(BoxSet(source), data, max_rejected)
    return data / 'pets' / '1.0.0', source


def divided(folder):
    return {split: sorted(of) for split, of in rows(folder).items()}


@pytest.mark.parametrize(
    ('where', 'beside'),
    [
        ('images/{split}/{stem}.jpg', 'labels/{split}/{stem}.txt'),
        ('{split}/images/{stem}.jpg', '{split}/labels/{stem}.txt'),
        ('{split}/{stem}.jpg', '{split}/{stem}.txt'),
        ('export/{split}/images/{stem}.jpg', 'export/{split}/labels/{stem}.txt'),
    ],
)
@pytest.mark.parametrize('yaml', ['data.yaml', 'pets.yml', 'export/data.yaml'])
def test_folders_for_the_splits(tmp_path, where, beside, yaml):
    source = tmp_path / 'source'
    for n, split in enumerate(['train', 'train', 'valid', 'test']):
        names = {'split': split, 'stem': f'p{n}'}
        write(source / where.format(**names), picture(n))
        write(source / beside.format(**names), LINES if n < 3 else '')
    write(source / yaml, NAMES + 'nc: 2\ntrain: /content/nowhere\nval:\ntest: ~\n')
    folder, made = prepare(source, tmp_path / 'data')
    found = rows(folder)
    expected = {'train': ['p0.jpg', 'p1.jpg'], 'validation': ['p2.jpg'], 'test': ['p3.jpg']}
    assert {s: sorted(n.rpartition('/')[2] for n in of) for s, of in found.items()} == expected
    for split, of in found.items():
        for boxes in of.values():
            assert [name for name, *_ in boxes] == [name for name, _ in EXPECTED] * (
                split != 'test'
            )
            np.testing.assert_allclose(
                [box for _, box, *_ in boxes] or np.zeros((2, 4)),
                [box for _, box in EXPECTED] if boxes else np.zeros((2, 4)),
                atol=1e-6,
            )
    assert made.class_names == ('cat', 'dog')
    assert rejected(folder) == []
    assert 'names pictures for train that are not below its folder' in made.notes[0]


DESCRIBED = {
    'folders': 'train: first\nval: second/images\ntest: third',
    "another machine's": 'path: /content/set\ntrain: /content/set/first\n'
    'val: ../second/images\ntest: D:\\sets\\third',
    'lists': 'train: train.txt\nval: lists/val.txt\ntest: ./lists/test.txt',
    'several': 'train: [first, nowhere]\nval:\n - second\ntest:\n - third/images',
}


@pytest.mark.parametrize('case', DESCRIBED)
def test_splits_that_data_yaml_says(tmp_path, case):
    source = tmp_path / 'source'
    for n, folder in enumerate(['first', 'first', 'second', 'third', 'unused']):
        write(source / folder / f'images/p{n}.jpg', picture(n))
        write(source / folder / f'labels/p{n}.txt', LINES)
    write(source / 'data.yaml', DESCRIBED[case] + '\nnames:\n  1: dog\n  0: cat\n')
    if case == 'lists':
        write(source / 'train.txt', './first/images/p0.jpg\n/x/y/first/images/p1.jpg\n\n')
        write(source / 'lists/val.txt', 'second/images/p2.jpg')
        write(source / 'lists/test.txt', 'third\\images\\p3.jpg\nthird/images/gone.jpg')
    folder, made = prepare(source, tmp_path / 'data')
    assert divided(folder) == {
        'train': ['first/p0.jpg', 'first/p1.jpg'],
        'validation': ['second/p2.jpg'],
        'test': ['third/p3.jpg'],
    }
    assert made.class_names == ('cat', 'dog')
    reasons = {e['file']: e['reason'] for e in rejected(folder)}
    assert reasons.pop('unused/images/p4.jpg') == 'is not in data.yaml'
    assert all(file.endswith('.txt') for file in reasons)


def test_a_folder_of_a_split_that_data_yaml_does_not_speak_of(tmp_path):
    source = tmp_path / 'source'
    for split in ('train', 'val', 'test'):
        write(source / f'images/{split}/{split}.jpg', picture())
        write(source / f'labels/{split}/{split}.txt', LINES)
    write(source / 'data.yaml', 'train: images/train\nval: images/val\n' + NAMES)
    folder, _ = prepare(source, tmp_path / 'data')
    assert divided(folder) == {
        'train': ['train.jpg'], 'validation': ['val.jpg'], 'test': ['test.jpg'],
    }  # fmt: skip


def test_data_yaml_leads_to_nothing_outside_its_folder(tmp_path):
    source = tmp_path / 'source'
    for n in range(6):
        write(source / f'images/{n}.jpg', picture(n))
        write(source / f'labels/{n}.txt', LINES)
    write(tmp_path / 'outside.txt', 'images/0.jpg\nimages/1.jpg')
    write(tmp_path / 'val.txt', 'images/2.jpg')
    write(
        source / 'data.yaml', f'train: images/../../outside.txt\nval: {tmp_path}/val.txt\n' + NAMES
    )
    _, made = prepare(source, tmp_path / 'data')
    assert made.made == ('validation', 'test')
    assert 'names pictures for train, validation that are not below' in made.notes[0]


def test_a_split_by_hash_and_names_in_classes_txt(tmp_path):
    source = tmp_path / 'source'
    for n in range(10):
        write(source / f'p{n}.jpg', picture(n))
        write(source / f'p{n}.txt', LINES)
    write(source / 'classes.txt', 'cat\ndog\n')
    write(source / 'README.txt', 'Made by hand.')
    folder, made = prepare(source, tmp_path / 'data')
    assert {split: len(of) for split, of in rows(folder).items()} == {
        'train': 8, 'validation': 1, 'test': 1,
    }  # fmt: skip
    assert made.made == ('validation', 'test')
    assert made.class_names == ('cat', 'dog')
    assert [entry['file'] for entry in rejected(folder)] == ['README.txt']


def test_pictures_without_boxes_and_texts_without_pictures(tmp_path):
    source = tmp_path / 'source'
    for name in ('a.jpg', 'none.jpg', 'twice.jpg', 'twice.png'):
        write(source / 'images' / name, picture())
    for name in ('a', 'twice', 'gone'):
        write(source / 'labels' / f'{name}.txt', LINES)
    write(source / 'labels/empty.txt', '\n \n')
    write(source / 'images/empty.png', picture(form='PNG'))
    write(source / 'labels/classes.txt', 'cat\ndog')
    listed = write(
        tmp_path / 's', '\n'.join(f'train {s}' for s in ('a', 'none', 'gone', 'empty', 'twice'))
    )
    folder, made = prepare(source, tmp_path / 'data', 2, listed=listed)
    assert {name: len(of) for name, of in rows(folder)['train'].items()} == {
        'a.jpg': 2, 'empty.png': 0, 'none.jpg': 0,
    }  # fmt: skip
    assert {entry['file']: entry['reason'] for entry in rejected(folder)} == {
        'labels/gone.txt': 'there is no picture of its name',
        'images/twice.jpg': 'has the same stem as twice.png: keep only one',
    }
    assert made.class_names == ('cat', 'dog')


def test_classes_without_names_are_numbers(tmp_path):
    for n, split in enumerate(('train', 'train', 'val')):
        write(tmp_path / f'source/{split}/{n}.jpg', picture())
        write(tmp_path / f'source/{split}/{n}.txt', '3.0 0.5 0.5 1 1' if n else 'x')
    _, made = prepare(tmp_path / 'source', tmp_path / 'data', 1)
    assert made.class_names == ('0', '1', '2', '3')


def test_a_polygon_is_given_its_enclosing_box(tmp_path):
    for split in ('train', 'val'):
        write(tmp_path / f'source/{split}/a.jpg', picture())
        write(tmp_path / f'source/{split}/a.txt', '0 .1 .5 .3 .2 .25 .75\n1 0 0 1 0 1 1 0 1')
    folder, _ = prepare(tmp_path / 'source', tmp_path / 'data', class_names=('cat', 'dog'))
    found = [box for _, box, *_ in rows(folder)['train']['a.jpg']]
    np.testing.assert_allclose(found, [(0.2, 0.1, 0.75, 0.3), (0, 0, 1, 1)], atol=1e-6)


def test_key_points_are_passed_over(tmp_path):
    for split in ('train', 'val'):
        write(tmp_path / f'source/{split}/a.jpg', picture())
        write(tmp_path / f'source/{split}/a.txt', '0 .5 .5 .2 .4' + ' .1 .1 2' * 3)
    write(tmp_path / 'source/data.yaml', 'names: [person]')
    with pytest.raises(UserError, match='2 files are defective'):
        prepare(tmp_path / 'source', tmp_path / 'data')
    write(tmp_path / 'source/data.yaml', 'names: [person]\nkpt_shape: [3, 3]')
    folder, _ = prepare(tmp_path / 'source', tmp_path / 'again')
    [(_, box, _, _)] = rows(folder)['train']['a.jpg']
    np.testing.assert_allclose(box, (0.3, 0.4, 0.7, 0.6), atol=1e-6)


FRACTION = st.floats(0, 1).map(lambda n: round(n, 6))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), *[FRACTION] * 4), max_size=5))
def test_lines_are_read_as_they_were_written(lines):
    text = '\n'.join(' '.join(map(str, line)) for line in lines)
    found = yolo_labels.read(text.encode(), 7)
    assert found.labels == tuple(line[0] for line in lines)
    for (_, x, y, width, height), box in zip(lines, found.boxes, strict=True):
        np.testing.assert_allclose((box[0] + box[2]) / 2, y, atol=1e-12)
        np.testing.assert_allclose((box[1] + box[3]) / 2, x, atol=1e-12)
        np.testing.assert_allclose(box[2:] - box[:2], (height, width), atol=1e-12)


FAULTS = {
    'cat 0.5 0.5 0.1 0.1': "line 1 starts with 'cat', not the number of a class",
    '-1 0.5 0.5 0.1 0.1': "line 1 starts with '-1', not the number of a class",
    '1.5 0.5 0.5 0.1 0.1': "line 1 starts with '1.5', not the number of a class",
    '0 0.5 0.5 0.1 x': 'line 1 has something else than numbers',
    '0 0.5 0.5 0.1': 'line 1 has 3 numbers after the class',
    '0': 'line 1 has 0 numbers after the class',
    '0 0.5 0.5 0.1 0.1 0.9': 'line 1 has 5 numbers after the class: a box has 4',
    '0 0.1 0.1 0.2 0.2 0.3 0.3 0.4': 'line 1 has 7 numbers after the class',
    '0 0.5 0.5 0.1 0.1\n\n3 0.5 0.5 0.1 0.1': 'line 3 has class 3, out of range for 3 classes',
    '0 320 200 40 30': 'line 1 has the place 320: places are fractions of the sides, 0 to 1',
    '0 0.5 0.5 \x00 0.1': 'line 1 has something else than numbers',
}


@pytest.mark.parametrize('text', FAULTS)
def test_lines_that_are_none(text):
    with pytest.raises(BoxFaultError) as caught:
        yolo_labels.read(text.encode(), 3)
    assert FAULTS[text] in str(caught.value)


def test_bytes_that_are_no_text():
    with pytest.raises(BoxFaultError, match='is not a text in UTF-8'):
        yolo_labels.read(b'0 0.5 \xff', 3)


WRONG = {
    'names: [cat, cat]': 'has the name .cat.: each class needs a name of its own',
    'names: {0: cat, 2: dog}': 'the classes are counted from 0, without gaps',
    'names: [[cat], dog]': 'for names, not a list of them',
    'names: 7': 'for names, not a list of them',
    'names: [cat, "a\\nb"]': 'a line of text',
    'names: [cat, dog]\nnc: 3': 'has "nc": .3., and 2 names',
    'names: [cat]\ntrain: {a: b}': 'for train, not a folder or a list of them',
    'names: &a [cat]\nmore: *a': 'has aliases',
    '[cat, dog]': 'holds no names and values',
    'names: [cat': 'is no YAML',
    '\x00': 'is no YAML',
    'names: [cat]\ntrain: images\nval: images': 'in (train|validation) and in (train|validat)',
    'names: [cat]\nval: images': 'names no pictures for train',
}


@pytest.mark.parametrize('text', WRONG)
def test_a_data_yaml_that_cannot_be_used(tmp_path, text):
    for n in range(4):
        write(tmp_path / f'images/{n}.jpg', picture())
        write(tmp_path / f'labels/{n}.txt', '0 0.5 0.5 1 1')
    write(tmp_path / 'data.yaml', text)
    with pytest.raises(UserError, match=WRONG[text]):
        YoloFolder(tmp_path, 'pets')


def test_several_files_that_describe_a_set(tmp_path):
    for n in range(4):
        write(tmp_path / f'images/{n}.jpg', picture())
        write(tmp_path / f'labels/{n}.txt', '0 0.5 0.5 1 1')
    for name in ('one', 'two'):
        write(tmp_path / f'{name}.yaml', f'names: [{name}]')
    write(tmp_path / 'training.yaml', 'lr: 0.1')
    with pytest.raises(
        UserError, match=r'several files that describe a set \(one.yaml, two.yaml\)'
    ):
        YoloFolder(tmp_path, 'pets')
    assert YoloFolder(tmp_path, 'pets', class_names=('cat',)).class_names == ('cat',)


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        (['a.jpg'], 'has no .txt files'),
        (['a.txt'], 'has no pictures'),
        (['images/a.jpg', 'labels/b.txt'], 'has no .txt with the name of a picture'),
    ],
)
def test_folders_of_another_form(tmp_path, paths, message):
    for path in paths:
        write(tmp_path / 'source' / path, picture() if path.endswith('.jpg') else LINES)
    with pytest.raises(UserError, match=message):
        YoloFolder(tmp_path / 'source', 'pets')
