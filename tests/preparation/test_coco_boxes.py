"""Boxes in COCO's JSON: their places, crowds, categories, and every refusal."""

import json

import pytest

from errors import UserError
from preparation import sharded_writer
from preparation.box_sets import BoxSet
from preparation.coco_boxes import CocoBoxes
from tests.support_boxes import picture, rejected, rows, write

CATEGORIES = [{'id': 7, 'name': 'dog'}, {'id': 3, 'name': 'cat'}]


def annotations(path, things, count=3, categories=CATEGORIES):
    """A file of `count` pictures of 40x30; things are (picture, category, box, is a crowd)."""
    images = [
        {'id': n + 1, 'file_name': f'{n}.jpg', 'width': 40, 'height': 30} for n in range(count)
    ]
    entries = [
        {'id': n, 'image_id': image + 1, 'category_id': category, 'bbox': box, 'iscrowd': crowd}
        for n, (image, category, box, crowd) in enumerate(things, 1)
    ]
    parts = {'images': images, 'annotations': entries, 'categories': categories}
    return write(path, json.dumps(parts))


def prepare(folder, paths, data, max_rejected=0, **options):
    source = CocoBoxes(folder, 'pets', paths, **options)
    sharded_writer.prepare(BoxSet(source), data, max_rejected)
    return data / 'pets' / '1.0.0'


def test_boxes_crowds_and_categories(tmp_path):
    paths = []
    for split in ('train', 'val'):
        for n in range(3):
            write(tmp_path / 'pictures' / f'{split}2024' / f'{n}.jpg', picture(n))
        things = [(0, 7, [2, 3, 10, 12.5], 0), (1, 3, [0, 0, 40, 30], 1), (0, 3, [39, 29, 1, 1], 0)]
        path = tmp_path / f'instances_{split}2024.json'
        paths.append(annotations(path, things))
    folder = prepare(tmp_path / 'pictures', paths, tmp_path / 'data')
    found = rows(folder)
    assert list(found) == ['train', 'validation']
    for of in found.values():
        in_pixels = {
            file: [
                (
                    name,
                    *(round(n * side, 4) for n, side in zip(box, (30, 40) * 2, strict=True)),
                    crowd,
                )
                for name, box, crowd, _ in boxes
            ]
            for file, boxes in of.items()
        }
        assert in_pixels == {
            '0.jpg': [('dog', 3, 2, 15.5, 12, False), ('cat', 29, 39, 30, 40, False)],
            '1.jpg': [('cat', 0, 0, 30, 40, True)],
            '2.jpg': [],
        }
    assert CocoBoxes(tmp_path / 'pictures', 'pets', paths).class_names == ('cat', 'dog')


def test_a_folder_with_annotations_for_each_split(tmp_path):
    """As Roboflow exports them, with a category that stands above the others."""
    paths = []
    categories = [{'id': 0, 'name': 'pets', 'supercategory': 'none'}, {'id': 1, 'name': 'cat'}]
    for split in ('train', 'valid', 'test'):
        for n in range(3):
            write(tmp_path / split / f'{n}.jpg', picture(n))
        path = tmp_path / split / '_annotations.coco.json'
        paths.append(annotations(path, [(0, 1, [1, 1, 5, 5], 0)], categories=categories))
    folder = prepare(tmp_path, paths, tmp_path / 'data', class_names=('cat',))
    assert {split: sorted(of) for split, of in rows(folder).items()} == {
        split: ['0.jpg', '1.jpg', '2.jpg'] for split in ('train', 'validation', 'test')
    }
    assert rows(folder)['test']['0.jpg'][0][0] == 'cat'


@pytest.mark.parametrize(
    ('thing', 'reason'),
    [
        ((1, 7, [1, 2, -3, 4], 0), 'annotation 2 has a box that ends before it starts'),
        ((1, 7, [50, 2, 3, 4], 0), 'annotation 2 has a box outside the picture'),
        ((1, 7, None, 0), 'annotation 2 has None for "bbox", not [x, y, width, height]'),
        ((1, 7, [1, 2, 3], 0), 'annotation 2 has [1, 2, 3] for "bbox"'),
        ((1, 7, [1, 2, 3, 'x'], 0), 'annotation 2 has [1, 2, 3, \'x\'] for "bbox"'),
        ((1, 7, [1, 2, 3, 10**400], 0), 'annotation 2 has [1, 2, 3, 1000'),
        ((1, 7, [1, 2, 3, float('nan')], 0), 'annotation 2 has [1, 2, 3, nan] for "bbox"'),
        ((1, 9, [1, 2, 3, 4], 0), 'annotation 2 is of category 9, which is not there'),
        ((1, 3, [1, 2, 3, 4], 0), "annotation 2 is of 'cat', not a class given"),
    ],
)
def test_what_is_wrong_is_named_and_refused(tmp_path, thing, reason):
    for n in range(3):
        write(tmp_path / 'images' / f'{n}.jpg', picture(n))
    paths = [
        annotations(tmp_path / 'train.json', [(0, 7, [1, 1, 5, 5], 0), thing]),
        annotations(tmp_path / 'val.json', []),
    ]
    folder = prepare(tmp_path, paths, tmp_path / 'data', 1, class_names=('dog',))
    [entry] = rejected(folder)
    assert (entry['file'], entry['defective']) == ('1.jpg', True)
    assert entry['reason'].startswith(reason)


def test_a_class_name_that_is_no_category(tmp_path):
    path = annotations(tmp_path / 'all.json', [])
    with pytest.raises(UserError, match=r"has no category 'dogs'\. Did you mean .dog.\?"):
        CocoBoxes(tmp_path, 'pets', [path], ('dogs',))


def test_a_picture_that_is_missing(tmp_path):
    for n in range(2):
        write(tmp_path / f'{n}.jpg', picture(n))
    path = annotations(tmp_path / 'a.json', [(0, 7, [1, 1, 5, 5], 0)], count=3)
    with pytest.raises(UserError, match=r'2\.jpg \(cannot be read: No such file or directory\)'):
        prepare(tmp_path, [path], tmp_path / 'data')
