"""Three hundred malformed files of boxes: each is refused in a sentence, or stored as it says."""

import itertools
import json
import os
import random
import re

import numpy as np

from tests.support_boxes import picture, rejected, rows, voc, write
from tools import prepare_data

SIZE = (40, 30)
HUGE = '9' * 5000


def cut(rng, text):
    data = text.encode()
    return data[: rng.randrange(len(data))]


def flipped(rng, text):
    changed = bytearray(text.encode())
    for _ in range(rng.randint(1, 6)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def doubled(rng, text):
    """A part of it twice."""
    start, stop = sorted(rng.randrange(len(text)) for _ in range(2))
    return text[:stop] + text[start:]


def renumbered(rng, text):
    """Some of its numbers become others."""
    odd = [
        'nan',
        'inf',
        '-inf',
        '1e999',
        '-1',
        '0',
        '1e5',
        '0x10',
        '',
        '1,5',
        '1_0',
        '٣',
        HUGE,
        '½',
    ]
    places = [m.span() for m in re.finditer(r'\d+(\.\d+)?', text)]
    for start, stop in sorted(rng.sample(places, min(2, len(places))), reverse=True):
        text = text[:start] + rng.choice(odd) + text[stop:]
    return text


def garbage(rng, text):
    start = rng.choice(
        [b'', b'\xff\xfe', b'\xef\xbb\xbf', b'PK\3\4', b'\x89PNG\r\n', text[:9].encode()]
    )
    return start + rng.randbytes(rng.randrange(300))


def other(rng, text):
    return rng.choice(
        ['', '\0', ' \n', '<html></html>', '{}', '[]', 'null', 'Not Found', text + '\0']
    )


def deep(rng, text):
    return rng.choice(['<a>' * 50_000, '[' * 50_000, '{"a":' * 50_000, '- ' * 5_000])


def encoded_otherwise(rng, text):
    return text.encode(rng.choice(['utf-16', 'utf-32', 'cp037', 'utf-7']))


def declared(rng, text):
    """An encoding that is none of texts."""
    return f'<?xml version="1.0" encoding="{rng.choice(["x", "idna", "zip"])}"?>{text}'


def without(rng, text):
    """Some of its elements are gone."""
    tag = rng.choice(['name', 'xmin', 'bndbox'])
    return re.sub(f'<{tag}>.*?</{tag}>', '', text, flags=re.DOTALL)


CHANGES = {
    'cut': cut,
    'flipped': flipped,
    'doubled': doubled,
    'renumbered': renumbered,
    'garbage': garbage,
    'other': other,
    'deep': deep,
    'encoded': encoded_otherwise,
}
XML = {
    **CHANGES,
    'bomb': lambda rng, text: (
        '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + text.replace('dog', '&b;')
    ),
    'outside': lambda rng, text: (
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + text.replace('dog', '&a;')
    ),
    'declared': declared,
    'without': without,
}


def changed(kinds, count, text):
    """Yields (stem, contents) of malformed files, by a seed."""
    for seed, kind in zip(range(count), itertools.cycle(kinds), strict=False):
        found = kinds[kind](random.Random(seed), text)
        yield f'{seed:03d}_{kind}', found if isinstance(found, bytes) else found.encode()


def sound(folder, where, beside, text):
    for split in ('train', 'val'):
        write(folder / where.format(split, 'sound'), picture())
        write(folder / beside.format(split, 'sound'), text)


def odd_files(folder, suffix):
    """What stands in the place of a file of boxes and is none."""
    os.mkfifo(folder / f'pipe{suffix}')
    (folder / f'link{suffix}').symlink_to('nowhere')
    (folder / f'folder{suffix}').mkdir()


def check(folder, expected):
    """Every example is stored, with boxes that lie in the picture, or refused with a reason."""
    refused = {os.path.basename(e['file']).rpartition('.')[0]: e for e in rejected(folder)
               if not e.get('kept')}  # fmt: skip
    stored = {
        name.rpartition('.')[0]: boxes for of in rows(folder).values() for name, boxes in of.items()
    }
    assert expected <= refused.keys() | stored.keys()
    assert not refused.keys() & stored.keys()
    assert all(entry['reason'].isprintable() for entry in refused.values())
    for boxes in stored.values():
        found = np.array([box for _, box, _, _ in boxes]).reshape(-1, 4)
        assert ((found >= 0) & (found <= 1)).all()
        assert (found[:, 2:] > found[:, :2]).all()
    return refused, stored


def prepare(command, folder, *options):
    return prepare_data.main(
        [command, '--name=pets', f'--source={folder}/source', f'--data_dir={folder}/data',
         '--max_rejected=300', *options]
    )  # fmt: skip


def test_100_malformed_xml(tmp_path, capsys):
    text = voc([('dog', 3, 4, 20, 25), ('cat', 1, 1, 40, 30)])
    sound(tmp_path / 'source', '{}/{}.jpg', '{}/{}.xml', text)
    names = set()
    for stem, data in changed(XML, 100, text):
        write(tmp_path / f'source/train/{stem}.jpg', picture())
        write(tmp_path / f'source/train/{stem}.xml', data)
        names.add(stem)
    odd_files(tmp_path / 'source/train', '.xml')
    assert prepare('voc', tmp_path, '--class_names=dog,cat') == 0, capsys.readouterr().err
    refused, stored = check(tmp_path / 'data/pets/1.0.0', names)
    for kind in ('bomb', 'outside', 'garbage', 'deep', 'declared', 'without'):
        assert not [stem for stem in stored if stem.endswith(kind)], kind
    assert len(refused) > 60
    assert len(stored) > 5


def test_100_malformed_texts(tmp_path, capsys):
    text = '0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 0.2\n1 0.1 0.1 0.2 0.2 0.3 0.1\n'
    sound(tmp_path / 'source', '{}/images/{}.jpg', '{}/labels/{}.txt', text)
    names = set()
    for stem, data in changed(CHANGES, 100, text):
        write(tmp_path / f'source/train/images/{stem}.jpg', picture())
        write(tmp_path / f'source/train/labels/{stem}.txt', data)
        names.add(stem)
    odd_files(tmp_path / 'source/train/labels', '.txt')
    assert prepare('yolo', tmp_path, '--class_names=dog,cat') == 0, capsys.readouterr().err
    refused, stored = check(tmp_path / 'data/pets/1.0.0', names)
    for kind in ('garbage', 'deep'):
        assert not [stem for stem in stored if stem.endswith(kind)], kind
    assert len(refused) > 60
    assert len(stored) > 5


def refused_or_prepared(command, folder, capsys, *options):
    """Runs a command on a set of which a file for all pictures is malformed."""
    code = prepare(command, folder, *options)
    error = capsys.readouterr().err
    assert code == 0 or (code == 2 and re.fullmatch(r'error: [^\n]+\n', error)), error
    return code


def test_50_malformed_annotations_of_all_pictures(tmp_path, capsys):
    images = [{'id': n, 'file_name': f'{n}.jpg', 'width': 40, 'height': 30} for n in range(4)]
    things = [{'id': 1, 'image_id': 0, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'iscrowd': 0}]
    text = json.dumps(
        {'images': images, 'annotations': things, 'categories': [{'id': 1, 'name': 'a'}]}
    )
    for n in range(4):
        write(tmp_path / f'source/{n}.jpg', picture(n))
    codes = []
    for stem, data in changed(CHANGES, 50, text):
        path = write(tmp_path / f'{stem}.json', data)
        folder = tmp_path / stem
        folder.mkdir()
        (folder / 'source').symlink_to(tmp_path / 'source')
        options = ('--targets=boxes', '--annotations', str(path))
        codes.append(refused_or_prepared('coco', folder, capsys, *options))
    assert codes.count(2) > 30


def test_50_malformed_data_yaml(tmp_path, capsys):
    text = 'path: .\ntrain: train/images\nval: val/images\nnames:\n  0: dog\n  1: cat\nnc: 2\n'
    sound(tmp_path / 'source', '{}/images/{}.jpg', '{}/labels/{}.txt', '1 0.5 0.5 0.25 0.25')
    codes = []
    for stem, data in changed(CHANGES, 50, text):
        folder = tmp_path / stem
        (folder / 'source').mkdir(parents=True)
        for split in ('train', 'val'):
            (folder / 'source' / split).symlink_to(tmp_path / 'source' / split)
        write(folder / 'source/data.yaml', data)
        codes.append(refused_or_prepared('yolo', folder, capsys))
    assert codes.count(2) > 20
