"""Boxes in Pascal VOC's XML: the layouts of exports, and what becomes of each box."""

import numpy as np
import pytest

from errors import UserError
from preparation import sharded_writer
from preparation.box_sets import BoxSet
from preparation.voc import VocFolder
from tests.support_boxes import picture, rejected, rows, voc, write

BOXES = [('dog', 3, 4, 20, 25), ('cat', 1, 1, 40, 30)]
EXPECTED = [
    ('dog', (3 / 30, 2 / 40, 25 / 30, 20 / 40), False, False),
    ('cat', (0.0, 0.0, 1.0, 1.0), False, False),
]


def prepare(folder, data, max_rejected=0, **options):
    source = VocFolder(folder, 'pets', **options)
    sharded_writer.prepare(BoxSet(source), data, max_rejected)
    return data / 'pets' / '1.0.0'


def same(found, expected):
    assert [(n, *flags) for n, _, *flags in found] == [(n, *flags) for n, _, *flags in expected]
    boxes = [[box for _, box, *_ in of] for of in (found, expected)]
    np.testing.assert_allclose(*boxes, atol=1e-6)


LAYOUTS = {
    'VOC': ('JPEGImages/{}.jpg', 'Annotations/{}.xml'),
    'lower case': ('images/{}.jpg', 'annotations/{}.xml'),
    'side by side': ('{}.jpg', '{}.xml'),
    'inside another folder': ('VOCdevkit/VOC2012/JPEGImages/{}.jpg',
                              'VOCdevkit/VOC2012/Annotations/{}.xml'),
    'folders in folders': ('images/jpg/{}.jpg', 'annotations/xmls/{}.xml'),
    'XML beside the folder of pictures': ('images/{}.jpg', '{}.xml'),
    'folders below': ('JPEGImages/2024/{}.jpg', 'Annotations/2024/{}.xml'),
}  # fmt: skip


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts_without_splits(tmp_path, layout):
    where, beside = LAYOUTS[layout]
    for n in range(10):
        write(tmp_path / 'source' / where.format(f'p{n}'), picture(n))
        write(tmp_path / 'source' / beside.format(f'p{n}'), voc(BOXES, filename=f'p{n}.jpg'))
    found = rows(prepare(tmp_path / 'source', tmp_path / 'data'))
    assert {split: len(of) for split, of in found.items()} == {
        'train': 8, 'validation': 1, 'test': 1,
    }  # fmt: skip
    for of in found.values():
        for boxes in of.values():
            same(boxes, EXPECTED)
    assert rejected(tmp_path / 'data/pets/1.0.0') == []


@pytest.mark.parametrize(
    ('where', 'beside'),
    [
        ('{split}/{stem}.jpg', '{split}/{stem}.xml'),
        ('{split}/images/{stem}.jpg', '{split}/annotations/{stem}.xml'),
        ('images/{split}/{stem}.jpg', 'annotations/{split}/{stem}.xml'),
        ('images/{split}/{stem}.jpg', 'annotations/{stem}.xml'),
        ('images/{stem}.jpg', 'annotations/{split}/{stem}.xml'),
        ('images/{split}/{stem}.jpg', 'images/{split}/{stem}.xml'),
        ('data/{split}/{stem}.jpg', 'data/{split}/{stem}.xml'),
    ],
)
def test_folders_for_the_splits(tmp_path, where, beside):
    for n, split in enumerate(['train', 'train', 'Valid', 'test']):
        names = {'split': split, 'stem': f'p{n}'}
        write(tmp_path / 'source' / where.format(**names), picture(n))
        write(tmp_path / 'source' / beside.format(**names), voc(BOXES[: n % 2]))
    found = rows(prepare(tmp_path / 'source', tmp_path / 'data'))
    names = {split: {name.rpartition('/')[2]: len(b) for name, b in of.items()}
             for split, of in found.items()}  # fmt: skip
    assert names == {'train': {'p0.jpg': 0, 'p1.jpg': 1}, 'validation': {'p2.jpg': 0},
                     'test': {'p3.jpg': 1}}  # fmt: skip


def test_lists_in_image_sets(tmp_path):
    """As VOC has them: more lists than are read, and pictures that none of them names."""
    source = tmp_path / 'source'
    for n in range(8):
        write(source / f'JPEGImages/p{n}.jpg', picture(n))
        if n < 7:
            write(source / f'Annotations/p{n}.xml', voc(BOXES))
    lists = {'train': [0, 1], 'trainval': [0, 1, 2], 'val': [2], 'test': [3, 4], 'dog_train': [5]}
    for name, numbers in lists.items():
        lines = [f'p{n}  -1' if name == 'dog_train' else f'p{n}' for n in numbers]
        write(source / f'ImageSets/Main/{name}.txt', '\n'.join(lines))
    write(source / 'ImageSets/Layout/train.txt', 'p6')
    write(source / 'SegmentationClass/p0.png', picture(0, form='PNG'))
    folder = prepare(source, tmp_path / 'data')
    assert {split: sorted(of) for split, of in rows(folder).items()} == {
        'train': ['p0.jpg', 'p1.jpg'], 'validation': ['p2.jpg'], 'test': ['p3.jpg', 'p4.jpg'],
    }  # fmt: skip
    left_out = {entry['file']: entry['reason'] for entry in rejected(folder)}
    assert left_out == {
        **{f'JPEGImages/p{n}.jpg': 'is not in ImageSets/Main' for n in (5, 6)},
        'JPEGImages/p7.jpg': 'has no .xml',
        'SegmentationClass/p0.png': 'is not in a folder of pictures, as others are',
    }


def test_a_list_of_train_and_validation_in_one(tmp_path):
    source = tmp_path / 'source'
    for n in range(4):
        write(source / f'JPEGImages/p{n}.jpg', picture(n))
        write(source / f'Annotations/p{n}.xml', voc(BOXES))
    write(source / 'ImageSets/Main/trainval.txt', 'p0.jpg\np1\n\n')
    write(source / 'ImageSets/Main/test.txt', 'p3 1\n')
    folder = prepare(source, tmp_path / 'data')
    assert {s: sorted(of) for s, of in rows(folder).items()} == {
        'train': ['p0.jpg', 'p1.jpg'], 'test': ['p3.jpg'],
    }  # fmt: skip


def test_a_list_of_what_is_not_there(tmp_path):
    source = tmp_path / 'source'
    for n in range(2):
        write(source / f'JPEGImages/p{n}.jpg', picture(n))
    write(source / 'Annotations/p0.xml', voc(BOXES))
    write(source / 'ImageSets/Main/train.txt', 'p0\np1\np2')
    folder = prepare(source, tmp_path / 'data', max_rejected=2)
    assert {e['file']: e['reason'] for e in rejected(folder)} == {
        'JPEGImages/p1.jpg': 'has no .xml',
        'p2': 'is in ImageSets/Main, but there is no such picture',
    }


@pytest.mark.parametrize(
    ('filename', 'stem'),
    [
        ('img_7.JPG', 'other'),
        ('img_7', 'other'),
        ('C:\\Users\\me\\img_7.jpg', 'other'),
        ('../elsewhere/img_7.jpg', 'other'),
        ('', 'img_7'),
        ('of_another_name.jpg', 'img_7'),
        ('p0.jpg', 'img_7'),
        ('p0.jpg', 'IMG_7'),
    ],
)
def test_the_picture_of_an_annotation(tmp_path, filename, stem):
    """By its own name, or by <filename>; <path> is of another machine, and never looked at."""
    source = tmp_path / 'source'
    write(source / 'images/p0.jpg', picture(0))
    write(source / 'annotations/p0.xml', voc([('cat', 1, 1, 9, 9)]))
    write(source / 'images/img_7.jpg', picture(7))
    write(source / f'annotations/{stem}.xml', voc([('dog', 1, 1, 9, 9)], filename=filename))
    write(tmp_path / 'splits.txt', f'train p0\ntrain {stem}')
    folder = prepare(source, tmp_path / 'data', listed=tmp_path / 'splits.txt')
    found = {name: [of[0] for of in boxes] for name, boxes in rows(folder)['train'].items()}
    assert found == {'p0.jpg': ['cat'], 'img_7.jpg': ['dog']}


def test_pictures_and_annotations_that_do_not_go_together(tmp_path):
    source = tmp_path / 'source'
    for name in ('a.jpg', 'b.jpg', 'b.png', 'c.jpg', 'c.png', 'alone.jpg'):
        write(source / 'images' / name, picture(0))
    write(source / 'annotations/a.xml', voc(BOXES))
    write(source / 'annotations/b.xml', voc(BOXES, filename='b.png'))
    write(source / 'annotations/c.xml', voc(BOXES, filename='d.png'))
    write(source / 'annotations/gone.xml', voc(BOXES, filename='gone.jpg'))
    write(source / 'annotations/again.xml', voc(BOXES, filename='a.jpg'))
    write(
        tmp_path / 'splits.txt', '\n'.join(f'train {s}' for s in ('a', 'b', 'c', 'gone', 'again'))
    )
    folder = prepare(source, tmp_path / 'data', 9, listed=tmp_path / 'splits.txt')
    assert list(rows(folder)['train']) == ['a.jpg', 'b.png']
    assert {entry['file']: (entry['reason'], entry['defective']) for entry in rejected(folder)} == {
        'annotations/again.xml': ('there is no picture of its name', True),
        'annotations/c.xml': ('there are 2 pictures of its name', True),
        'annotations/gone.xml': ('there is no picture of its name', True),
        'images/b.jpg': ('has no .xml', True),
        'images/c.jpg': ('has no .xml', True),
        'images/c.png': ('has no .xml', True),
        'images/alone.jpg': ('has no .xml', False),
    }


def test_pictures_that_nobody_has_annotated_yet_are_left_out_and_counted(tmp_path):
    for n in range(12):
        write(tmp_path / f'source/annots/{n}.xml' if n < 10 else tmp_path / 'no', voc(BOXES))
        write(tmp_path / f'source/images/{n}.jpg', picture(n))
    folder = prepare(tmp_path / 'source', tmp_path / 'data')
    assert {s: len(of) for s, of in rows(folder).items()} == {
        'train': 8, 'validation': 1, 'test': 1,
    }  # fmt: skip
    entries = [(e['file'], e['reason'], e['defective']) for e in rejected(folder)]
    assert entries == [(f'images/{n}.jpg', 'has no .xml', False) for n in (10, 11)]
    assert VocFolder(tmp_path / 'source', 'pets').about_left_out() == [
        'Left out: 2 pictures without an .xml. They are listed in rejected.jsonl.'
    ]


def test_pictures_beside_the_folders_of_the_splits(tmp_path):
    for folder in ('train', 'val', 'more'):
        for n in range(2):
            write(tmp_path / f'source/{folder}/{n}.jpg', picture(n))
            write(tmp_path / f'source/{folder}/{n}.xml', voc(BOXES))
    folder = prepare(tmp_path / 'source', tmp_path / 'data')
    assert {s: len(of) for s, of in rows(folder).items()} == {'train': 2, 'validation': 2}
    assert [(e['file'], e['defective']) for e in rejected(folder)] == [
        ('more/0.jpg', False), ('more/1.jpg', False),
    ]  # fmt: skip
    assert VocFolder(tmp_path / 'source', 'pets').about_left_out() == [
        'Left out: 2 in no folder of a split. They are listed in rejected.jsonl.'
    ]


EXPORTS = {
    'numbers with a point': (voc([('dog', 3.5, '4.0', 20, 25.25)]), {}, (3, 2.5, 25.25, 20)),
    'without a size': (voc([('dog', 3, 4, 20, 25)], size=None), {}, (3, 2, 25, 20)),
    'of size 0': (voc([('dog', 3, 4, 20, 25)], size=(0, 0)), {}, (3, 2, 25, 20)),
    'from 0': (voc([('dog', 0, 0, 40, 30)]), {}, (0, 0, 30, 40)),
    'edges from 0': (voc([('dog', 3, 4, 20, 25)]), {'zero_based': True}, (4, 3, 25, 20)),
    'edges at 0': (voc([('dog', 0, 0, 40, 30)]), {'zero_based': True}, (0, 0, 30, 40)),
    'with a header': ('<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE annotation>'
                      + voc([(' dog\n', 3, 4, 20, 25)]), {}, (3, 2, 25, 20)),
    'in UTF-16': (('<?xml version="1.0" encoding="utf-16"?>'
                   + voc([('dog', 3, 4, 20, 25)])).encode('utf-16'), {}, (3, 2, 25, 20)),
    'with parts': (voc([], more='<object><part><name>head</name><bndbox><xmin>5</xmin></bndbox>'
                       '</part><name>dog</name><bndbox><ymax>25</ymax><xmax>20</xmax>'
                       '<ymin>4</ymin><xmin>3</xmin></bndbox></object>'), {}, (3, 2, 25, 20)),
}  # fmt: skip


@pytest.mark.parametrize('case', EXPORTS)
def test_what_exports_write(tmp_path, case):
    text, options, expected = EXPORTS[case]
    for split in ('train', 'val', 'test'):
        write(tmp_path / 'source' / split / 'a.jpg', picture())
        write(tmp_path / 'source' / split / 'a.xml', text)
    folder = prepare(tmp_path / 'source', tmp_path / 'data', **options)
    same(
        rows(folder)['train']['a.jpg'],
        [('dog', tuple(np.divide(expected, (30, 40, 30, 40))), 0, 0)],
    )


def test_difficult_objects_and_names_in_any_script(tmp_path):
    more = ''.join(
        f'<object><name>{name}</name><difficult>{flag}</difficult><bndbox><xmin>1</xmin><ymin>1'
        '</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>'
        for name, flag in (('собака', 1), ('red cell', 0), ('Cat', 'Unspecified'), ('7', ''))
    )
    for split in ('train', 'val'):
        write(tmp_path / 'source' / split / 'a.jpg', picture())
        write(tmp_path / 'source' / split / 'a.xml', voc([], more=more))
    folder = prepare(tmp_path / 'source', tmp_path / 'data')
    found = rows(folder)['train']['a.jpg']
    assert [(name, difficult) for name, _, _, difficult in found] == [
        ('собака', True), ('red cell', False), ('Cat', False), ('7', False),
    ]  # fmt: skip
    source = VocFolder(tmp_path / 'source', 'pets')
    assert source.class_names == ('7', 'Cat', 'red cell', 'собака')


def test_classes_in_the_order_given_and_none_beside_them(tmp_path):
    for split, name in (('train', 'dog'), ('val', 'cat'), ('test', 'wolf')):
        write(tmp_path / 'source' / split / 'a.jpg', picture())
        write(tmp_path / 'source' / split / 'a.xml', voc([('dog', 1, 1, 9, 9), (name, 2, 2, 9, 9)]))
    write(tmp_path / 'source/test/b.jpg', picture())
    write(tmp_path / 'source/test/b.xml', voc([]))
    folder = prepare(tmp_path / 'source', tmp_path / 'data', 1, class_names=('dog', 'cat'))
    assert {s: sorted(of) for s, of in rows(folder).items()} == {
        'train': ['a.jpg'], 'validation': ['a.jpg'], 'test': ['b.jpg'],
    }  # fmt: skip
    [entry] = rejected(folder)
    assert entry['file'] == 'test/a.xml'
    assert entry['reason'] == 'has object 2 (wolf) of a class that is none of those given'


def test_no_entity_is_expanded_and_nothing_else_is_read(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY b "dog"><!ENTITY c "&b;&b;">]>' + voc([('&c;', 1, 1, 9, 9)])
    secret = write(tmp_path / 'secret', 'dog')
    outside = f'<!DOCTYPE a [<!ENTITY b SYSTEM "file://{secret}">]>' + voc([('&b;', 1, 1, 9, 9)])
    for name, text in (('a', bomb), ('b', outside), ('c', voc(BOXES))):
        write(tmp_path / 'source/train' / f'{name}.jpg', picture())
        write(tmp_path / 'source/train' / f'{name}.xml', text)
    write(tmp_path / 'source/val/a.jpg', picture())
    write(tmp_path / 'source/val/a.xml', voc([]))
    folder = prepare(tmp_path / 'source', tmp_path / 'data', 2)
    assert list(rows(folder)['train']) == ['c.jpg']
    assert {entry['file'] for entry in rejected(folder)} == {'train/a.xml', 'train/b.xml'}
    assert all('declares entities' in entry['reason'] for entry in rejected(folder))


MISTAKES = {
    'no folder': ([], 'is not a folder: --source must be one'),
    'no pictures': (['a.xml'], 'has no pictures, itself or in the folders below it'),
    'no annotations': (['a.jpg'], 'has no .xml files, itself or in the folders below it'),
    'no train': (['val/a.jpg', 'val/a.xml'], 'but no train'),
    'too few': (['a.jpg', 'a.xml', 'b.jpg', 'b.xml'], 'at least 3 are needed'),
    'a list and folders': (['train/a.jpg', 'train/a.xml'], 'so that --splits has nothing to say'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_mistakes_are_said_in_a_sentence(tmp_path, case):
    paths, message = MISTAKES[case]
    for path in paths:
        content = voc(BOXES) if path.endswith('.xml') else picture()
        write(tmp_path / 'source' / path, content)
    listed = write(tmp_path / 'splits.txt', 'train a') if case == 'a list and folders' else None
    with pytest.raises(UserError) as caught:
        VocFolder(tmp_path / 'source', 'pets', listed=listed)
    assert message in str(caught.value)


def test_annotations_without_a_box_are_no_set(tmp_path):
    for n in range(3):
        write(tmp_path / f'{n}.jpg', picture())
        write(tmp_path / f'{n}.xml', voc([]) if n else '<annotation>')
    with pytest.raises(UserError, match=r'have no boxes\. 0\.xml is no XML: no element found'):
        VocFolder(tmp_path, 'pets')
