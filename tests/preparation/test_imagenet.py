"""ImageNet's tar files, made of real pictures: labels, order, resuming in the middle, damage."""

import tarfile
import tracemalloc

import pytest

from errors import UserError
from preparation import imagenet
from tests.conftest import SHARED_DATA
from tests.support_pictures import imagenet_files, imagenet_tars, tar_bytes, write_tar


@pytest.fixture(scope='module')
def tars(tmp_path_factory):
    return imagenet_tars(tmp_path_factory.mktemp('tars'))


def test_the_order_of_the_labels():
    wnids = imagenet.wnids()
    assert (len(wnids), list(wnids)) == (1000, sorted(set(wnids)))
    assert len(imagenet.validation_wnids()) == 50_000
    assert all(imagenet.validation_wnids().count(wnid) == 50 for wnid in wnids[::99])
    if (listed := SHARED_DATA / 'imagenet2012_wnids.txt').exists():
        assert wnids == tuple(listed.read_text().split())


def test_every_picture_comes_with_its_class(tars):
    source = imagenet.ImageNetTars(tars)
    assert source.classes_in_train == 200
    train = list(source.pictures('train', None))
    by_name = {path.name: path.read_bytes() for path in imagenet_files()}
    assert {picture.name: picture.data for picture in train} == by_name
    assert all(source.class_names[picture.label] == picture.name[:9] for picture in train)
    assert train[3].file == f'ILSVRC2012_img_train.tar/{train[3].name[:9]}.tar/{train[3].name}'
    validation = list(source.pictures('validation', None))
    assert len(validation) == 50
    contents = {data: name for name, data in by_name.items()}
    for picture in validation:
        assert source.class_names[picture.label] == contents[picture.data][:9]


def test_numbers_of_the_validation_pictures_are_counted_from_one(tmp_path):
    path = imagenet_files()[0]
    members = [(f'ILSVRC2012_val_{n:08d}.JPEG', path.read_bytes()) for n in (50_000, 1, 2, 777)]
    write_tar(tmp_path / 'ILSVRC2012_img_val.tar', members)
    source = imagenet.ImageNetTars(tmp_path)
    found = [source.class_names[p.label] for p in source.pictures('validation', None)]
    assert found == [imagenet.validation_wnids()[n - 1] for n in (50_000, 1, 2, 777)]
    # The first two lines of the list of labels that Caffe publishes (val.txt).
    assert [p.label for p in source.pictures('validation', None)][1:3] == [65, 970]


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_pictures_go_on_after_any_cursor(tmp_path, split):
    files = imagenet_files()
    more = {path.name[:9]: [('second.JPEG', b'2'), ('third.JPEG', b'3')] for path in files[:3]}
    source = imagenet.ImageNetTars(imagenet_tars(tmp_path, files[:9], validation=5, more=more))
    pictures = list(source.pictures(split, None))
    assert len(pictures) == {'train': 15, 'validation': 5}[split]
    for number, picture in enumerate(pictures):
        assert list(source.pictures(split, picture.cursor)) == pictures[number + 1 :]


def test_memory_does_not_grow_with_the_number_of_members(tmp_path):
    members = ((f'ILSVRC2012_val_{n:08d}.JPEG', b'') for n in range(1, 5001))
    write_tar(tmp_path / 'ILSVRC2012_img_val.tar', members)
    pictures = imagenet.ImageNetTars(tmp_path).pictures('validation', None)
    next(pictures)
    tracemalloc.start()
    try:
        assert sum(1 for _ in pictures) == 4999
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_one_tar_file_is_enough(tars, tmp_path):
    for split, name in imagenet.TARS.items():
        folder = tmp_path / split
        folder.mkdir()
        (folder / name).symlink_to(tars / name)
        assert list(imagenet.ImageNetTars(folder).splits) == [split]


def spoil_last_block(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 512 * 512])


def zip_it(path):
    path.write_bytes(b'PK\x03\x04' + bytes(10_000))


@pytest.mark.parametrize('name', imagenet.TARS.values())
@pytest.mark.parametrize('damage', [spoil_last_block, zip_it, lambda p: p.write_bytes(b'')])
def test_a_damaged_tar_file_is_found_before_anything_is_written(tmp_path, name, damage):
    imagenet_tars(tmp_path, imagenet_files()[:5], validation=3)
    damage(tmp_path / name)
    with pytest.raises(UserError, match=rf'{name} (cannot be read as|does not end like) a tar fil'):
        imagenet.ImageNetTars(tmp_path)


@pytest.mark.parametrize('split', imagenet.TARS)
def test_a_file_that_was_made_at_full_size_but_never_filled(tmp_path, split):
    path = imagenet_tars(tmp_path, imagenet_files()[:5], validation=5) / imagenet.TARS[split]
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2].offset
    with path.open('r+b') as file:
        file.seek(third)
        file.write(bytes(path.stat().st_size - third))
    with pytest.raises(UserError, match=f'{path.name} .*nothing but zeros from byte {third} on'):
        list(imagenet.ImageNetTars(tmp_path).pictures(split, None))


def test_a_cut_inner_tar_file_is_an_error(tmp_path):
    wnid = imagenet_files()[0].name[:9]
    inner = tar_bytes([('a.JPEG', bytes(5000)), ('b.JPEG', bytes(5000))])
    write_tar(tmp_path / 'ILSVRC2012_img_train.tar', [(f'{wnid}.tar', inner[:7000])])
    with pytest.raises(UserError, match=r'ILSVRC2012_img_train\.tar cannot be read as a tar file'):
        list(imagenet.ImageNetTars(tmp_path).pictures('train', None))


@pytest.mark.parametrize(
    ('name', 'members', 'message'),
    [
        (
            'train',
            [('n00000001.tar', b'')],
            'has a member "n00000001.tar", which is not the tar file of an ImageNet class, such as '
            'n01440764.tar. Download the official file again.',
        ),
        ('train', [('readme.txt', b'')], 'has a member "readme.txt"'),
        ('train', [('n01440764.tar', tar_bytes([]))] * 2, 'has a class twice'),
        ('train', [], 'is empty, but should contain files such as n01440764.tar: download the'),
        ('val', [('ILSVRC2012_val_00050001.JPEG', b'x')], 'has a member "ILSVRC2012_val_0005000'),
        ('val', [('ILSVRC2012_val_00000000.JPEG', b'x')], 'has a member "ILSVRC2012_val_0000000'),
        ('val', [('n01440764_1.JPEG', b'x')], 'has a member "n01440764_1.JPEG" instead of names'),
    ],
)
def test_other_contents_are_refused(tmp_path, name, members, message):
    write_tar(tmp_path / f'ILSVRC2012_img_{name}.tar', members)
    with pytest.raises(UserError) as caught:
        list(imagenet.ImageNetTars(tmp_path).pictures('validation', None))
    assert f'ILSVRC2012_img_{name}.tar {message}' in str(caught.value)


def test_no_tar_file(tmp_path):
    with pytest.raises(UserError, match=r'neither ILSVRC2012_img_train\.tar nor ILSVRC2012_img_v'):
        imagenet.ImageNetTars(tmp_path)


def test_folders_and_links_in_a_tar_file_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / 'ILSVRC2012_img_val.tar', 'w') as tar:
        folder = tarfile.TarInfo('val')
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo('val/ILSVRC2012_val_00000001.JPEG')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
        tar.add(imagenet_files()[0], 'val/ILSVRC2012_val_00000002.JPEG')
    pictures = list(imagenet.ImageNetTars(tmp_path).pictures('validation', None))
    assert [picture.name for picture in pictures] == ['ILSVRC2012_val_00000002.JPEG']
