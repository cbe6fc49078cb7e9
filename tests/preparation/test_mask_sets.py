"""Pictures with masks as a data set: what stock tfds and our own readers get of each."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from data_sources import decoding, record_source, stretching
from data_sources.label_maps import InstanceMap, LabelMap
from errors import UserError
from preparation import mask_sets, sharded_writer, stored_pictures
from preparation.mask_files import MaskFaultError
from preparation.mask_sets import Drawn, MaskSet, Pair
from tests.support_pictures import png_chunk


def encoded(pixels, form='PNG', orientation=None, **options):
    """The file of a picture (an array, or Pillow's)."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if orientation:
        options['exif'] = Image.Exif()
        options['exif'][0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


class Source:
    """A MaskSource of pairs in memory: {split: [(name, picture, Drawn or error)]}."""

    version, description, homepage, citation = '1.0.0', 'Pairs.', '', ''

    def __init__(self, pairs, instances=False, class_names=None, name='pairs'):
        self.name, self._pairs = name, pairs
        self.instances, self.class_names = instances, class_names
        self.splits = {split: len(found) for split, found in pairs.items()}

    def identity(self):
        return {'pairs': 'these'}

    def stamp(self):
        return None

    def pairs(self, split, cursor):
        for number, (name, picture, drawn) in enumerate(self._pairs[split]):
            if number >= (cursor or 0):
                yield Pair(name, name, number + 1, 1, picture, lambda drawn=drawn: draw(drawn))


def draw(drawn):
    if isinstance(drawn, Exception):
        raise drawn
    return drawn


def in_all(pairs):
    """The same pairs in each split, so that none are held out of train."""
    return dict.fromkeys(('train', 'validation', 'test'), pairs)


def prepare(folder, source, stretch=None, max_rejected=0):
    assert sharded_writer.prepare(MaskSet(source, stretch), folder, max_rejected)
    return folder / source.name / source.version


def read(data_dir, kind, name='pairs'):
    """Every example of train as our own readers give it: (picture, mask)."""
    where = 'instance_map' if isinstance(kind, InstanceMap) else 'segmentation_mask'
    source = record_source.load(name, 'train', str(data_dir), {where: kind})
    records = source.read(range(source.size))
    return [(decoding.decode(r.image, source.upright), r.targets[where]) for r in records]


def noise(seed, shape=(20, 30, 3), dtype=np.uint8, most=256):
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


def mask(seed=0, shape=(20, 30), classes=3):
    return noise(seed, shape, np.int32, classes)


def test_stock_tfds_reads_pictures_masks_and_class_names(tmp_path):
    pictures = [noise(n, (20 + n, 30, 3)) for n in range(3)]
    masks = [mask(n, (20 + n, 30)) for n in range(3)]
    masks[1][0, :5] = 255
    pairs = [
        (f'{n}.png', encoded(picture), Drawn(values))
        for n, (picture, values) in enumerate(zip(pictures, masks, strict=True))
    ]
    names = ('ground', 'cell', 'wall', 'never')
    folder = prepare(tmp_path, Source({'train': pairs[:2], 'test': pairs[2:]}, class_names=names))
    builder = tfds.builder_from_directory(folder)
    assert builder.info.features['segmentation_mask'].names == list(names)
    assert builder.info.metadata['upright'] is True
    assert builder.info.metadata['stretch'] is None
    found = [*builder.as_data_source('train'), *builder.as_data_source('test')]
    for number, example in enumerate(found):
        np.testing.assert_array_equal(example['image'], pictures[number])
        np.testing.assert_array_equal(example['segmentation_mask'][..., 0], masks[number])
        assert example['segmentation_mask'].dtype == np.uint8
        assert example['file_name'] == f'{number}.png'.encode()


def test_objects_keep_their_numbers_in_16_bits(tmp_path):
    values = [np.array([[0, 7], [65_535, 255]]), np.array([[0, 0]]), np.array([[1]])]
    pairs = [(f'{n}', encoded(noise(n, (*v.shape, 3))), Drawn(v)) for n, v in enumerate(values)]
    folder = prepare(tmp_path, Source(in_all(pairs), instances=True))
    feature = tfds.builder_from_directory(folder).info.features['instance_map']
    assert (feature.np_dtype, feature.shape) == (np.uint16, (None, None, 1))
    for (_, found), expected in zip(read(tmp_path, InstanceMap()), values, strict=True):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)
    for example, expected in zip(
        tfds.builder_from_directory(folder).as_data_source('train'), values, strict=True
    ):
        assert example['instance_map'].dtype == np.uint16
        np.testing.assert_array_equal(example['instance_map'][..., 0], expected)


def test_classes_are_numbers_up_to_the_largest_where_they_have_no_names(tmp_path):
    pairs = [
        ('a', encoded(noise(0)), Drawn(mask(classes=2))),
        ('b', encoded(noise(1)), Drawn(mask())),
    ]
    folder = prepare(tmp_path, Source({'train': pairs[:1], 'validation': pairs[1:]}))
    feature = tfds.builder_from_directory(folder).info.features['segmentation_mask']
    assert feature.names == ['0', '1', '2']


def test_masks_of_0_and_255_alone_are_refused(tmp_path):
    values = np.where(mask(classes=2), 255, 0)
    with pytest.raises(UserError, match='If 255 stands for an object, write 1 in its place'):
        prepare(tmp_path, Source({'train': [('a', encoded(noise(0)), Drawn(values))]}))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
def test_a_mask_fits_the_upright_picture_after_reading(tmp_path, orientation, form):
    """The upright picture is white where the mask is 1, in an asymmetric shape."""
    upright = np.zeros((24, 40), np.uint8)
    upright[:8, :16] = upright[8:16, :8] = 255
    stored = next(
        turned
        for turned in all_turns(upright)
        if np.array_equal(as_pillow_turns(turned, orientation), upright)
    )
    options = {'quality': 100} if form == 'JPEG' else {}
    data = encoded(stored, form, orientation, **options)
    pairs = [('a', data, Drawn((upright > 0).astype(np.int32)))]
    folder = prepare(tmp_path, Source(in_all(pairs)))
    picture, found = read(tmp_path, LabelMap())[0]
    np.testing.assert_array_equal(picture[..., 0] > 127, found == 1)
    np.testing.assert_array_equal(found, upright > 0)
    skipped = {'image': tfds.decode.SkipDecoding()}
    source = tfds.builder_from_directory(folder).as_data_source('train', decoders=skipped)
    assert source[0]['image'] == data


def all_turns(pixels):
    turns = [np.rot90(pixels, n) for n in range(4)]
    return turns + [turned[:, ::-1] for turned in turns]


def as_pillow_turns(pixels, orientation):
    with Image.open(io.BytesIO(encoded(pixels, 'PNG', orientation))) as picture:
        return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
def test_a_mask_that_fits_only_the_unrotated_picture_is_left_so_and_named(tmp_path, form):
    stored = np.zeros((24, 40), np.uint8)
    stored[:8, :16] = 255
    values = (stored > 0).astype(np.int32)
    pairs = [('a.jpg', encoded(stored, form, 6), Drawn(values, 'a.png'))]
    folder = prepare(tmp_path, Source(in_all(pairs)))
    picture, found = read(tmp_path, LabelMap())[0]
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(picture[..., 0] > 127, found == 1)
    first, *_ = listed(folder)
    assert first['file'] == 'a.jpg'
    assert not first['defective']
    assert 'fits only the picture before EXIF turns it' in first['reason']
    kinds = tfds.builder_from_directory(folder).info.metadata['kinds']['train']
    assert kinds[mask_sets.UNTURNED] == 1


def listed(folder):
    lines = (folder / sharded_writer.REJECTED_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


ALPHA = np.full((20, 30, 1), 255, np.uint8)
OF_ALL_SORTS = {
    'alpha that carries nothing': Image.fromarray(np.concatenate([noise(3), ALPHA], -1)),
    'transparent': Image.fromarray(noise(3, (20, 30, 4))),
    'palette': Image.fromarray(noise(4)).quantize(16),
    'one bit': Image.fromarray(noise(5, (20, 30))).convert('1'),
    '16 bits': Image.fromarray(noise(6, (20, 30), np.uint16, 65_536)),
    'grey': Image.fromarray(noise(7, (20, 30))),
    'rgb': Image.fromarray(noise(8)),
}


def deep_color():
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""
    values = noise(9, (20, 30, 3), np.dtype('>u2'), 65_536)
    header = struct.pack('>IIBBBBB', 30, 20, 16, 2, 0, 0, 0)
    rows = zlib.compress(b''.join(b'\0' + row.tobytes() for row in values))
    chunks = ((b'IHDR', header), (b'IDAT', rows), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize('sort', [*OF_ALL_SORTS, '16 bits of color'])
def test_stock_tfds_and_our_readers_get_the_same_pixels(tmp_path, sort):
    data = encoded(OF_ALL_SORTS[sort]) if sort in OF_ALL_SORTS else deep_color()
    folder = prepare(tmp_path, Source(in_all([('a', data, Drawn(mask()))])))
    ours = read(tmp_path, LabelMap())[0][0]
    np.testing.assert_array_equal(ours, decoding.decode(data))
    example = tfds.builder_from_directory(folder).as_data_source('train')[0]
    np.testing.assert_array_equal(example['image'], ours)
    kept = sort in ('grey', 'rgb')
    kinds = tfds.builder_from_directory(folder).info.metadata['kinds']['train']
    assert (stored_pictures.CONVERTED in kinds) != kept


def test_a_turned_picture_that_is_stored_anew_is_stored_upright(tmp_path):
    data = encoded(np.concatenate([noise(3), ALPHA], -1), 'PNG', 6)
    prepare(tmp_path, Source(in_all([('a', data, Drawn(mask(shape=(30, 20))))])))
    [(picture, _)] = read(tmp_path, LabelMap())
    np.testing.assert_array_equal(picture, np.rot90(noise(3), -1))


REFUSED = {
    'another size': (Drawn(mask(shape=(20, 29)), 'm.png'), 'm.png', '29x20 pixels, the picture 3'),
    'turned': (Drawn(mask(shape=(30, 20))), 'a.png', '20x30 pixels, the picture 30x20'),
    'a class too many': (Drawn(mask(classes=4)), 'a.png', 'of class 3, out of range for 3 classes'),
    'unreadable': (MaskFaultError('m.png', 'gone'), 'm.png', 'gone'),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_named_and_refused(tmp_path, case):
    drawn, file, reason = REFUSED[case]
    good = ('good.png', encoded(noise(0)), Drawn(mask()))
    source = Source(
        {'train': [good, ('a.png', encoded(noise(1)), drawn)]}, class_names=('a', 'b', 'c')
    )
    with pytest.raises(UserError, match='1 files are defective'):
        prepare(tmp_path, source)
    folder = prepare(tmp_path, source, max_rejected=1)
    [entry] = listed(folder)
    assert (entry['file'], entry['defective']) == (file, True)
    assert reason in entry['reason']
    assert tfds.builder_from_directory(folder).info.splits['train'].num_examples == 1


def test_a_stretched_set_says_so_and_holds_stretched_upright_pictures(tmp_path):
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) + 1000
    turned = noise(1, (30, 20, 3), most=100)
    pairs = [('a', encoded(deep), Drawn(mask())), ('b', encoded(turned, 'PNG', 6), Drawn(mask()))]
    folder = prepare(tmp_path, Source(in_all(pairs)), stretch=0.0)
    info = tfds.builder_from_directory(folder).info
    assert info.metadata['stretch'] == 0.0
    assert 'became black and white' in info.description
    (first, _), (second, _) = read(tmp_path, LabelMap())
    expected = np.rint((deep - 1000.0) / 599 * 255)
    assert np.abs(first - expected[..., None]).max() <= 1
    assert (first.min(), first.max()) == (0, 255)
    assert second.shape == (20, 30, 3)
    assert np.abs(second - np.rot90(turned, -1) / 99.0 * 255).max() <= 1


def test_a_new_picture_is_stretched_as_those_of_the_set_were(tmp_path):
    deep = np.random.default_rng(0).integers(300, 900, (20, 30)).astype(np.uint16)
    turned = encoded(noise(1, (30, 20, 3)), 'JPEG', 6)
    files = [encoded(deep), turned]
    pairs = [(f'{n}', file, Drawn(mask(n))) for n, file in enumerate(files)]
    prepare(tmp_path, Source(in_all(pairs)), stretch=2.5)
    source = record_source.load('pairs', 'train', str(tmp_path), {'segmentation_mask': LabelMap()})
    assert (source.stretch, source.upright) == (2.5, True)
    for file, (pixels, _) in zip(files, read(tmp_path, LabelMap()), strict=True):
        new = stretching.encoded(file, source.stretch, source.upright)
        np.testing.assert_array_equal(decoding.decode(new), pixels)
    with pytest.raises(decoding.DecodeError, match='cannot be decoded'):
        stretching.encoded(files[0][:100], 2.5, True)


def test_other_options_make_another_set(tmp_path):
    pairs = {'train': [('a', encoded(noise(0)), Drawn(mask()))]}
    prepare(tmp_path, Source(pairs))
    for source, stretch in ((Source(pairs), 1.0), (Source(pairs, instances=True), None)):
        with pytest.raises(UserError, match='with other options'):
            sharded_writer.prepare(MaskSet(source, stretch), tmp_path)
