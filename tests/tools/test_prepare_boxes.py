"""prepare_data voc, yolo and coco for boxes: killed, what they print, real annotations."""

import json
import signal
import subprocess

import numpy as np
import pytest

from preparation import voc_xml
from tests.conftest import SHARED_DATA
from tests.support_boxes import picture, rejected, rows, voc, write
from tests.tools.prepare_child import child, run, tree
from tools import prepare_data

BLOOD = SHARED_DATA / 'bccd'
CLASSES = ('cat', 'dog', 'wolf')


def boxes_of(number):
    """The boxes of a picture: (class, xmin, ymin, xmax, ymax) in edges; some have to be mended."""
    rng = np.random.default_rng(number)
    found = []
    for _ in range(number % 4):
        x, y = rng.integers(0, 20, 2).tolist()
        found.append((CLASSES[rng.integers(0, 3)], x, y, x + 5 + number % 19, y + 4))
    if number % 7 == 0:
        found.append(('cat', 30, 20, 44, 25))
        found.append(('dog', 3, 3, 3, 9))
    if number in (9, 23):
        found.append(('dog', 9, 9, 5, 12))
    return found


def write_voc(folder, count):
    for n in range(count):
        write(folder / f'JPEGImages/{n:02d}.jpg', picture(n))
        boxes = [(name, x0 + (x0 != x1), y0 + 1, x1, y1) for name, x0, y0, x1, y1 in boxes_of(n)]
        write(folder / f'Annotations/{n:02d}.xml', voc(boxes))
    return ['voc', f'--source={folder}']


def write_yolo(folder, count):
    for n in range(count):
        write(folder / f'images/{n:02d}.jpg', picture(n))
        lines = [
            f'{CLASSES.index(name)} {(x0 + x1) / 80:.7f} {(y0 + y1) / 60:.7f} {(x1 - x0) / 40:.7f} '
            f'{(y1 - y0) / 30:.7f}'
            for name, x0, y0, x1, y1 in boxes_of(n)
        ]
        write(folder / f'labels/{n:02d}.txt', '\n'.join(lines))
    write(folder / 'data.yaml', f'names: [{", ".join(CLASSES)}]')
    return ['yolo', f'--source={folder}']


def write_coco(folder, count):
    things = []
    for n in range(count):
        write(folder / f'{n:02d}.jpg', picture(n))
        for name, x0, y0, x1, y1 in boxes_of(n):
            things.append({'id': len(things), 'image_id': n, 'bbox': [x0, y0, x1 - x0, y1 - y0],
                           'category_id': CLASSES.index(name)})  # fmt: skip
    images = [
        {'id': n, 'file_name': f'{n:02d}.jpg', 'width': 40, 'height': 30} for n in range(count)
    ]
    categories = [{'id': n, 'name': name} for n, name in enumerate(CLASSES)]
    text = json.dumps({'images': images, 'annotations': things, 'categories': categories})
    path = write(folder / 'all.json', text)
    return ['coco', '--targets=boxes', f'--source={folder}', '--annotations', str(path)]


WRITERS = {'voc': write_voc, 'yolo': write_yolo, 'coco': write_coco}


def prepare(command, data, *options):
    return prepare_data.main([*command, '--name=pets', f'--data_dir={data}', *options])


@pytest.mark.parametrize(
    'form',
    [
        'voc',
        pytest.param('yolo', marks=pytest.mark.slow),
        pytest.param('coco', marks=pytest.mark.slow),
    ],
)
def test_killed_it_goes_on_to_the_same_bytes_and_summary(tmp_path, form):
    command = [*WRITERS[form](tmp_path / 'source', 60), '--name=pets', '--max_rejected=2']
    options = {'shard_bytes': 20_000}
    printed = said([*command, f'--data_dir={tmp_path}/whole'], **options)
    for kill_at in (30, 11):
        code = run([*command, f'--data_dir={tmp_path}/data'], kill_at=kill_at, **options)
        assert code == -signal.SIGKILL
    again = said([*command, f'--data_dir={tmp_path}/data'], **options)
    assert tree(tmp_path / 'data') == tree(tmp_path / 'whole')
    assert again.replace(f'{tmp_path}/data', f'{tmp_path}/whole') == printed
    shards = list((tmp_path / 'data').glob('*/*/*-train.array_record*'))
    assert len(shards) > 3


def said(command, **options):
    """Runs the command in a separate process; returns what it prints."""
    process = child(command, stdout=subprocess.PIPE, text=True, **options)
    printed = process.communicate()[0]
    assert process.returncode == 0
    return printed


def test_the_same_boxes_in_three_forms_are_the_same_set(tmp_path):
    """Against the boxes as they were made: clipped, without those that have no area."""
    found = {}
    listed = {'train': [f'{n:02d}' for n in range(36)], 'test': ['36', '37', '38', '39']}
    write(tmp_path / 'splits.json', json.dumps(listed))
    for form, writer in WRITERS.items():
        command = writer(tmp_path / form, 40)
        split = [f'--splits={tmp_path}/splits.json'] * (form != 'coco')
        assert prepare(command, tmp_path / f'{form}_data', '--max_rejected=2', *split) == 0
        folder = tmp_path / f'{form}_data' / 'pets' / '1.0.0'
        found[form] = {name: of for part in rows(folder).values() for name, of in part.items()}
        refused = [e for e in rejected(folder) if e['defective']]
        assert sorted(e['file'].rpartition('/')[2][:2] for e in refused) == ['09', '23']
        assert all('ends before it starts' in entry['reason'] for entry in refused)
    for n in set(range(40)) - {9, 23}:
        expected = [
            (name, (y0 / 30, x0 / 40, min(y1, 30) / 30, min(x1, 40) / 40))
            for name, x0, y0, x1, y1 in boxes_of(n)
            if x1 > x0
        ]
        for form in WRITERS:
            boxes = found[form][f'{n:02d}.jpg']
            assert [name for name, *_ in boxes] == [name for name, _ in expected]
            for (_, box, crowd, difficult), (_, of) in zip(boxes, expected, strict=True):
                np.testing.assert_allclose(box, of, atol=1e-6)
                assert not crowd
                assert not difficult


def test_what_it_prints(tmp_path, capsys):
    command = write_voc(tmp_path / 'source', 8)
    write(
        tmp_path / 'source/Annotations/05.xml',
        voc([('dog', n % 30 + 1, 1, 40, 30) for n in range(120)]),
    )
    boxes = [('dog', 0, 0, 9, 9), ('Dog', 1, 1, 9, 9)]
    write(tmp_path / 'source/Annotations/06.xml', voc(boxes))
    write(tmp_path / 'source/readme.txt', 'x')
    listed = {'train': [f'0{n}' for n in range(6)], 'validation': ['06'], 'test': ['07']}
    write(tmp_path / 'splits.json', json.dumps(listed))
    options = (f'--splits={tmp_path}/splits.json', '--stretch=1')
    assert prepare(command, tmp_path / 'data', *options) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / 'data' / 'pets'
    lines = printed.splitlines()
    assert lines[0] == f'pets: prepared in {folder} (6 train, 1 validation, 1 test).'
    for line in (
        'JPEGImages/00.jpg (train): boxes without area, dropped: object 2 (dog); boxes clipped to '
        'the picture: object 1 (cat).',
        'Boxes without area, dropped: 2.',
        'Boxes clipped to the picture: 2.',
        'Left out: 1 .txt. They are listed in rejected.jsonl.',
        'Boxes of a class, and the pictures that have it:',
    ):
        assert line in lines
    found = rows(folder / '1.0.0')
    [line] = [line for line in lines if line.split()[:1] == ['dog']]
    every = {
        split: [[name for name, *_ in of] for of in files.values()]
        for split, files in found.items()
    }
    assert line.split()[1:] == [
        cell
        for names in every.values()
        for cell in (
            str(sum(of.count('dog') for of in names)),
            f'({sum("dog" in of for of in names)})',
        )
    ]
    assert 'Boxes in a picture: 0 to 120, the median is 2. Pictures without boxes: 1.' in lines
    assert (
        'Boxes start at 0 in 1 pictures, and were taken to start at 1, from which VOC counts. If '
        f'the tool that wrote them counts from 0, remove {folder} and prepare the set again with '
        '--zero_based.'
    ) in lines
    assert 'warning: the classes "Dog" and "dog" differ in case alone. Are they one class?' in lines
    assert lines[-1] == (
        'Next: python train.py --config=configs/boxes_fcos.py --workdir=runs/pets '
        f'--config.data.name=pets --config.data.dir={tmp_path}/data --config.data.max_boxes=120'
    )
    assert prepare(command, tmp_path / 'data', *options) == 0
    assert 'pets: already prepared in' in capsys.readouterr().out
    assert prepare(command, tmp_path / 'data', *options, '--zero_based') == 2
    assert 'with other options' in capsys.readouterr().err


def test_coco_without_targets_takes_what_there_is(tmp_path, capsys):
    command = write_coco(tmp_path / 'source', 12)
    command.remove('--targets=boxes')
    assert prepare(command, tmp_path / 'data', '--max_rejected=1') == 0
    assert 'No object has a mask, so the set gets boxes' in capsys.readouterr().out
    assert rows(tmp_path / 'data/pets/1.0.0')['train']
    path = tmp_path / 'source/all.json'
    found = json.loads(path.read_text())
    for thing in found['annotations']:
        thing['segmentation'] = [[1, 1, 9, 1, 9, 9]]
    path.write_text(json.dumps(found))
    assert prepare(command, tmp_path / 'masks') == 0
    assert 'The set gets masks' in capsys.readouterr().out
    assert 'segmentation_mask' in (tmp_path / 'masks/pets/1.0.0/features.json').read_text()


def test_class_names_in_a_file_and_mistakes(tmp_path, capsys):
    command = write_coco(tmp_path / 'source', 6)
    write(tmp_path / 'names.txt', 'wolf\n\ndog\ncat\n')
    assert prepare(command, tmp_path / 'data', f'--class_names={tmp_path}/names.txt') == 0
    summary = json.loads((tmp_path / 'data/pets/1.0.0/summary.json').read_text())
    assert list(summary['boxes']['boxes']) == ['wolf', 'dog', 'cat']
    capsys.readouterr()
    for options, message in (
        (['--instances'], '--instances is for masks'),
        (['--targets=masks', '--class_names=a'], '--class_names is for --targets=boxes'),
        (['--class_names=cat,cat'], 'has an empty or repeated name'),
        (['--class_names=ct'], "has no category 'ct'. Did you mean"),
    ):
        assert prepare(command, tmp_path / 'other', *options) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert message in error


def test_the_blood_cells(tmp_path, capsys):
    """Real annotations, and the boxes in them counted by other means."""
    if not BLOOD.is_dir():
        pytest.skip(f'needs the pictures in {BLOOD} (set SHARED_DATA)')
    assert prepare(['voc', f'--source={BLOOD}'], tmp_path / 'data') == 0
    printed = capsys.readouterr().out
    assert '(205 train, 87 validation, 72 test)' in printed
    assert 'Boxes without area, dropped: 2.' in printed
    found = rows(tmp_path / 'data/pets/1.0.0')
    for split, name in (('train', 'train'), ('validation', 'val'), ('test', 'test')):
        stems = (BLOOD / f'ImageSets/Main/{name}.txt').read_text().split()
        assert list(found[split]) == [f'{stem}.jpg' for stem in stems]
        for stem in stems[:20]:
            annotation = voc_xml.read((BLOOD / f'Annotations/{stem}.xml').read_bytes())
            expected = [
                (name, (y0 - 1) / 480, (x0 - 1) / 640, y1 / 480, x1 / 640)
                for name, (y0, x0, y1, x1), _ in annotation.objects
                if y1 > y0
            ]
            boxes = [(name, *box) for name, box, *_ in found[split][f'{stem}.jpg']]
            assert [of[0] for of in boxes] == [of[0] for of in expected]
            np.testing.assert_allclose(
                [of[1:] for of in boxes], [of[1:] for of in expected], atol=1e-6
            )
