"""Pictures with boxes, written as the tools of others write them."""

import io
import json

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def picture(seed=0, size=(40, 30), form='JPEG', orientation=None):
    """The file of a picture of noise; size is (width, height) as it is stored."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    options = {}
    if orientation:
        options['exif'] = Image.Exif()
        options['exif'][0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def voc(boxes, size=(40, 30), filename='', more=''):
    """An annotation; boxes are (class, xmin, ymin, xmax, ymax)."""
    objects = ''.join(
        f'<object><name>{name}</name><pose>Unspecified</pose><difficult>0</difficult><bndbox>'
        f'<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>'
        for name, x0, y0, x1, y1 in boxes
    )
    sides = f'<size><width>{size[0]}</width><height>{size[1]}</height></size>' if size else ''
    return (
        f'<annotation><filename>{filename}</filename><path>C:\\nowhere\\{filename}</path>'
        f'{sides}{more}{objects}</annotation>'
    )


def rows(folder, decode=False):
    """{split: {file name: [(class name, (y0, x0, y1, x1) fractions, crowd, difficult)]}}.

    As stock tfds reads them; with `decode`, {split: {file name: pixels}} instead.
    """
    builder = tfds.builder_from_directory(folder)
    names = builder.info.features['objects'].feature['label'].names
    decoders = None if decode else {'image': tfds.decode.SkipDecoding()}
    found = {}
    for split in builder.info.splits:
        found[split] = {}
        for example in builder.as_data_source(split, decoders=decoders):
            things = example['objects']
            found[split][example['file_name'].decode()] = (
                example['image']
                if decode
                else [
                    (names[label], tuple(float(n) for n in box), bool(crowd), bool(difficult))
                    for label, box, crowd, difficult in zip(
                        things['label'],
                        things['bbox'],
                        things['is_crowd'],
                        things['difficult'],
                        strict=True,
                    )
                ]
            )
    return found


def rejected(folder):
    """What rejected.jsonl lists; nothing without one."""
    path = folder / 'rejected.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def stock_features(form='voc', shape=(None, None, 3), names=('ant', 'bee', 'cat')):
    """The features of a set with boxes as tfds' own sets of that name have them."""
    objects = {
        'bbox': tfds.features.BBoxFeature(),
        'label': tfds.features.ClassLabel(names=list(names)),
    }
    if form == 'voc':
        objects |= {'is_truncated': np.bool_, 'is_difficult': np.bool_}
        objects['pose'] = tfds.features.ClassLabel(names=['left', 'right'])
    else:
        objects |= {'area': np.int64, 'id': np.int64, 'is_crowd': np.bool_}
    return {
        'image': tfds.features.Image(shape=shape, encoding_format='png'),
        'objects': tfds.features.Sequence(objects),
        'file_name': tfds.features.Text(),
    }


def stock_record(pixels, boxes, labels, crowd=None):
    """A record of such a set, for tests.support_targets.write_set; boxes are fractions."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    found = {
        'image': file.getvalue(),
        'objects/bbox': np.array(boxes, np.float32),
        'objects/label': list(map(int, labels)),
        'file_name': b'a.png',
    }
    return found if crowd is None else {**found, 'objects/is_crowd': list(map(int, crowd))}
