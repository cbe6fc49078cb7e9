"""Boxes in Pascal VOC's XML: the layouts of exports, and what becomes of each box."""

import numpy as np
import pytest

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
