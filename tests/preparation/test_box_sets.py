"""Pictures with boxes as a data set: what stock tfds and our summary get of each."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sources import orientation
from errors import UserError
from preparation import box_sets, sharded_writer, stored_pictures, summary
from preparation.box_sets import Boxed, BoxFaultError, BoxSet, Marked
from tests.support_boxes import picture, rejected, rows

WIDTH, HEIGHT = 40, 30


class Source:
    """A BoxSource in memory: {split: [(name, picture, Marked or error)]}."""

    version, description, homepage, citation = '1.0.0', 'Boxes.', '', ''
    class_names = ('cat', 'dog', 'never')

    def __init__(self, examples, name='boxes'):
        self.name, self._examples = name, examples
        self.splits = {split: len(found) for split, found in examples.items()}

    def identity(self):
        return {'boxes': 'these'}

    def stamp(self):
        return None

    def boxed(self, split, cursor):
        for number, (name, data, marked) in enumerate(self._examples[split]):
            if number >= (cursor or 0):
                yield Boxed(name, name, number + 1, 1, data, lambda m=marked: give(m), 'boxes.xml')


def give(marked):
    if isinstance(marked, Exception):
        raise marked
    return marked


def marked(*boxes, size=(HEIGHT, WIDTH), labels=None, **options):
    names = tuple(f'object {n}' for n, _ in enumerate(boxes, 1))
    labels = tuple(n % 2 for n, _ in enumerate(boxes)) if labels is None else labels
    return Marked(np.array(boxes, np.float64).reshape(-1, 4), labels, names, size=size, **options)


def prepare(folder, *examples, max_rejected=0, **options):
    found = [(f'{n}.jpg', *example) for n, example in enumerate(examples)]
    source = Source({'train': found})
    assert sharded_writer.prepare(BoxSet(source, **options), folder, max_rejected)
    return folder / 'boxes' / '1.0.0'


def pixels(box, size=(HEIGHT, WIDTH)):
    """A box of fractions in pixels, rounded."""
    return tuple(round(n * side, 3) for n, side in zip(box, size * 2, strict=True))


def test_stock_tfds_reads_pictures_boxes_and_class_names(tmp_path):
    first = marked((3, 4, 20.5, 40), (0, 0, 30, 1), crowd=(False, True), difficult=(True, False))
    many = marked(*[(n / 10, 1, n / 10 + 1, 2) for n in range(200)])
    folder = prepare(tmp_path, (picture(0), first), (picture(1), marked()), (picture(2), many))
    builder = tfds.builder_from_directory(folder)
    features = builder.info.features['objects'].feature
    assert isinstance(features['bbox'], tfds.features.BBoxFeature)
    assert features['label'].names == ['cat', 'dog', 'never']
    assert builder.info.metadata['upright'] is True
    found = rows(folder)['train']
    assert [(name, pixels(box), *flags) for name, box, *flags in found['0.jpg']] == [
        ('cat', (3, 4, 20.5, 40), False, True),
        ('dog', (0, 0, 30, 1), True, False),
    ]
    assert found['1.jpg'] == []
    assert [pixels(box) for _, box, _, _ in found['2.jpg']] == [
        (n / 10, 1, n / 10 + 1, 2) for n in range(200)
    ]
    with Image.open(io.BytesIO(picture(0))) as expected:
        image = rows(folder, decode=True)['train']['0.jpg']
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_pictures_keep_their_bytes_or_are_stored_anew(tmp_path):
    palette = io.BytesIO()
    with Image.open(io.BytesIO(picture(1))) as plain:
        plain.quantize(8).save(palette, 'PNG')
    data = palette.getvalue()
    folder = prepare(tmp_path, (picture(0), marked()), (data, marked((1, 2, 3, 4))))
    builder = tfds.builder_from_directory(folder)
    skip = {'image': tfds.decode.SkipDecoding()}
    kept, anew = (e['image'] for e in builder.as_data_source('train', decoders=skip))
    assert kept == picture(0)
    assert anew != data
    assert builder.info.metadata['kinds']['train'][stored_pictures.CONVERTED] == 1
    stretched = prepare(tmp_path / 'stretched', (data, marked((1, 2, 3, 4))), stretch=0.5)
    assert tfds.builder_from_directory(stretched).info.metadata['stretch'] == 0.5


@pytest.mark.parametrize(
    ('number', 'of_stored'), [*((n, False) for n in range(1, 9)), *((n, True) for n in range(5, 9))]
)
def test_boxes_follow_the_orientation_of_the_picture(tmp_path, number, of_stored):
    """A white box on black, found again in the picture that Pillow has turned upright."""
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[4:12, 8:32] = 255
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = number
    Image.fromarray(stored).save(file, 'PNG', exif=exif)
    upright = orientation.turned_pixels(stored, number)
    box = (4, 8, 12, 32) if of_stored else bounds(upright)
    annotation = marked(box, size=stored.shape if of_stored else upright.shape)
    folder = prepare(tmp_path, (file.getvalue(), annotation))
    [(_, found, _, _)] = rows(folder)['train']['0.jpg']
    assert pixels(found, upright.shape) == bounds(upright)
    [entry] = rejected(folder) if of_stored else [None]
    if of_stored:
        assert entry['kept']
        assert 'fit the picture before EXIF turns it' in entry['reason']


def bounds(image):
    y, x = np.nonzero(image)
    return int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1


BOX = st.tuples(*[st.integers(0, 7)] * 4).map(
    lambda n: (min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]) + 1, max(n[1], n[3]) + 1)
)


@settings(max_examples=100, deadline=None)
@given(box=BOX, number=st.integers(0, 9))
def test_turned_boxes_are_those_of_turned_pixels(box, number):
    image = np.zeros((9, 13), np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = 1
    turned = orientation.turned_pixels(image, number)
    [found] = orientation.turned_boxes(np.array([box]) / (9, 13, 9, 13), number)
    np.testing.assert_allclose(found * (turned.shape * 2), bounds(turned), atol=1e-9)


CHANGED = {
    'no height': ((5, 1, 5, 9), box_sets.DROPPED, None),
    'no width': ((5, 9, 7, 9), box_sets.DROPPED, None),
    'no area outside': ((5, 99, 7, 99), box_sets.DROPPED, None),
    'less than float32 tells': ((5, 9, 7, 9 + 1e-9), box_sets.DROPPED, None),
    'out at the top left': ((-3, -2, 5, 6), box_sets.CLIPPED, (0, 0, 5, 6)),
    'out at the bottom right': ((1, 2, 31, 41), box_sets.CLIPPED, (1, 2, 30, 40)),
    'larger than the picture': ((-9, -9, 99, 99), box_sets.CLIPPED, (0, 0, 30, 40)),
    'out by rounding': ((-1e-3, 2, 30.002, 40.003), None, (0, 2, 30, 40)),
}


@pytest.mark.parametrize('case', CHANGED)
def test_boxes_that_are_dropped_or_clipped_and_counted(tmp_path, case):
    box, done, stored = CHANGED[case]
    folder = prepare(tmp_path, (picture(), marked((1, 1, 2, 2), box, (3, 3, 4, 4))))
    found = [pixels(of) for _, of, _, _ in rows(folder)['train']['0.jpg']]
    assert found == [(1, 1, 2, 2), *([stored] if stored else []), (3, 3, 4, 4)]
    counted = tfds.builder_from_directory(folder).info.metadata['boxes']['train']
    assert counted == ({done: 1} if done else {})
    entries = [(e['file'], e['reason'], e['kept'], e['defective']) for e in rejected(folder)]
    assert entries == [('0.jpg', f'boxes {done}: object 2', True, False)] * bool(done)


def test_each_box_is_counted(tmp_path):
    folder = prepare(tmp_path, (picture(), marked((-5, 1, 2, 2), (1, 1, 2, 90), (1, 1, 1, 2))))
    counted = tfds.builder_from_directory(folder).info.metadata['boxes']['train']
    assert counted == {box_sets.CLIPPED: 2, box_sets.DROPPED: 1}
    [entry] = rejected(folder)
    assert entry['reason'] == (
        f'boxes {box_sets.DROPPED}: object 3; boxes {box_sets.CLIPPED}: object 1 and 1 more'
    )


REFUSED = {
    'upside down': (marked((9, 1, 5, 9)), 'object 1 has a box that ends before it starts'),
    'right to left': (marked((1, 9, 5, 3)), 'object 1 has a box that ends before it starts'),
    'below': (marked((1, 1, 2, 2), (30, 1, 40, 9)), 'object 2 has a box outside the picture'),
    'at the left': (marked((1, -9, 2, 0)), 'object 1 has a box outside the picture'),
    'no number': (marked((1, np.nan, 5, 9)), 'object 1 has a number that is not finite'),
    'endless': (marked((1, 2, 5, np.inf)), 'object 1 has a number that is not finite'),
    'of another size': (marked(size=(30, 41)), 'of 41x30 pixels, and the picture has 40x30'),
    'several': (marked((9, 1, 5, 9), (1, 1, 2, 2), (9, 1, 5, 9)), 'before it starts (and 1 more)'),
    'unreadable': (BoxFaultError('is empty'), 'is empty'),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_wrong_is_named_and_refused(tmp_path, case):
    wrong, reason = REFUSED[case]
    examples = [(picture(0), marked((1, 2, 3, 4))), (picture(1), wrong)]
    with pytest.raises(UserError, match='1 files are defective'):
        prepare(tmp_path, *examples)
    folder = prepare(tmp_path, *examples, max_rejected=1)
    [entry] = rejected(folder)
    assert (entry['file'], entry['defective']) == ('boxes.xml', True)
    assert entry['reason'].endswith(reason)
    assert list(rows(folder)['train']) == ['0.jpg']


def test_the_summary_counts_what_is_stored(tmp_path):
    rng = np.random.default_rng(0)
    examples, labels, areas = [], [], []
    for number in range(20):
        count = number % 5
        start = rng.uniform(0, 20, (count, 2))
        boxes = np.concatenate([start, start + rng.uniform(1, 10, (count, 2))], axis=1)
        of = tuple(int(n) for n in rng.integers(0, 2, count))
        exchanged = 6 if number % 2 else None
        size = (WIDTH, HEIGHT) if exchanged else (HEIGHT, WIDTH)
        examples.append(
            (picture(number, orientation=exchanged), marked(*boxes, size=size, labels=of))
        )
        labels.append(of)
        areas += [(y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in boxes]
    folder = prepare(tmp_path, *examples)
    found = summary.of(folder)['boxes']
    every = [label for of in labels for label in of]
    assert found['boxes'] == {'cat': [every.count(0)], 'dog': [every.count(1)], 'never': [0]}
    assert found['pictures'] == {
        name: [sum(number in of for of in labels)]
        for number, name in enumerate(['cat', 'dog', 'never'])
    }
    assert found['in_a_picture'] == [0, 2, 4]
    assert found['without'] == 4
    assert found['sides'][0] == pytest.approx(min(areas) ** 0.5, abs=0.051)
    assert found['sides'][2] == pytest.approx(max(areas) ** 0.5, abs=0.051)
    assert (found['small'], found['medium'], found['large']) == (len(areas), 0, 0)
    assert 'warning: no boxes of 1 of 3 classes: never.' in summary.text(summary.of(folder), folder)
