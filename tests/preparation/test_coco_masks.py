"""prepare_data coco: polygons and run lengths become masks that stock tfds reads."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from preparation import coco_annotations, coco_masks
from preparation.coco_annotations import Object
from preparation.mask_files import MaskFaultError
from tools import prepare_data

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]  # x 2..8, y 3..9
# What pycocotools 2.0 makes of masks: {name: (height, width, its compressed text, run lengths)}.
COMPRESSED = json.loads((Path(__file__).parent / 'coco_run_lengths.json').read_text())


def thing(segmentation, number=1, category=7, crowd=False):
    return Object(number, category, segmentation, None, crowd)


def slowly(polygon, height, width):
    """Which centres of pixels lie inside, by the rule of even and odd crossings."""
    places = list(zip(polygon[::2], polygon[1::2], strict=True))
    inside = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y, crossings = column + 0.5, row + 0.5, 0
            for (x0, y0), (x1, y1) in zip(places, [*places[1:], places[0]], strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    crossings += 1
            inside[row, column] = crossings % 2
    return inside


def test_a_polygon_covers_the_pixels_whose_centres_are_inside():
    mask = coco_masks.covered(thing([SQUARE]), 'a', 12, 14)
    expected = np.zeros((12, 14), bool)
    expected[3:9, 2:8] = True
    np.testing.assert_array_equal(mask, expected)
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        radii = rng.uniform(3, 9, 7)
        polygon = np.stack([12 + radii * np.cos(angles), 10 + radii * np.sin(angles)], 1).ravel()
        polygon = polygon.round(3).tolist()
        found = coco_masks.covered(thing([polygon]), 'a', 20, 24)
        np.testing.assert_array_equal(found, slowly(polygon, 20, 24))


@pytest.mark.parametrize('name', COMPRESSED)
def test_run_lengths_equal_those_of_pycocotools(name):
    height, width, text, counts = COMPRESSED[name]
    assert coco_masks.uncompressed(text) == counts
    expected = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    for form in (text, counts):
        segmentation = {'size': [height, width], 'counts': form}
        found = coco_masks.covered(thing(segmentation), 'a', height, width)
        np.testing.assert_array_equal(found, expected)


def photo(*objects, size=(12, 14)):
    return coco_annotations.Photo('a.png', *size, objects)


LARGE = [0, 0, 14, 0, 14, 12, 0, 12]


def test_smaller_objects_lie_on_top_and_crowds_are_void():
    things = (thing([SQUARE], 1, 7), thing([LARGE], 2, 9), thing([[0, 0, 3, 0, 3, 3, 0, 3]], 3, 7))
    classes = coco_masks.drawn(photo(*things), 'a', {7: 1, 9: 2}, instances=False).values
    assert (classes[3:9, 2:8] == 1).all()
    assert (classes == 2).sum() == 12 * 14 - 36 - 9
    objects = coco_masks.drawn(photo(*things), 'a', {7: 1, 9: 2}, instances=True).values
    assert objects[4, 4] == 1
    assert objects[11, 13] == 2
    assert objects[0, 0] == 3
    crowd = thing([LARGE], 2, 9, crowd=True)
    found = coco_masks.drawn(photo(things[0], crowd), 'a', {7: 1, 9: 2}, instances=False)
    assert set(np.unique(found.values)) == {1, 255}
    assert found.kinds == (coco_masks.CROWDS,)
    found = coco_masks.drawn(photo(things[0], crowd), 'a', {7: 1, 9: 2}, instances=True)
    assert set(np.unique(found.values)) == {0, 1}


@pytest.mark.parametrize(
    ('segmentation', 'words'),
    [
        (None, 'no polygons and no run lengths'),
        ([], 'no polygons'),
        ([[1, 2, 3, 4]], 'not a list of three or more places'),
        ([[1, 2, 3, 4, 5, 6, 7]], 'not a list of three or more places'),
        ([[1, 2, 3, 4, 5, 'x']], 'not a list of three or more places'),
        ([[1, 2, 3, 4, 5, 99]], 'outside the picture of 14x12'),
        ([[1, 2, 3, 4, 5, float('nan')]], 'not finite'),
        ([[1, 2, 3, 4, 5, 10**400]], 'too large'),
        ({'size': [14, 12], 'counts': [168]}, 'of size'),
        ({'size': [12, 14], 'counts': [167]}, 'do not add up'),
        ({'size': [12, 14], 'counts': [-1, 169]}, 'do not add up'),
        ({'size': [12, 14], 'counts': 'a b'}, 'the character'),
        ({'size': [12, 14], 'counts': 'o'}, 'end too early'),
        ({'size': [12, 14]}, 'do not add up'),
        ({'size': [12, 14], 'counts': 'o' * 50}, 'too many digits'),
    ],
)
def test_segmentations_that_fit_no_picture_are_named(segmentation, words):
    with pytest.raises(MaskFaultError, match=words):
        coco_masks.covered(thing(segmentation, 42), 'a.png', 12, 14)


# --- the command --------------------------------------------------------------------------------


def annotations(count=10):
    images = [
        {'id': 5 + i, 'file_name': f'{i}.png', 'height': 12, 'width': 14} for i in range(count)
    ]
    things = [
        {'id': i, 'image_id': 5 + i, 'category_id': 9 if i % 2 else 7, 'iscrowd': 0,
         'segmentation': [SQUARE], 'bbox': [2, 3, 6, 6]}
        for i in range(count)
    ]  # fmt: skip
    categories = [{'id': 9, 'name': 'dog'}, {'id': 7, 'name': 'cat'}]
    return {'images': images, 'annotations': things, 'categories': categories}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for number in range(10):
        Image.new('RGB', (14, 12), (number, 99, 0)).save(folder / f'{number}.png')
    return folder


def prepared(source, found, *more, name='pets', file='all.json'):
    path = source.parent / file
    path.write_text(json.dumps(found) if isinstance(found, dict) else found)
    argv = ['coco', f'--source={source}', f'--name={name}', f'--data_dir={source.parent / "data"}']
    return prepare_data.main([*argv, '--annotations', str(path), *more])


def test_stock_tfds_reads_the_set(source, capsys):
    assert prepared(source, annotations()) == 0
    said = capsys.readouterr().out
    assert '8 train, 1 validation, 1 test' in said
    builder = tfds.builder_from_directory(source.parent / 'data' / 'pets' / '1.0.0')
    assert builder.info.features['segmentation_mask'].names == ['background', 'cat', 'dog']
    for split in ('train', 'validation', 'test'):
        for example in builder.as_data_source(split):
            number = int(example['file_name'].decode().partition('.')[0])
            assert example['image'][0, 0, 0] == number
            mask = example['segmentation_mask'][..., 0]
            assert (mask[3:9, 2:8] == (2 if number % 2 else 1)).all()
            assert mask.sum() == 36 * (2 if number % 2 else 1)


def test_instances_and_files_for_splits(source, capsys):
    files = []
    for name in ('instances_train2017', 'instances_val2017'):
        folder = source / name.partition('_')[2]
        folder.mkdir()
        for number in range(3):
            Image.new('RGB', (14, 12)).save(folder / f'{number}.png')
        files.append(source.parent / f'{name}.json')
        files[-1].write_text(json.dumps(annotations(3)))
    for picture in source.glob('*.png'):
        picture.unlink()
    argv = ['coco', f'--source={source}', '--name=objects', '--instances']
    argv += [f'--data_dir={source.parent / "data"}', '--annotations', *map(str, files)]
    assert prepare_data.main(argv) == 0
    assert '3 train, 3 validation' in capsys.readouterr().out
    builder = tfds.builder_from_directory(source.parent / 'data' / 'objects' / '1.0.0')
    for example in builder.as_data_source('train'):
        assert set(np.unique(example['instance_map'])) == {0, 1}


def changed(path, value):
    """The annotations with another value in one place."""
    found = annotations()
    *where, last = path
    place = found
    for key in where:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return found


@pytest.mark.parametrize(
    ('found', 'words'),
    [
        ('{', 'cannot be used'),
        ('[]', 'cannot be used'),
        (changed(['images'], None), 'cannot be used'),
        (changed(['categories'], []), 'it has no categories'),
        (changed(['categories', 0, 'id'], 7), 'is there twice'),
        (changed(['images', 0, 'id'], 6), 'image 6 is there twice'),
        (changed(['images', 0, 'file_name'], '1.png'), 'two images have the file_name 1.png'),
        (changed(['images', 0, 'file_name'], '../x.png'), 'leads out of the folder'),
        (changed(['images', 0, 'height'], '12'), 'has not "id", "height" and "width"'),
        (changed(['annotations', 0, 'image_id'], 77), 'belongs to image 77, which is not there'),
        (changed(['annotations', 0, 'category_id'], None), 'an annotation has not'),
        (changed(['annotations', 0, 'iscrowd'], '0'), 'which is not 0 or 1'),
        (changed(['annotations', 0, 'id'], 1), 'annotation 1 is there twice'),
        (changed(['images', 0, 'file_name'], '\ud800.png'), 'is that of no file'),
        (changed(['images', 0, 'file_name'], 'x' * 5000), 'is too long'),
        (changed(['categories', 0, 'name'], '\ud800'), 'is no line of text'),
        (changed(['categories', 0, 'name'], 'cat\ndog'), 'is no line of text'),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_a_sentence(found, words, source, capsys):
    assert prepared(source, found) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ('path', 'value', 'words'),
    [
        (['images', 3, 'file_name'], 'gone.png', 'gone.png'),
        (['images', 3, 'width'], 15, '3.png'),
        (['images', 3, 'width'], 10**12, '3.png'),
        (['annotations', 3, 'category_id'], 8, 'unknown category'),
        (['annotations', 3, 'segmentation'], [[1, 2]], 'annotation 3'),
    ],
)
def test_faults_of_one_picture_are_listed(path, value, words, source, capsys):
    assert prepared(source, changed(path, value)) == 2
    assert words in capsys.readouterr().err
    assert prepared(source, changed(path, value), '--max_rejected=1', name='most') == 0
    [line] = (source.parent / 'data/most/1.0.0/rejected.jsonl').read_text().splitlines()
    assert words in line


def test_malformed_annotations_never_crash(source, capsys):
    """Each of a hundred is prepared, or refused in one sentence."""
    rng = np.random.default_rng(1)
    text = json.dumps(annotations())
    values = ('null', '-1', '1e400', '"x"', '[]', '{}', 'true', '99999999999999999999999')
    for case in range(100):
        spoilt = text
        for _ in range(rng.integers(1, 3)):
            start = int(rng.integers(len(spoilt)))
            stop = min(len(spoilt), start + int(rng.integers(1, 9)))
            kind = rng.integers(3)
            if kind == 0:
                spoilt = spoilt[:start] + spoilt[stop:]
            elif kind == 1:
                spoilt = spoilt[:start] + str(rng.choice(values)) + spoilt[stop:]
            else:
                place = [i for i, letter in enumerate(spoilt) if letter == ':']
                cut = int(rng.choice(place)) + 1
                end = min(
                    (spoilt.find(c, cut) for c in ',}' if spoilt.find(c, cut) > 0), default=cut
                )
                spoilt = spoilt[:cut] + str(rng.choice(values)) + spoilt[end:]
        code = prepared(source, spoilt, '--max_rejected=9', name=f'case{case}', file=f'{case}.json')
        said = capsys.readouterr()
        assert code in (0, 2)
        if code == 2:
            assert said.err.startswith('error: ')
        else:
            folder = source.parent / 'data' / f'case{case}' / '1.0.0'
            counts = tfds.builder_from_directory(folder).info.splits
            listed = folder / 'rejected.jsonl'
            lost = len(listed.read_text().splitlines()) if listed.exists() else 0
            assert sum(split.num_examples for split in counts.values()) + lost >= 3
