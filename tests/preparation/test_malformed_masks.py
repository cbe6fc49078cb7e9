"""Two hundred malformed pictures and masks: each is refused by name or stored as it should be."""

import io
import itertools
import json
import os
import random
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_sources import decoding
from preparation import sharded_writer
from tests.support_pictures import png_chunk
from tools import prepare_data

SHAPE = (24, 32)
CLASSES = 4


def file_of(pixels, form='PNG', **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def in_form(rng, pixels, *forms):
    return file_of(pixels, rng.choice(forms))


def cut(rng, data):
    return data[: rng.randrange(len(data) - 1)]


def flipped(rng, data):
    """A few bits of it turned."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def garbage(rng, data):
    start = rng.choice(
        [b'', data[:8], data[:30], b'GIF89a', b'\xff\xd8\xff\xe1', b'II*\0', b'RIFF']
    )
    return start + rng.randbytes(rng.randrange(400))


def header(rng, data):
    """A PNG header that asks for much, or for nothing."""
    size = rng.choice([(1 << 30, 1 << 30), (20_000, 20_000), (0, 5), (5, 0), (1 << 31, 1)])
    depth, color = rng.choice([(8, 0), (16, 6), (3, 7), (1, 3)])
    kind = png_chunk(b'IHDR', struct.pack('>IIBBBBB', *size, depth, color, 0, 0, 0))
    return data[:8] + kind + data[33:]


def other(rng, data):
    return rng.choice(
        [b'', b'\0', b'Not Found', b'PK\3\4' + data, b'%!PS-Adobe-3.0 EPSF', data * 2]
    )


def oriented(rng, pixels, form):
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(12)
    data = file_of(pixels, form, exif=exif)
    return flipped(rng, data[:60]) + data[60:] if rng.random() < 0.5 else data


def animated(rng, pixels, *forms):
    second = Image.fromarray(pixels[::-1])
    return file_of(pixels, rng.choice(forms), save_all=True, append_images=[second])


def in_mode(rng, pixels, *modes):
    return file_of(Image.fromarray(pixels).convert(rng.choice(modes)), 'TIFF')


def resized(rng, values):
    return file_of(np.resize(values, (rng.randint(1, 40), rng.randint(33, 40))))


def beyond(rng, values):
    return file_of(values.astype(np.int32) + rng.choice([252, 70_000, -9]), 'TIFF')


PICTURES = {
    'cut': lambda rng, pixels: cut(rng, in_form(rng, pixels, 'PNG', 'JPEG', 'GIF', 'TIFF')),
    'flipped': lambda rng, pixels: flipped(rng, in_form(rng, pixels, 'PNG', 'JPEG', 'WEBP')),
    'garbage': lambda rng, pixels: garbage(rng, file_of(pixels)),
    'header': lambda rng, pixels: header(rng, file_of(pixels)),
    'other': lambda rng, pixels: other(rng, file_of(pixels)),
    'oriented': lambda rng, pixels: oriented(rng, pixels, rng.choice(['PNG', 'JPEG', 'WEBP'])),
    'animated': lambda rng, pixels: animated(rng, pixels, 'PNG', 'GIF', 'WEBP'),
    'mode': lambda rng, pixels: in_mode(rng, pixels, '1', 'L', 'LA', 'P', 'RGBA', 'I;16', 'F'),
}
MASKS = {
    'cut': lambda rng, values: cut(rng, file_of(values)),
    'flipped': lambda rng, values: flipped(rng, file_of(values)),
    'garbage': lambda rng, values: garbage(rng, file_of(values)),
    'header': lambda rng, values: header(rng, file_of(values)),
    'other': lambda rng, values: other(rng, file_of(values)),
    'size': resized,
    'turned': lambda rng, values: file_of(np.rot90(values)),
    'jpeg': lambda rng, values: in_form(rng, values, 'JPEG', 'WEBP'),
    'color': lambda rng, values: in_mode(rng, values, 'RGB', 'RGBA', 'CMYK'),
    'animated': lambda rng, values: animated(rng, values, 'PNG', 'TIFF'),
    'fractions': lambda rng, values: file_of(values.astype(np.float32), 'TIFF'),
    'beyond': beyond,
    'oriented': lambda rng, values: oriented(rng, values, 'PNG'),
    'palette': lambda rng, values: file_of(paletted(values)),
    'one bit': lambda rng, values: file_of(Image.fromarray(values > 1)),
}
SOUND_MASKS = ('palette', 'one bit')  # these are to be stored, and their values are known
REFUSED_MASKS = ('size', 'turned', 'jpeg', 'color', 'animated', 'fractions', 'beyond')


def paletted(values):
    picture = Image.fromarray(values, 'L').convert('P')
    picture.putdata(values.ravel().tolist())
    picture.putpalette([200, 3, 7, 200, 3, 7] * 128)
    return picture


def pairs(count):
    """Yields (kind, which is malformed, picture file, mask file, values), by a seed."""
    kinds = [*(('picture', k) for k in PICTURES), *(('mask', k) for k in MASKS)]
    for seed, (which, kind) in zip(range(count), itertools.cycle(kinds), strict=False):
        rng, numbers = random.Random(seed), np.random.default_rng(seed)
        pixels = numbers.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
        values = numbers.integers(0, CLASSES, SHAPE).astype(np.uint8)
        picture, mask = file_of(pixels), file_of(values)
        if which == 'picture':
            picture = PICTURES[kind](rng, pixels)
        else:
            mask = MASKS[kind](rng, values)
        values = (values > 1).astype(np.uint8) if (which, kind) == ('mask', 'one bit') else values
        yield kind, which, picture, mask, values


def odd_files(folder):
    """What stands in a folder and is no file; returns the stems."""
    for where in ('images', 'labels'):
        other = folder / ('labels' if where == 'images' else 'images')
        for kind in ('pipe', 'link', 'folder', 'missing'):
            path = folder / where / f'{where}_{kind}.png'
            (other / path.name).write_bytes(file_of(np.zeros(SHAPE, np.uint8)))
            if kind == 'pipe':
                os.mkfifo(path)
            elif kind == 'link':
                path.symlink_to('nowhere')
            elif kind == 'folder':
                path.mkdir()
    return [f'{w}_{k}' for w in ('images', 'labels') for k in ('pipe', 'link', 'folder', 'missing')]


def prepare(folder, *options):
    names = ','.join('abcd') if '--instances' not in options else ''
    command = ['masks', '--name=cells', f'--source={folder}/source', f'--data_dir={folder}/data']
    command += [f'--class_names={names}'] * bool(names)
    return prepare_data.main([*command, '--max_rejected=250', *options])


@pytest.mark.parametrize('instances', [False, True])
def test_each_of_200_is_named_or_stored_as_it_should_be(tmp_path, capsys, instances):
    source = tmp_path / 'source'
    (source / 'images').mkdir(parents=True)
    (source / 'labels').mkdir()
    made = {}
    for number, (kind, which, picture, mask, values) in enumerate(pairs(200)):
        stem = f'{number:03d}_{which}_{kind.replace(" ", "_")}'
        (source / 'images' / f'{stem}.png').write_bytes(picture)
        (source / 'labels' / f'{stem}.png').write_bytes(mask)
        made[stem] = (which, kind, values)
    odd = odd_files(source)
    assert prepare(tmp_path, *['--instances'] * instances) == 0, capsys.readouterr().err
    folder = tmp_path / 'data' / 'cells' / '1.0.0'
    lines = (folder / sharded_writer.REJECTED_FILE).read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    refused = {os.path.basename(e['file'])[:-4] for e in entries if not e.get('kept')}
    examples = read(folder)
    assert refused | examples.keys() == {*made, *odd}
    assert not refused & examples.keys()
    assert refused >= set(odd)
    assert all(e['reason'] and e['defective'] for e in entries if not e.get('kept'))
    for stem, (which, kind, _) in made.items():
        if which == 'mask' and kind in REFUSED_MASKS and (kind, instances) != ('beyond', True):
            assert stem in refused
        if which == 'mask' and kind in SOUND_MASKS:
            assert stem in examples
    for stem, (pixels, found) in examples.items():
        which, kind, values = made[stem]
        assert pixels.shape[:2] == found.shape, stem
        if kind not in ('oriented', 'beyond'):  # no malformed mask becomes another mask
            np.testing.assert_array_equal(found, values, stem)
    assert 40 < len(examples) < 160


def read(folder):
    """{stem: (pixels, mask)} of all splits, as our readers decode them."""
    builder = tfds.builder_from_directory(folder)
    target = next(name for name in builder.info.features if name not in ('image', 'file_name'))
    skip = {'image': tfds.decode.SkipDecoding()}
    found = {}
    for split in builder.info.splits:
        for example in builder.as_data_source(split, decoders=skip):
            values = example[target][..., 0]
            pixels = decoding.decode(example['image'], upright=True)
            found[example['file_name'].decode()[:-4]] = (pixels, values)
    return found


def test_masks_of_single_objects_that_are_malformed_are_named(tmp_path, capsys):
    kinds = [
        kind for kind in MASKS if kind not in ('oriented', 'palette', 'one bit', 'color', 'beyond')
    ]
    splits = {'train': ['a'], 'validation': ['b'], 'test': ['c']}
    for number, kind in enumerate([*kinds, *'abc']):
        rng, values = random.Random(number), np.zeros(SHAPE, np.uint8)
        values[2:9, 3:5] = 255
        folder = tmp_path / 'source' / kind
        for name in ('images', 'masks'):
            (folder / name).mkdir(parents=True)
        (folder / 'images' / 'a.png').write_bytes(file_of(np.zeros((*SHAPE, 3), np.uint8)))
        (folder / 'masks' / '1.png').write_bytes(file_of(values))
        second = MASKS[kind](rng, np.roll(values, 9, 0)) if kind in MASKS else file_of(values)
        (folder / 'masks' / '2.png').write_bytes(second)
    splits['train'] += kinds
    (tmp_path / 'splits.json').write_text(json.dumps(splits))
    options = ('--instances', f'--splits={tmp_path}/splits.json')
    assert prepare(tmp_path, *options) == 0, capsys.readouterr().err
    listed = tmp_path / 'data' / 'cells' / '1.0.0' / sharded_writer.REJECTED_FILE
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    kept = {e['file'] for e in entries if e.get('kept')}  # both masks of a, b and c are one
    assert kept == {f'{stem}/images/a.png' for stem in 'abc'}
    assert {e['file'] for e in entries} == {f'{kind}/masks/2.png' for kind in kinds} | kept
